"""Run by tests/ops/test_selective_scan.py: the Triton kernels under Triton's interpreter, or on a GPU.

Prints the largest difference from the reference in float64, relative to the largest number of each tensor.
"""

from __future__ import annotations

import json
import sys

import torch

from rec.ops.selective_scan import reference
from rec.ops.selective_scan.triton import TritonScan
from tests.ops.test_selective_scan import gradients, inputs

# Rows of no step, of one, of one chunk (16), of one more; channels and states that fill a tile and that do not.
CASES = [([3, 0, 17, 1, 16], 5, 3), ([40], 9, 16), ([0, 2], 1, 1), ([0], 2, 2)]


def worst(device: str) -> float:
    found = 0.0
    for lengths, channels, states in CASES:
        tensors = [t.to(device) for t in inputs(lengths, channels, states)]
        up = torch.randn(sum(lengths), channels, generator=torch.Generator().manual_seed(1)).to(device)
        size = torch.tensor(lengths, device=device)
        got = gradients(TritonScan.apply, tensors, size, up)
        want = gradients(reference.selective_scan, [t.double() for t in tensors], size, up.double())
        for a, b in zip([got[0], *got[1]], [want[0], *want[1]], strict=True):
            assert a.shape == b.shape
            if b.numel():
                found = max(found, ((a - b).abs().max() / b.abs().max()).item())
    return found


if __name__ == "__main__":
    json.dump(worst(sys.argv[1]), sys.stdout)
