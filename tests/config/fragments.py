"""Fragments of text format, each a corner of the syntax."""

from __future__ import annotations

FRAGMENTS = [
    "",
    "# only a comment",
    'model_dir: "a" "b"\n  \'c\'',
    r'model_dir: "tab\t quote\" octal\101 hex\x41 uni\u00e9"',
    "model_dir: 'single \"double\" inside'",
    'model_dir: "caf\u00e9"',
    "data_config { shuffle: true }",
    "data_config: { batch_size: 0x10 }",
    "data_config < batch_size: 010 >",
    "data_config { batch_size: 4; num_workers: 2, shuffle: t }",
    "data_config { shuffle: True with_header: false pin_memory: 0 drop_remainder: 1 }",
    'data_config { label_fields: ["a", "b"] label_fields: "c" label_fields: [] }',
    "data_config { dataset_type: 1 fg_mode: FG_DAG }",
    "train_config { early_stopping { min_delta: 1e-4 patience: 3 } }",
    "train_config { grad_clipping { max_gradient: inf norm_type: -2.5f } }",
    "train_config { grad_clipping { max_gradient: .5 norm_type: 2. } }",
    "train_config { grad_clipping { max_gradient: -1 norm_type: 7 } }",
    "train_config { grad_clipping { max_gradient: -inf norm_type: 1E+2 } }",
    "train_config { num_steps: 1 num_steps: 2 }",
    "train_config { num_steps: 1 } train_config { num_epochs: 2 }",
    "feature_configs { raw_feature { boundaries: [1, 2.5, -3] boundaries: 4 } } feature_configs { }",
    "feature_configs [ { id_feature { feature_name: 'a' } }, { id_feature { feature_name: 'b' } } ]",
    'model_config { custom_model { class_path: "a:b" kwargs { fields { key: "k" value { number_value: 3 } } '
    'fields { key: "l" value { list_value { values { string_value: "s" } } } } } } }',
    'data_config { fg_encoded_multival_sep: "\\001" delimiter: "\\t" }',
]
