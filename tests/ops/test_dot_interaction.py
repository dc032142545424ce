from __future__ import annotations

import pytest
import torch
from torch import fx
from torchrec.models.dlrm import InteractionArch

from rec.ops.dot_interaction import dot_interaction, pair_index, reference
from rec.ops.dot_interaction.fused import DotInteraction


def test_three_vectors_by_hand() -> None:
    # (1,2).(3,4) = 11, (1,2).(0,-1) = -2, (3,4).(0,-1) = -4
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [0.0, -1.0]]])
    assert dot_interaction(x, pair_index(3)).tolist() == [[11.0, -2.0, -4.0]]
    assert dot_interaction(x.requires_grad_(), pair_index(3)).tolist() == [[11.0, -2.0, -4.0]]


@pytest.mark.parametrize("shape", [(1, 2, 1), (5, 7, 3), (3, 1, 4), (0, 3, 2), (64, 27, 16)])
def test_fused_equals_reference_with_the_gradient(shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    pairs = pair_index(shape[1])
    x = torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    a, b = DotInteraction.apply(x, pairs), reference(y, pairs)
    torch.testing.assert_close(a, b)
    g = torch.randn(a.shape, dtype=torch.float64, generator=generator)
    a.backward(g)
    b.backward(g)
    torch.testing.assert_close(x.grad, y.grad)


def test_order_is_that_of_torchrec() -> None:
    x = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(0))
    theirs = InteractionArch(5)(x[:, 0], x[:, 1:])
    torch.testing.assert_close(dot_interaction(x, pair_index(6)), theirs[:, 8:])


def test_gradcheck() -> None:
    x = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: dot_interaction(t, pair_index(4)), x)


def test_autocast_gives_a_gradient_of_the_inputs_type() -> None:
    x = torch.randn(4, 3, 8, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = dot_interaction(x, pair_index(3))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    want = x.detach().sum(1, keepdim=True) - x.detach()
    # bf16 products of order 1.
    torch.testing.assert_close(x.grad, want, rtol=0.02, atol=0.02)


def test_a_traced_graph_has_no_python_function() -> None:
    graph = fx.symbolic_trace(lambda x: dot_interaction(x, pair_index(3))).graph
    assert all("rec" not in str(getattr(n.target, "__module__", "")) for n in graph.nodes if n.op == "call_function")
