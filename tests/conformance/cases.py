"""Every model in its variants: a config, the shapes of its groups, and random inputs for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from google.protobuf import text_format
from torch import Tensor

from rec.config.registry import oneof
from rec.embedding.shapes import GroupShape, GroupShapes
from rec.models import MODELS, Model
from rec.protos import model_pb2

FIELDS = (("a", 8), ("b", 8), ("c", 8), ("d", 8))
MIXED = (("a", 8), ("b", 4), ("price", 1))


def group(name: str, *members: tuple[str, int], type: str = "DEEP") -> GroupShape:
    return GroupShape(name=name, type=type, features=tuple(members))


def sequence(name: str, query: int, steps: int, max_length: int = 5) -> GroupShape:
    members = (("item", query),) if query else (), (("hist__item", steps),)
    return GroupShape(
        name=name,
        type="SEQUENCE",
        features=members[0] + members[1],
        query=members[0],
        sequence=members[1],
        max_length=max_length,
    )


def catalogue(name: str, item: str, width: int, rows: int) -> GroupShape:
    return GroupShape(name=name, type="CATALOGUE", features=((item, width),), rows=rows)


@dataclass(frozen=True)
class Case:
    """A model of the zoo with one setting."""

    name: str
    model: str
    groups: tuple[GroupShape, ...]
    num_class: int = 1
    outputs: tuple[str, ...] = ("logits",)
    # Columns of outputs that are vectors, not logits.
    width: int = 0
    # Trains by kernels of ours that the exported graph has not: the same up to float32's rounding, not bit by bit.
    kernels: bool = False
    # Steps that every sequence has.
    shortest: int = 0
    # A norm brings the last layer's input to unit scale whatever the tables hold.
    normed: bool = False
    # Sequences of one model are of equal lengths, unless they are modalities.
    unequal: bool = False

    def config(self) -> model_pb2.ModelConfig:
        return text_format.Parse(self.model, model_pb2.ModelConfig(num_class=self.num_class))

    def build(self, *, seed: int = 0) -> Model:
        torch.manual_seed(seed)
        config = self.config()
        return MODELS.build(oneof(config, "model"), GroupShapes(self.groups), num_class=self.num_class)

    def inputs(self, rows: int, *, std: float = 1.0, seed: int = 0) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return std * torch.randn(*shape, generator=generator)

        tensors = {}
        for g in self.groups:
            if g.type == "SEQUENCE":
                own = torch.Generator().manual_seed(seed)
                lengths = torch.randint(
                    self.shortest, g.max_length + 1, (rows,), generator=generator if self.unequal else own
                )
                tensors[f"{g.name}.lengths"] = lengths
                if g.query_width:
                    tensors[f"{g.name}.query"] = draw(rows, g.query_width)
                tensors[f"{g.name}.sequence"] = draw(int(lengths.sum()), g.sequence_width)
            elif g.type == "CATALOGUE":
                tensors[f"{g.name}.catalogue"] = draw(g.rows, g.width)
            else:
                tensors[g.name] = draw(rows, g.width)
        return tensors

    def is_by_row(self, name: str) -> bool:
        """Whether an output is of the batch's rows, and not of a whole catalogue."""
        return name != "item_embedding" or all(g.type != "CATALOGUE" for g in self.groups)


def rows_of(case: Case, inputs: dict[str, Tensor], rows: list[int]) -> dict[str, Tensor]:
    """The inputs of some rows, in that order."""
    out = {}
    for g in case.groups:
        if g.type == "SEQUENCE":
            lengths = inputs[f"{g.name}.lengths"]
            steps = inputs[f"{g.name}.sequence"].split(lengths.tolist())
            out[f"{g.name}.lengths"] = lengths[rows]
            if g.query_width:
                out[f"{g.name}.query"] = inputs[f"{g.name}.query"][rows]
            out[f"{g.name}.sequence"] = torch.cat([steps[r] for r in rows])
        elif g.type == "CATALOGUE":
            out[f"{g.name}.catalogue"] = inputs[f"{g.name}.catalogue"]
        else:
            out[g.name] = inputs[g.name][rows]
    return out


WIDE = group("wide", ("a", 4), ("b", 4), type="WIDE")
DEEP = group("deep", *MIXED)
MLP = "{ hidden_units: [16, 8] }"
TASKS = """
  task_towers { tower_name: "ctr" label_name: "click" mlp { hidden_units: [8] } }
  task_towers { tower_name: "grade" label_name: "grade" num_class: 3 }
"""
TASK_OUTPUTS = ("logits_ctr", "logits_grade")
PAIR = (group("user", ("u", 8), ("age", 1)), group("item", ("i", 8)))
VECTORS = ("user_embedding", "item_embedding")

CASES = [
    Case("multi_tower", f'multi_tower {{ towers {{ input: "deep" mlp {MLP} }} final {MLP} }}', (DEEP,)),
    Case(
        "multi_tower_two_classes",
        f'multi_tower {{ towers {{ input: "user" mlp {MLP} }} towers {{ input: "item" }} final {MLP} }}',
        (group("user", ("u", 8)), group("item", ("i", 6))),
        num_class=2,
    ),
    Case(
        "multi_tower_norms",
        """multi_tower {
          towers { input: "user" mlp { hidden_units: [16, 8] use_bn: true activation: "Dice" dropout_ratio: 0.1 } }
          towers { input: "item" mlp { hidden_units: 8 use_ln: true activation: "nn.PReLU" } }
          final { hidden_units: 8 activation: "nn.GELU" } }""",
        (group("user", ("u", 8)), group("item", ("i", 6))),
        normed=True,
    ),
    Case(
        "multi_tower_din",
        f"""multi_tower_din {{ towers {{ input: "deep" mlp {MLP} }}
          din_towers {{ input: "seq" attn_mlp {{ hidden_units: [8, 4] }} }} final {MLP} }}""",
        (DEEP, sequence("seq", 8, 8)),
    ),
    Case(
        "din",
        f"""din {{ sequences {{ input: "seq" attn_mlp {{ hidden_units: [8, 4] activation: "Dice" }} }}
          sequences {{ input: "other" attn_mlp {MLP} max_seq_length: 3 }} final {MLP} }}""",
        (DEEP, sequence("seq", 8, 8), sequence("other", 4, 8)),
    ),
    Case("din_sequence_only", f"din {{ sequences {{ attn_mlp {MLP} }} }}", (sequence("seq", 8, 8),), num_class=3),
    Case(
        "bst",
        f"bst {{ sequences {{ num_heads: 2 dropout_ratio: 0.1 }} final {MLP} }}",
        (DEEP, sequence("seq", 8, 8)),
        kernels=True,
        normed=True,
    ),
    Case(
        "bst_target_and_mean",
        f"""bst {{ sequences {{ input: "seq" pooling: TARGET num_layers: 2 num_heads: 4 max_seq_length: 3 }}
          sequences {{ input: "other" pooling: MEAN position: NONE num_heads: 2 }} final {MLP} }}""",
        (DEEP, sequence("seq", 8, 8), sequence("other", 6, 8)),
        num_class=3,
        kernels=True,
        normed=True,
    ),
    Case("wide_and_deep", f"wide_and_deep {{ deep {MLP} }}", (WIDE, DEEP)),
    Case("wide_and_deep_final", f"wide_and_deep {{ deep {MLP} final {MLP} }}", (WIDE, DEEP), num_class=3),
    Case("deepfm", f"deepfm {{ deep {MLP} }}", (WIDE, group("deep", *FIELDS))),
    Case(
        "deepfm_final",
        f"deepfm {{ deep {MLP} final {MLP} }}",
        (WIDE, DEEP, group("fm", *FIELDS)),
        num_class=3,
    ),
    Case(
        "dcn_v2_stacked",
        f"dcn_v2 {{ backbone {{ hidden_units: 8 }} cross {{ cross_num: 2 low_rank: 4 }} final {MLP} }}",
        (DEEP,),
    ),
    Case(
        "dcn_v2_parallel",
        f"dcn_v2 {{ cross {{ low_rank: 0 }} deep {MLP} }}",
        (DEEP,),
        num_class=3,
    ),
    Case(
        "dcn_v2_mix",
        f"dcn_v2 {{ cross {{ cross_num: 2 low_rank: 4 num_experts: 3 }} deep {MLP} final {{ }} }}",
        (DEEP,),
    ),
    Case(
        "dcn_v3",
        "dcn_v3 { }",
        (group("all", *FIELDS),),
        outputs=("logits", "logits_deep", "logits_shallow"),
    ),
    Case(
        "dcn_v3_heads",
        "dcn_v3 { num_heads: 2 use_bn: true average: PROBS deep_cross_num: 2 shallow_cross_num: 2 }",
        (group("all", *FIELDS),),
        num_class=3,
        outputs=("logits", "logits_deep", "logits_shallow"),
        normed=True,
    ),
    Case("auto_int", "auto_int { }", (group("all", *FIELDS),), num_class=2),
    Case(
        "auto_int_plus",
        f"""auto_int {{ deep {MLP} attention {{ layer_num: 2 attention_dim: 8 use_scale: true use_ln: true
          dropout_ratio: 0.1 }} }}""",
        (WIDE, DEEP, group("fm", *FIELDS)),
        normed=True,
    ),
    Case(
        "mask_net_parallel",
        f"""mask_net {{ mask_net_module {{ n_mask_blocks: 2 mask_block {{ hidden_dim: 6 reduction_ratio: 2
          dropout_ratio: 0.1 }} top_mlp {MLP} }} }}""",
        (DEEP,),
        normed=True,
    ),
    Case(
        "mask_net_serial",
        """mask_net { mask_net_module { n_mask_blocks: 3 mask_block { hidden_dim: 6 aggregation_dim: 10 use_ln: false }
          use_parallel: false emb_norm: GROUP } }""",
        (DEEP,),
        num_class=3,
    ),
    Case(
        "final_mlp",
        f"""final_mlp {{ mlp1 {MLP} mlp2 {{ hidden_units: 12 use_bn: true }} num_heads: 2
          fs_mlp {{ hidden_units: 6 }} fs1_input: "user" fs2_input: "item" }}""",
        (DEEP, group("user", ("u", 8)), group("item", ("i", 6))),
        num_class=3,
        normed=True,
    ),
    Case("final_mlp_constant_gates", f"final_mlp {{ mlp1 {MLP} mlp2 {MLP} }}", (group("all", *MIXED),)),
    Case("final_mlp_no_gates", f"final_mlp {{ mlp1 {MLP} mlp2 {MLP} use_fs: false }}", (DEEP,)),
    Case(
        "dlrm",
        "dlrm { dense_mlp { hidden_units: [16, 8] } final { hidden_units: 8 } }",
        (group("dense", ("x", 1), ("y", 1)), group("sparse", *FIELDS)),
    ),
    Case("dlrm_sparse_only", "dlrm { final { hidden_units: 8 } }", (group("all", *FIELDS),), num_class=2),
    Case(
        "dlrm_dots_only",
        "dlrm { dense_mlp { hidden_units: 8 } arch_with_sparse: false final { hidden_units: 8 } }",
        (group("dense", ("x", 1)), group("sparse", *FIELDS)),
    ),
    Case(
        "mmoe",
        f"mmoe {{ expert_mlp {MLP} gate_mlp {{ hidden_units: 4 }} num_expert: 3 {TASKS} }}",
        (DEEP,),
        outputs=TASK_OUTPUTS,
    ),
    Case("mmoe_linear_gates", f"mmoe {{ expert_mlp {MLP} {TASKS} }}", (DEEP,), outputs=TASK_OUTPUTS),
    Case(
        "mdaf_din",
        f"""mdaf {{ static {{ input: "all" dcn_v3 {{ num_heads: 2 }} }}
          sequence {{ input: "seq" encoder {{ din_encoder {{ attn_mlp {MLP} }} }} }}
          branch_dim: 16 branch_logits: true final {MLP} }}""",
        (group("all", *FIELDS), sequence("seq", 8, 8)),
        outputs=("logits", "logits_static", "logits_sequence", "gate"),
    ),
    Case(
        "mdaf_vector_gate",
        f"""mdaf {{ static {{ input: "deep" mlp {MLP} }}
          sequence {{ input: "seq" encoder {{ pooling_encoder {{ }} }} }}
          fusion {{ gate: VECTOR empty_history: GATE_INPUT }} branch_dim: 16 dropout_ratio: 0 final {MLP} }}""",
        (DEEP, sequence("seq", 0, 8)),
        num_class=3,
        outputs=("logits", "gate"),
    ),
    Case(
        "mdaf_bst",
        f"""mdaf {{ static {{ input: "deep" mlp {MLP} }} sequence {{ input: "seq" encoder {{
          bst_encoder {{ pooling: TARGET num_heads: 2 }} }} }} branch_dim: 16 final {MLP} }}""",
        (DEEP, sequence("seq", 8, 8)),
        outputs=("logits", "gate"),
        kernels=True,
    ),
    Case(
        "mdaf_mamba",
        f"""mdaf {{ static {{ input: "all" dcn_v3 {{ }} }}
          sequence {{ input: "seq" encoder {{ mamba_encoder {{ layers {{ d_state: 4 }} }} }} }}
          branch_dim: 16 final {MLP} }}""",
        (group("all", *FIELDS), sequence("seq", 8, 8)),
        outputs=("logits", "gate"),
        kernels=True,
    ),
    Case(
        "mdaf_bst",
        f"""mdaf {{ static {{ input: "all" dcn_v3 {{ }} }}
          sequence {{ input: "seq" encoder {{ bst_encoder {{ num_heads: 2 pooling: TARGET }} }} }}
          branch_dim: 16 final {MLP} }}""",
        (group("all", *FIELDS), sequence("seq", 8, 8)),
        outputs=("logits", "gate"),
        kernels=True,
    ),
    Case(
        "mdaf_static_only",
        f'mdaf {{ static {{ input: "all" dcn_v3 {{ use_bn: true }} }} branch_dim: 16 final {MLP} }}',
        (group("all", *FIELDS),),
    ),
    Case(
        "mdaf_sequence_only",
        f"""mdaf {{ sequence {{ input: "seq" encoder {{ din_encoder {{ attn_mlp {MLP} max_seq_length: 3 }} }} }}
          branch_dim: 16 final {MLP} }}""",
        (sequence("seq", 8, 8),),
    ),
    Case(
        "tdm",
        f"""tdm {{ multiwindow_din {{ windows_len: [1, 2] most_recent: LAST_STEP attn_mlp {MLP} }}
          final {{ hidden_units: [16, 8] use_bn: true }} }}""",
        (DEEP, sequence("seq", 6, 8)),
        num_class=2,
        normed=True,
    ),
    Case(
        "tdm_one_logit",
        f"""tdm {{ multiwindow_din {{ windows_len: [2, 1, 4] attn_mlp {{ hidden_units: 8 activation: "nn.PReLU" }} }}
          final {MLP} }}""",
        (sequence("seq", 8, 8),),
    ),
    Case("simple_multi_task", f"simple_multi_task {{ {TASKS} }}", (DEEP,), outputs=TASK_OUTPUTS),
    Case(
        "dien",
        f"""dien {{ input: "seq" deep_input: "deep" negative_input: "not" final {MLP} }}""",
        (DEEP, sequence("seq", 6, 8), sequence("not", 0, 8)),
        outputs=("logits", "next_click"),
        kernels=True,
    ),
    Case(
        "dien_without_next_click",
        f"""dien {{ input: "seq" hidden_dim: 5 next_click: false final {MLP} }}""",
        (sequence("seq", 8, 8),),
        num_class=3,
        kernels=True,
    ),
    Case(
        "onetrans",
        f"""onetrans {{ input: "deep" sequence_inputs: ["clicks", "buys"] ns_tokens: 3 d_model: 8 num_heads: 2
          num_layers: 3 ffn_dim: 12 s_queries: [6, 2] final {MLP} }}""",
        (DEEP, sequence("clicks", 0, 8), sequence("buys", 0, 6, max_length=3)),
        kernels=True,
    ),
    Case(
        "onetrans_one_block",
        f"""onetrans {{ input: "deep" sequence_inputs: "seq" ns_tokens: 2 d_model: 8 num_heads: 1 num_layers: 1
          positions: false dropout_ratio: 0.1 final {MLP} }}""",
        (DEEP, sequence("seq", 0, 8)),
        num_class=3,
        kernels=True,
    ),
    Case(
        "msa",
        f"""msa {{ modalities: ["text", "audio", "video"] width: 8 modality_dropout: 0.2 encoder {{ num_layers: 2 }}
          cross_modal {{ blocks {{ num_layers: 2 num_heads: 2 }} bidirectional: true }}
          head {{ pooling: ATTENTION }} static_input: "deep" static_mlp {{ hidden_units: 8 }} final {MLP} }}""",
        (DEEP, sequence("text", 0, 6), sequence("audio", 0, 3, max_length=7), sequence("video", 0, 8, max_length=3)),
        outputs=("logits", *(f"weight_{m}" for m in ("text", "audio", "video"))),
        kernels=True,
        unequal=True,
    ),
    Case(
        "msa_tasks",
        f"""msa {{ modalities: ["text", "audio"] width: 8 position: SINUSOID encoder {{ norm: PRE }}
          cross_modal {{ primary: "audio" blocks {{ norm: PRE causal: true }} }} {TASKS} }}""",
        (sequence("text", 0, 6), sequence("audio", 0, 3)),
        outputs=(*TASK_OUTPUTS, "weight_text", "weight_audio"),
        kernels=True,
        normed=True,
    ),
    Case(
        "msa_mult",
        """msa { modalities: ["text", "audio"] width: 8 head { pooling: LAST }
          mult { num_layers: 2 memory_layers: 1 num_heads: 2 attention_dropout_ratio: 0 } }""",
        (sequence("text", 0, 6), sequence("audio", 0, 3)),
        num_class=3,
        outputs=("logits", "weight_text", "weight_audio"),
        kernels=True,
    ),
    Case(
        "msa_one_modality",
        "msa { modalities: 'text' width: 8 position: NONE encoder { } }",
        (sequence("text", 0, 6),),
        outputs=("logits", "weight_text"),
        kernels=True,
    ),
    Case(
        "mamba4rec_ctr",
        f"""mamba4rec {{ input: "seq" layers {{ num_layers: 2 d_state: 4 }}
          ctr {{ deep_input: "deep" final {MLP} }} }}""",
        (DEEP, sequence("seq", 8, 8)),
        kernels=True,
    ),
    Case(
        "mamba4rec_ctr_classes",
        f"""mamba4rec {{ input: "seq" layers {{ d_state: 4 mamba_init: RECBOLE single_layer_residual: false }}
          ctr {{ final {MLP} }} }}""",
        (sequence("seq", 8, 8),),
        num_class=3,
        kernels=True,
    ),
    Case(
        "mamba4rec_next_item",
        """mamba4rec { input: "seq" layers { d_state: 4 dropout: 0 }
          next_item { catalogue: "items" train_on: LAST top_k: 5 } }""",
        (sequence("seq", 0, 8), catalogue("items", "hist__item", 8, 16)),
        outputs=VECTORS,
        width=8,
        kernels=True,
        normed=True,
        shortest=1,
    ),
    Case(
        "mamba4rec_next_item_wide_steps",
        """mamba4rec { input: "seq" layers { d_state: 4 dropout: 0 }
          next_item { catalogue: "items" train_on: LAST top_k: 5 } }""",
        (sequence("seq", 0, 12), catalogue("items", "hist__item", 8, 16)),
        outputs=VECTORS,
        width=8,
        kernels=True,
        normed=True,
        shortest=1,
    ),
    Case(
        "dssm",
        f'dssm {{ user_tower {{ input: "user" mlp {MLP} }} item_tower {{ input: "item" mlp {MLP} }} output_dim: 6 }}',
        PAIR,
        outputs=VECTORS,
        width=6,
    ),
    Case(
        "dssm_cosine_without_mlp",
        'dssm { user_tower { input: "user" } item_tower { input: "item" } output_dim: 6 similarity: COSINE }',
        PAIR,
        outputs=VECTORS,
        width=6,
        normed=True,
    ),
    Case(
        "dssm_v2",
        f"""dssm_v2 {{ user_tower {{ input: "user" mlp {MLP} }} item_tower {{ input: "item" mlp {MLP} }}
          output_dim: 0 similarity: COSINE }}""",
        PAIR,
        outputs=VECTORS,
        width=8,
        normed=True,
    ),
    Case(
        "dat",
        f"""dat {{ user_tower {{ input: "user" augment_input: "user_a" mlp {MLP} }}
          item_tower {{ input: "item" augment_input: "item_a" mlp {MLP} }} output_dim: 6 similarity: COSINE
          amm_u_weight: 0.5 amm_i_weight: 0.5 }}""",
        (*PAIR, group("user_a", ("u", 6)), group("item_a", ("i", 6))),
        outputs=(*VECTORS, "user_augmented", "item_augmented"),
        width=6,
        normed=True,
    ),
    Case(
        "youtube_dnn",
        f'youtube_dnn {{ user_tower {{ input: "user" mlp {MLP} }} item_tower {{ input: "item" }} }}',
        PAIR,
        outputs=VECTORS,
        width=8,
    ),
    Case(
        "youtube_dnn_item_tower",
        f"""youtube_dnn {{ user_tower {{ input: "user" mlp {MLP} }} item_tower {{ input: "item" mlp {MLP} }}
          output_dim: 6 similarity: COSINE }}""",
        PAIR,
        outputs=VECTORS,
        width=6,
        normed=True,
    ),
    Case(
        "mind",
        f"""mind {{ user_tower {{ input: "user" history_input: "seq" user_mlp {MLP} hist_seq_mlp {MLP}
          capsule_config {{ max_k: 3 max_seq_len: 5 high_dim: 6 }} concat_mlp {MLP} }}
          item_tower {{ input: "item" mlp {MLP} }} output_dim: 6 temperature: 0.1
          similarity: INNER_PRODUCT }}""",
        (*PAIR, sequence("seq", 0, 8)),
        outputs=VECTORS,
        width=6,
        normed=True,
    ),
    Case(
        "mind_sum",
        f"""mind {{ user_tower {{ input: "user" history_input: "seq" user_mlp {MLP} user_seq_combine: SUM
          capsule_config {{ max_k: 2 max_seq_len: 3 high_dim: 8 squash_pow: 0.2 const_caps_num: true num_iters: 2 }}
          concat_mlp {{ hidden_units: 12 use_ln: true }} }} item_tower {{ input: "item" mlp {MLP} }}
          output_dim: 4 simi_pow: 1 }}""",
        (*PAIR, sequence("seq", 0, 8, max_length=8)),
        outputs=VECTORS,
        width=4,
        normed=True,
    ),
    Case(
        "comirec_sa",
        f"""comirec {{ user_tower {{ history_input: "seq" self_attentive {{ num_interests: 3 }} }}
          item_tower {{ input: "item" mlp {MLP} }} output_dim: 8 }}""",
        (group("item", ("i", 6)), sequence("seq", 0, 8)),
        outputs=VECTORS,
        width=8,
        kernels=True,
        shortest=1,
    ),
    Case(
        "comirec_dr",
        """comirec { user_tower { history_input: "seq" dynamic_routing { num_interests: 3 } }
          item_tower { input: "item" } similarity: COSINE }""",
        (group("item", ("i", 6)), sequence("seq", 0, 8)),
        outputs=VECTORS,
        width=6,
        normed=True,
        shortest=1,
    ),
    Case(
        "comirec_dr_without_order",
        f"""comirec {{ user_tower {{ history_input: "seq" dynamic_routing {{ num_interests: 2 matrices: INTEREST }} }}
          item_tower {{ input: "item" mlp {MLP} }} output_dim: 5 }}""",
        (group("item", ("i", 6)), sequence("seq", 0, 8)),
        outputs=VECTORS,
        width=5,
        shortest=1,
    ),
]
