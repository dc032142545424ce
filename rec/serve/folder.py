"""What an export folder holds beside the model. No torch: readers start with it."""

from __future__ import annotations

from pathlib import Path

from rec.config.load import load_config
from rec.data.encoder import Encoder
from rec.export import layout


def encoder_of(folder: str | Path) -> Encoder:
    """The encoder of an export, from its own config and vocabularies.

    Raises:
        DataError: it is no export folder.
    """
    folder = Path(folder)
    manifest = layout.read_manifest(folder, verify=False)
    config = load_config(folder / layout.CONFIG).config
    assets = str(folder / layout.ASSETS)
    return Encoder.from_config(config, with_labels=False, asset_dir=assets, tower=manifest.get("tower", ""))
