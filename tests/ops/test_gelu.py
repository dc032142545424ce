from __future__ import annotations

import ctypes
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from rec.modules.activation import activation
from rec.ops.gelu import gelu


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (5, 7), (2, 3, 4)])
def test_gelu_equals_torch_with_its_gradient(shape: tuple[int, ...], approximate: str) -> None:
    x = 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    results = gelu(ours, approximate=approximate), F.gelu(theirs, approximate=approximate)
    # Two implementations of erf in float32.
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
    for result in results:
        result.square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-5)


def test_a_config_gets_it_and_a_traced_graph_holds_torchs_own() -> None:
    layer = activation("nn.GELU", 4)
    assert "PlainGELU" in type(layer(torch.ones(2, 4, requires_grad=True)).grad_fn).__name__
    traced = fx.symbolic_trace(nn.Sequential(layer))
    assert any(node.target is F.gelu for node in traced.graph.nodes)


def compiled_primitives(layer: Callable[[Tensor], Tensor], capfd: pytest.CaptureFixture[str]) -> int:
    """How many primitives oneDNN compiles for training steps of three lengths: it tells on the C library's stdout."""
    flush = ctypes.CDLL(None).fflush
    flush(None)
    capfd.readouterr()
    with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON_CREATION):
        for length in (301, 302, 303):
            layer(torch.ones(length, 5, requires_grad=True)).sum().backward()
    flush(None)
    return capfd.readouterr().out.count("primitive,create")


@pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"),
    reason="PyTorch has GELU from oneDNN on x86 only",
)
def test_nothing_is_compiled_for_a_new_number_of_steps(capfd: pytest.CaptureFixture[str]) -> None:
    # Nine here: forward, backward and a reorder for each length. A torch that makes none needs no GELU of ours.
    assert compiled_primitives(nn.GELU(), capfd) >= 3
    assert compiled_primitives(activation("nn.GELU", 5), capfd) == 0
