"""Files that the features read (vocabularies), copied so that the export folder is complete."""

from __future__ import annotations

import shutil
from pathlib import Path

from rec.data.encoder import Encoder
from rec.export import layout
from rec.protos.pipeline_pb2 import EasyRecConfig


def with_assets(config: EasyRecConfig, folder: Path, *, asset_dir: str = "") -> EasyRecConfig:
    """A copy of the config whose files are named as they are copied into `folder`/assets.

    Args:
        config: the whole config.
        folder: the export.
        asset_dir: where the files lie now, when not where the config says.
    """
    copied = EasyRecConfig()
    copied.CopyFrom(config)
    encoder = Encoder.from_config(copied, with_labels=False, asset_dir=asset_dir)
    names: dict[str, str] = {}
    for feature in encoder.features:
        for field, path in feature.assets().items():
            if path not in names:
                (folder / layout.ASSETS).mkdir(exist_ok=True)
                # Two files of one name may come from two folders.
                names[path] = f"{len(names)}-{Path(path).name}"
                shutil.copyfile(path, folder / layout.ASSETS / names[path])
            setattr(feature.config, field, names[path])
            if "asset_dir" in feature.config.DESCRIPTOR.fields_by_name:
                feature.config.ClearField("asset_dir")
    return copied
