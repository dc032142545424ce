from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

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


PROGRAM = """
import sys, torch
from torch import nn
from rec.modules.activation import activation
torch.set_num_threads(1)
layer = activation("nn.GELU", 64) if sys.argv[1] == "ours" else nn.GELU()
model = nn.Sequential(nn.Linear(16, 64), layer, nn.Linear(64, 16))
def resident():
    return int(next(line for line in open("/proc/self/status") if "VmRSS" in line).split()[1]) // 1024
for step in range(25):
    x = torch.randn(50_000 + 997 * (step * 7 % 25), 16, requires_grad=True)
    model(x).square().mean().backward()
    if step == 5:
        before = resident()
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_number_of_lengths() -> None:
    grown = [
        int(subprocess.run([sys.executable, "-c", PROGRAM, name], capture_output=True, text=True, check=True).stdout)
        for name in ("ours", "torch")
    ]
    # Some 200 MB here in 20 steps; a torch that no longer grows needs no GELU of ours.
    assert grown[1] > 100
    assert grown[0] < grown[1] / 2
