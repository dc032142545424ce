"""The fused backend against plain tables with autograd and an optimizer of torch."""

from __future__ import annotations

import pytest
import torch
from google.protobuf import text_format
from torch import Tensor

from rec.config.errors import ConfigError, DataError
from rec.embedding import EmbeddingGroup
from rec.protos import feature_pb2, optimizer_pb2
from tests.embedding.helpers import FEATURES, GROUPS, batch, build

ADAGRAD = "adagrad_optimizer { lr: 0.1 }"


def optimizer(text: str) -> optimizer_pb2.SparseOptimizer:
    return text_format.Parse(text, optimizer_pb2.SparseOptimizer())


def fused(features: str = FEATURES, groups: str = GROUPS, *, optim: str = ADAGRAD, seed: int = 0):
    made, config = build(features, groups)
    return made, EmbeddingGroup(made, config, sparse_optimizer=optimizer(optim), seed=seed)


def plain(features: str = FEATURES, groups: str = GROUPS, *, seed: int = 0) -> EmbeddingGroup:
    return EmbeddingGroup(*build(features, groups), backend="plain", seed=seed)


def backward(out: dict[str, Tensor], seed: int) -> None:
    """A loss that gives every output its own gradient."""
    g = torch.Generator().manual_seed(seed)
    terms = [
        (out[name].float() * torch.randn(out[name].shape, generator=g)).sum()
        for name in sorted(out)
        if not name.endswith(".lengths")
    ]
    total = sum(term for term in terms if term.requires_grad)
    total.backward()


def touched(group: EmbeddingGroup, data: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rows of each table that a batch looks up, by attribute name."""
    rows: dict[str, list[Tensor]] = {}
    for lookup in group.plan.lookups.values():
        rows.setdefault(group.tables.attributes[lookup.table], []).append(data[f"{lookup.feature}.values"])
    return {name: torch.cat(ids).unique() for name, ids in rows.items()}


def assert_equal_outputs(a: dict[str, Tensor], b: dict[str, Tensor], atol: float) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=atol, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


DENSE = [
    # On fbgemm's kernels.
    ("sgd_optimizer { lr: 0.1 }", lambda p: torch.optim.SGD(p, lr=0.1)),
    (ADAGRAD, lambda p: torch.optim.Adagrad(p, lr=0.1, eps=1e-8)),
    (
        "adagrad_optimizer { lr: 0.1 initial_accumulator_value: 0.5 }",
        lambda p: torch.optim.Adagrad(p, lr=0.1, eps=1e-8, initial_accumulator_value=0.5),
    ),
    # On ours: a row without gradient has no update in these either, so dense equals lazy.
    (
        "adagrad_optimizer { lr: 0.1 weight_decay: 1e-30 }",
        lambda p: torch.optim.Adagrad(p, lr=0.1, eps=1e-8),
    ),
    # Every row in every step: the dense optimizers with an L2 penalty on whole tables.
    (
        "adam_optimizer { lr: 0.01 weight_decay: 0.05 weight_decay_mode: L2_ALL_ROWS }",
        lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.05),
    ),
    (
        "adagrad_optimizer { lr: 0.1 weight_decay: 0.05 weight_decay_mode: L2_ALL_ROWS }",
        lambda p: torch.optim.Adagrad(p, lr=0.1, eps=1e-8, weight_decay=0.05),
    ),
]


@pytest.mark.parametrize(("text", "make"), DENSE, ids=[t for t, _ in DENSE])
def test_equals_dense_training(text, make):
    """Single, several, weighted, mean, shared with a sequence, WIDE, steps of several ids: all tables agree."""
    features, a = fused(optim=text)
    b = plain()
    dense = make(list(b.tables.parameters()))
    for i in range(5):
        data = batch(features, 1 if i == 2 else 17, seed=i, most=0 if i == 3 else 4)
        left, right = a(data), b(data)
        # Sums of a few numbers in another order.
        assert_equal_outputs(left, right, atol=1e-6)
        backward(left, i)
        dense.zero_grad()
        backward(right, i)
        dense.step()
    weights = a.export_weights()
    for name, table in b.tables.named_parameters():
        torch.testing.assert_close(weights[f"tables.{name}"], table.detach(), atol=1e-6, rtol=0)


SPARSE = [
    ("adam_optimizer { lr: 0.1 beta1: 0.8 beta2: 0.9 }", 0.0),
    ("adam_optimizer { lr: 0.1 beta1: 0.8 beta2: 0.9 weight_decay: 0.05 }", 0.05),
]


@pytest.mark.parametrize(("text", "decay"), SPARSE, ids=[t for t, _ in SPARSE])
def test_lazy_adam_equals_sparse_adam(text, decay):
    features, a = fused(optim=text)
    b = plain()
    tables = dict(b.tables.named_parameters())
    sparse = torch.optim.SparseAdam(list(tables.values()), lr=0.1, betas=(0.8, 0.9))
    for i in range(5):
        data = batch(features, 9, seed=i)
        left, right = a(data), b(data)
        # Adam divides by the root of small numbers, which enlarges last bits.
        assert_equal_outputs(left, right, atol=1e-5)
        backward(left, i)
        b.zero_grad()
        backward(right, i)
        for name, rows in touched(b, data).items():
            table = tables[name]
            grads = table.grad[rows] + decay * table.detach()[rows]
            table.grad = torch.sparse_coo_tensor(rows.unsqueeze(0), grads, table.shape, check_invariants=True)
        sparse.step()


def test_untouched_rows_keep_their_bits():
    features, a = fused(optim="adam_optimizer { lr: 0.1 weight_decay: 0.5 }")
    before = {name: w.clone() for name, w in a.export_weights().items()}
    data = batch(features, 3)
    backward(a(data), 0)
    for name, rows in touched(a, data).items():
        after = a.export_weights()[f"tables.{name}"]
        kept = torch.ones(len(after), dtype=torch.bool)
        kept[rows] = False
        assert torch.equal(after[kept], before[f"tables.{name}"][kept])
        assert not torch.equal(after[~kept], before[f"tables.{name}"][~kept])


ONE = 'feature_configs {{ id_feature {{ feature_name: "a" num_buckets: {rows} embedding_dim: {dim} {more} }} }}'
G = 'feature_groups { group_name: "g" feature_names: "a" } deepfm { deep { hidden_units: 4 } }'


@pytest.mark.parametrize("dim", [1, 3, 8, 10])
@pytest.mark.parametrize(
    "text", [ADAGRAD, "rowwise_adagrad_optimizer { lr: 0.1 }", "partial_rowwise_adam_optimizer { lr: 0.1 }"]
)
def test_any_width_trains_alike(text, dim):
    """fbgemm wants multiples of 4: padding must not show, not even in a mean over the columns."""
    _, a = fused(ONE.format(rows=3, dim=dim, more=""), G, optim=text)
    b = plain(ONE.format(rows=3, dim=dim, more=""), G)
    (table,) = b.tables.parameters()
    total = torch.zeros(3, 1)
    m = torch.zeros(3, dim)
    for i in range(1, 4):
        # Every row in every step, twice.
        data = {"a.values": torch.tensor([0, 1, 2, 2, 1, 0]), "a.lengths": torch.ones(6, dtype=torch.int32)}
        left, right = a(data), b(data)
        assert left["g"].shape == (6, dim)
        torch.testing.assert_close(left["g"], right["g"], atol=1e-6, rtol=0)
        backward(left, i)
        b.zero_grad()
        backward(right, i)
        g = table.grad
        with torch.no_grad():
            if text == ADAGRAD:
                m += g * g
                table -= 0.1 * g / (m.sqrt() + 1e-8)
            elif text.startswith("rowwise"):
                total += (g * g).mean(1, keepdim=True)
                table -= 0.1 * g / (total.sqrt() + 1e-8)
            else:
                m.lerp_(g, 0.1)
                total.mul_(0.999).add_((g * g).mean(1, keepdim=True), alpha=0.001)
                table -= 0.1 * (m / (1 - 0.9**i)) / ((total / (1 - 0.999**i)).sqrt() + 1e-8)
    torch.testing.assert_close(a.export_weights()["tables.a_emb"], table.detach(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("text", [ADAGRAD, "adam_optimizer { lr: 0.1 }"])
def test_clipping_clips_each_output_element(text):
    _, a = fused(
        ONE.format(rows=3, dim=4, more=""),
        G,
        optim=text.replace("0.1", "0.1 gradient_clipping: true max_gradient: 0.5"),
    )
    _, b = fused(ONE.format(rows=3, dim=4, more=""), G, optim=text)
    data = {"a.values": torch.tensor([0, 0, 1]), "a.lengths": torch.ones(3, dtype=torch.int32)}
    grad = torch.tensor([[9.0, -9, 0.1, 0], [0.2, 0.3, -7, 0], [1, 2, 3, 4]])
    for _ in range(2):
        a(data)["g"].backward(grad)
        b(data)["g"].backward(grad.clamp(-0.5, 0.5))
    assert torch.equal(a.export_weights()["tables.a_emb"], b.export_weights()["tables.a_emb"])


@pytest.mark.parametrize("text", [ADAGRAD, "adam_optimizer { lr: 0.1 }"])
def test_frozen_tables_do_not_move(text):
    """Trap 2, for a table so small that TorchRec's planner would make it data_parallel; and for a sequence."""
    frozen = FEATURES.replace('embedding_name: "item"', 'embedding_name: "item" trainable: false')
    frozen = frozen.replace(
        '"flag" num_buckets: 2 embedding_dim: 8', '"flag" num_buckets: 2 embedding_dim: 8 trainable: false'
    )
    features, a = fused(frozen, optim=text)
    before = {name: w.clone() for name, w in a.export_weights().items()}
    for i in range(3):
        backward(a(batch(features, 20, seed=i)), i)
    after = a.export_weights()
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {"tables.item", "tables.flag_emb", "tables.item_wide"}
    assert not any(name.startswith(("tables.item.", "tables.flag_emb.")) for name in a.tables_state())


def test_small_tables_have_the_configured_optimizer():
    """Trap 1: whatever the size, the update is Adagrad's, and no parameter is left to the dense optimizer."""
    _, a = fused(ONE.format(rows=1, dim=4, more=""), G)
    assert list(a.parameters()) == []
    before = a.export_weights()["tables.a_emb"].clone()
    data = {"a.values": torch.tensor([0]), "a.lengths": torch.ones(1, dtype=torch.int32)}
    a(data)["g"].backward(torch.full((1, 4), 3.0))
    # The first step of Adagrad is lr * sign.
    torch.testing.assert_close(a.export_weights()["tables.a_emb"], before - 0.1)
    assert a.tables_state()["tables.a_emb.sum"].tolist() == [[9.0] * 4]


def test_sequence_tables_are_initialised_and_updated_like_pooled_ones():
    """Trap 3."""
    text = FEATURES.replace('"tags" num_buckets: 9', '"tags" init_fn: "nn.init.constant_,val=0.5" num_buckets: 9')
    features, a = fused(text)
    assert a.export_weights()["tables.hist__tags_emb"].unique().tolist() == [0.5]
    backward(a(batch(features, 20)), 0)
    assert a.tables_state()["tables.hist__tags_emb.sum"].sum() > 0


def test_embedding_name_shares_table_and_state_between_group_types():
    """Trap 4: the target and the history are one table, updated once by the sum of their gradients."""
    features, a = fused()
    data = batch(features, 1)
    data |= {"item.values": torch.tensor([5]), "hist__item.values": torch.tensor([5, 5])}
    for name in ("hist__item", "hist__tags", "hist__dt"):
        data[f"{name}.lengths"] = torch.tensor([2], dtype=torch.int32)
    data["hist__dt.values"] = torch.zeros(2, 1)
    data["hist__tags.inner_lengths"] = torch.tensor([0, 0], dtype=torch.int32)
    data["hist__tags.values"] = torch.zeros(0, dtype=torch.int64)
    out = a(data)
    assert torch.equal(out["seq.query"][0], out["seq.sequence"][0, :8])
    assert torch.equal(out["deep"][0, 9:17], out["seq.query"][0])
    (out["seq.query"].sum() + out["seq.sequence"][:, :8].sum() + out["deep"][:, 9:17].sum()).backward()
    # query, two steps and the DEEP column: a gradient of 4, squared once.
    assert a.tables_state()["tables.item.sum"][5].tolist() == [16.0] * 8


@pytest.mark.parametrize("text", ["sgd_optimizer { lr: 0.1 }", ADAGRAD, "adam_optimizer { lr: 0.1 }"])
def test_fp16_tables_train_within_half_precision(text):
    half = ONE.format(rows=20, dim=8, more='data_type: "FP16" init_fn: "nn.init.uniform_,a=-1,b=1"')
    full = half.replace("FP16", "FP32")
    features, a = fused(half, G, optim=text)
    _, b = fused(full, G, optim=text)
    for i in range(3):
        data = batch(features, 30, seed=i)
        left, right = a(data), b(data)
        assert left["g"].dtype == torch.float32
        # 11 bits of values below 2, a few roundings.
        torch.testing.assert_close(left["g"], right["g"], atol=4e-3, rtol=0)
        backward(left, i)
        backward(right, i)
    assert a.export_weights()["tables.a_emb"].dtype == torch.float16


def test_columns_are_found_by_name_whatever_the_order_of_the_kernels():
    """Wide tables come first in the kernel, the group has them last, apart and twice."""
    features = "".join(
        f'feature_configs {{ id_feature {{ feature_name: "{n}" num_buckets: 9 embedding_dim: {d} }} }}'
        for n, d in [("a", 4), ("b", 16), ("c", 6), ("d", 16), ("e", 4)]
    )
    groups = """feature_groups { group_name: "x" feature_names: ["e", "d", "c", "b", "a"] }
        feature_groups { group_name: "y" feature_names: ["b", "d"] }
        feature_groups { group_name: "z" feature_names: ["a", "b", "c", "d", "e"] }
        deepfm { deep { hidden_units: 4 } }"""
    made, a = fused(features, groups)
    b = plain(features, groups)
    for i in range(2):
        data = batch(made, 7, seed=i)
        assert_equal_outputs({k: v.detach() for k, v in a(data).items()}, b(data), atol=0)


def test_learning_rate_can_be_changed():
    for text in (ADAGRAD, "adam_optimizer { lr: 0.1 }"):
        _, a = fused(ONE.format(rows=3, dim=4, more=""), G, optim=text)
        data = {"a.values": torch.tensor([1]), "a.lengths": torch.ones(1, dtype=torch.int32)}
        before = a.export_weights()["tables.a_emb"].clone()
        a.set_lr(0.0)
        a(data)["g"].sum().backward()
        assert torch.equal(a.export_weights()["tables.a_emb"], before)
        a.set_lr(0.01)
        a(data)["g"].sum().backward()
        moved = (before - a.export_weights()["tables.a_emb"])[1]
        # Adagrad's second step is lr / sqrt(2), Adam's lr.
        want = 0.01 / 2**0.5 if text == ADAGRAD else 0.01
        torch.testing.assert_close(moved, torch.full((4,), want), atol=1e-6, rtol=0)


def test_evaluation_changes_nothing():
    features, a = fused(optim="adam_optimizer { lr: 0.1 }")
    before = {k: v.clone() for k, v in a.tables_state().items()}
    with torch.no_grad():
        a.eval()(batch(features, 20))
    assert all(torch.equal(v, before[k]) for k, v in a.tables_state().items())


def test_sequences_of_unequal_length_in_one_group_are_refused():
    features, a = fused()
    data = batch(features, 3)
    data["hist__item.lengths"] = torch.tensor([1, 2, 3], dtype=torch.int32)
    data["hist__item.values"] = torch.zeros(6, dtype=torch.int64)
    data["hist__dt.lengths"] = torch.tensor([3, 2, 1], dtype=torch.int32)
    data["hist__dt.values"] = torch.zeros(6, 1)
    with pytest.raises(DataError, match='"hist__item" and "hist__'):
        a(data)


def test_an_id_out_of_range_raises():
    _, a = fused(ONE.format(rows=3, dim=4, more=""), G)
    with pytest.raises(RuntimeError, match="out of bounds"):
        a({"a.values": torch.tensor([3]), "a.lengths": torch.ones(1, dtype=torch.int32)})


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ('sharding_types: "data_parallel"', 'sharding type "data_parallel".*"table_wise", "row_wise"'),
        ('compute_kernels: "dense"', 'compute kernel "dense".*only "fused"'),
    ],
)
def test_constraints_that_cannot_be_followed_are_refused(constraint, message):
    with pytest.raises(ConfigError, match=message):
        fused(ONE.format(rows=3, dim=4, more=f"embedding_constraints {{ {constraint} }}"), G)


def test_global_constraints_hold_for_tables_without_their_own():
    own = ONE.format(rows=3, dim=4, more='embedding_constraints { sharding_types: "table_wise" }')
    other = ONE.format(rows=3, dim=4, more="").replace('"a"', '"b"')
    features, config = build(own + other, G.replace('"a"', '["a", "b"]'))
    wrong = feature_pb2.ParameterConstraints(sharding_types=["column_wise"])
    with pytest.raises(ConfigError, match='table "b_emb" asks for sharding type "column_wise"'):
        EmbeddingGroup(features, config, sparse_optimizer=optimizer(ADAGRAD), constraints=wrong)


def test_tables_without_an_optimizer_are_refused():
    features, config = build(ONE.format(rows=3, dim=4, more=""), G)
    with pytest.raises(ConfigError, match="sparse_optimizer"):
        EmbeddingGroup(features, config)


def test_a_job_without_tables_works():
    features, config = build(
        'feature_configs { raw_feature { feature_name: "p" } }',
        'feature_groups { group_name: "g" feature_names: "p" } deepfm { deep { hidden_units: 4 } }',
    )
    group = EmbeddingGroup(features, config)
    assert group({"p.values": torch.ones(2, 1)})["g"].tolist() == [[1], [1]]
    assert group.tables_state() == {}


def test_several_sequences_without_any_row_give_nothing():
    """What the user's tower reads while items alone are looked up."""
    text = """feature_configs { sequence_id_feature { feature_name: "long" num_buckets: 9 embedding_dim: 4
      embedding_name: "x" sequence_length: 5 } }
    feature_configs { sequence_id_feature { feature_name: "short" num_buckets: 9 embedding_dim: 4
      embedding_name: "x" sequence_length: 2 } }"""
    groups = " ".join(
        f'feature_groups {{ group_name: "{name}" group_type: SEQUENCE feature_names: "{name}" }}'
        for name in ("long", "short")
    )
    features, a = fused(text, groups + " deepfm { deep { hidden_units: 4 } }")
    out = a(batch(features, 0))
    assert [out[f"{name}.sequence"].shape for name in ("long", "short")] == [(0, 4), (0, 4)]
