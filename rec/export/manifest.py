"""What an export says about itself."""

from __future__ import annotations

import datetime
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch
from torch import Tensor

import rec
from rec.export import layout
from rec.export.compare import TOLERANCE, Difference

if TYPE_CHECKING:
    from rec.features.base import Feature


def origin(*, step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
    """When, by what and from which training step."""
    import google.protobuf
    import numpy as np

    return {
        "format": layout.FORMAT,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "rec": rec.__version__,
            "git": git_commit(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "pyarrow": pa.__version__,
            "protobuf": google.protobuf.__version__,
        },
        "step": step,
        "metrics": finite(metrics),
    }


def git_commit() -> str | None:
    """Commit of this code, with "+" where files differ from it; None outside a checkout."""
    here = Path(rec.__file__).parent
    if not (here.parent / ".git").exists():
        return None
    try:
        run = [
            subprocess.run(
                ["git", "-C", str(here), *args], capture_output=True, text=True, timeout=10, check=True
            ).stdout
            for args in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return run[0].strip() + ("+" if run[1].strip() else "")


def inputs(features: Sequence[Feature], described: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Name, dtype and shape of the encoded features: B is the number of rows, N varies (ids, steps)."""
    varying = {
        name
        for f in features
        for name in f.tensors()
        if name.endswith((".weights", ".inner_lengths"))
        or (name.endswith(".values") and (f.table is not None or f.is_sequence))
    }
    return [_tensor(name, tensor, "N" if name in varying else "B") for name, tensor in described.items()]


def outputs(described: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Name, dtype and shape of the scores: B is the number of rows."""
    return [_tensor(name, tensor, "B") for name, tensor in described.items()]


def _tensor(name: str, tensor: Tensor, first: str) -> dict[str, Any]:
    return {"name": name, "dtype": str(tensor.dtype).removeprefix("torch."), "shape": [first, *tensor.shape[1:]]}


def columns(schema: pa.Schema) -> list[dict[str, str]]:
    """The raw columns that a request has."""
    return [{"name": field.name, "type": str(field.type)} for field in schema]


def differences(found: Mapping[str, Difference]) -> dict[str, Any]:
    """Differences of two modules, on each batch and the largest."""
    return {
        "max_abs_difference": max((d.largest for d in found.values()), default=0.0),
        "tolerance": TOLERANCE,
        "batches": {name: d.largest for name, d in found.items()},
    }


def finite(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics as JSON has them: a nan is null."""
    return {name: value if value == value and abs(value) != float("inf") else None for name, value in metrics.items()}
