"""The snippets and figures of docs/guide/data.md are true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.data.helpers import write

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/guide/data.md").read_text()

CONFIG = """
train_input_path: "train" eval_input_path: "train" model_dir: "out"
data_config { dataset_type: ParquetDataset fg_mode: FG_NORMAL label_fields: "label" }
train_config {
  num_epochs: 1
  sparse_optimizer { adagrad_optimizer { lr: 0.1 } }
  dense_optimizer { adam_optimizer { lr: 0.1 } } }
feature_configs { id_feature { feature_name: "id" expression: "item:id" num_buckets: 1000 embedding_dim: 4 } }
model_config {
  feature_groups { group_name: "deep" feature_names: "id" group_type: DEEP }
  multi_tower { towers { input: "deep" mlp { hidden_units: 4 } } final { hidden_units: 4 } }
  losses { binary_cross_entropy {} }
}
"""


def test_the_python_snippet_runs(tmp_path):
    write(tmp_path / "train", [3000])
    (tmp_path / "my.config").write_text(CONFIG)
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{snippet}\nprint(sum(b.size for b in rest))",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(3000 - 1024)


def test_the_messages_shown_are_golden_ones():
    (shown,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    golden = {path.read_text().strip() for path in (ROOT / "tests/golden/data").glob("*.txt")}
    assert set(shown.splitlines()) <= golden
