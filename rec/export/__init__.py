"""Export: a trained network as a scripted model that PyTorch alone can load and run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rec.export.exporter import Exporter, ExportError

__all__ = ["ExportError", "Exporter"]


def __getattr__(name: str) -> Any:
    # On demand: serving reads the folder's layout from this package, and must not load tables' code for it.
    if name in __all__:
        from rec.export import exporter

        return getattr(exporter, name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
