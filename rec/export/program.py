"""torch.export: the same graph in the format that follows TorchScript, for AOTInductor and other runtimes."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config

log = logging.getLogger(__name__)


def export_program(module: nn.Module, features: dict[str, Tensor]) -> torch.export.ExportedProgram:
    """The module as an exported program whose batch size and numbers of ids may be anything, 0 and 1 included.

    Args:
        module: on the CPU, in eval mode.
        features: an example of 2 rows or more.
    """
    # Every first dimension is free; widths of dense features are fixed.
    free = {name: {0: torch.export.Dim.DYNAMIC} for name in features}
    # Without it, 0 and 1 are taken for special sizes and the program refuses them.
    with _config.patch(backed_size_oblivious=True), torch.no_grad():  # type: ignore[attr-defined]
        return torch.export.export(module.eval(), (features,), dynamic_shapes=(free,), strict=False)


def save(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write an exported program."""
    torch.export.save(program, str(path))


def load(path: Path) -> nn.Module:
    """Read an exported program as a module."""
    return torch.export.load(str(path)).module()
