"""The files that features need beside the config, taken along into an export or a checkpoint."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator

from google.protobuf.message import Message

from rec.protos import pipeline_pb2


def export_assets(config: pipeline_pb2.EasyRecConfig, folder: str) -> pipeline_pb2.EasyRecConfig:
    """Copy vocabulary files into a folder.

    Files are named after their content, so that two of one name do not meet.

    Args:
        config: the whole config; it is not changed.
        folder: where the files go; it exists.

    Returns:
        A copy of the config that names the copied files, without folder: build it with
        `Encoder.from_config(config, asset_dir=folder)`.
    """
    moved = pipeline_pb2.EasyRecConfig()
    moved.CopyFrom(config)
    for msg in _with_vocabulary(moved):
        source = os.path.join(msg.asset_dir, msg.vocab_file) if msg.asset_dir else msg.vocab_file
        with open(source, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()[:12]
        stem, ending = os.path.splitext(os.path.basename(source))
        stem = stem.removesuffix(f"_{digest}")  # exported before
        name = f"{stem}_{digest}{ending}"
        target = os.path.join(folder, name)
        if not os.path.exists(target):
            shutil.copyfile(source, target)
        msg.vocab_file = name
        msg.ClearField("asset_dir")
    return moved


def _with_vocabulary(config: pipeline_pb2.EasyRecConfig) -> Iterator[Message]:
    for holder in config.feature_configs:
        kind = holder.WhichOneof("feature")
        if kind == "sequence_feature":
            messages = [getattr(f, f.WhichOneof("feature")) for f in holder.sequence_feature.features]
        else:
            messages = [getattr(holder, kind)]
        for msg in messages:
            if "vocab_file" in msg.DESCRIPTOR.fields_by_name and msg.HasField("vocab_file"):
                yield msg
