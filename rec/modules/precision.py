"""Parts of a model that must not run in half precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, fx


def full_precision(x: Tensor) -> AbstractContextManager:
    """A context in which autocast is off on the device of `x`; cast the inputs with `.float()` yourself.

    Args:
        x: any tensor of the part. Under FX there is no autocast to switch off.
    """
    if isinstance(x, fx.Proxy) or not torch.is_autocast_enabled(x.device.type):
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)
