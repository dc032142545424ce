"""Half precision where an op computes in float32."""

from __future__ import annotations

import torch
from torch import Tensor, fx

HALF = (torch.bfloat16, torch.float16)


def widened(x: Tensor) -> Tensor:
    """bfloat16 and float16 as float32, the rest as it is; in a traced graph, which has no autocast, nothing."""
    if isinstance(x, fx.Proxy) or x.dtype not in HALF:
        return x
    return x.float()
