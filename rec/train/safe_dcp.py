"""Reading torch.distributed.checkpoint folders without running what they may contain.

DCP writes its table of contents, `.metadata`, as a pickle, and unpickles it (and every entry that is
not a tensor) without restriction. A checkpoint from elsewhere could so run any code. Here the table
of contents goes through an unpickler that knows only DCP's own data classes, entries that are no
tensors are refused, and tensors are read by DCP with `weights_only=True`. See
docs/decisions/0006-checkpoints.md.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    _MEM_FORMAT_ENCODING,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

METADATA = ".metadata"


class UnsafeCheckpoint(Exception):
    """A checkpoint holds something that is not a tensor or DCP's description of one."""


def _get_layout(name: str) -> torch.layout:
    if name != "torch.strided":
        raise UnsafeCheckpoint(f"layout {name!r}; only torch.strided is read")
    return torch.strided


def _enum_member(cls: Any, name: str) -> Any:
    if cls is not _MEM_FORMAT_ENCODING or not isinstance(name, str) or name not in cls.__members__:
        raise UnsafeCheckpoint(f"{METADATA} asks for {name!r} of {cls!r}; only a memory format's name is read")
    return cls[name]


_KNOWN: dict[tuple[str, str], Any] = {
    # Python 3.11.0 to 3.11.3 write an enum's member as getattr(class, name).
    ("builtins", "getattr"): _enum_member,
    ("torch.serialization", "_get_layout"): _get_layout,
    ("torch", "Size"): torch.Size,
    # the folder it was written to; never opened, so a pure path will do on any system
    ("pathlib", "PosixPath"): PurePosixPath,
    ("pathlib", "WindowsPath"): PurePosixPath,
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"): _StorageInfo,
    **{
        ("torch.distributed.checkpoint.metadata", cls.__name__): cls
        for cls in (
            _MEM_FORMAT_ENCODING,
            ChunkStorageMetadata,
            Metadata,
            MetadataIndex,
            StorageMeta,
            TensorProperties,
            TensorStorageMetadata,
        )
    },
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        raise UnsafeCheckpoint(f"{METADATA} refers to {module}.{name}, which a checkpoint has no use for")


def read_metadata(stream: IO[bytes]) -> Metadata:
    """DCP's table of contents from an untrusted stream.

    Raises:
        UnsafeCheckpoint: when it names anything but DCP's data classes, or an entry that is no tensor,
            or a file outside the folder.
    """
    try:
        metadata = _Unpickler(stream).load()
    except UnsafeCheckpoint:
        raise
    except Exception as err:  # a damaged pickle raises nearly anything
        raise UnsafeCheckpoint(f"{METADATA} cannot be read: {err}") from err
    if not isinstance(metadata, Metadata):
        raise UnsafeCheckpoint(f"{METADATA} holds a {type(metadata).__name__}, not DCP metadata")
    for name, entry in metadata.state_dict_metadata.items():
        if not isinstance(entry, TensorStorageMetadata):
            raise UnsafeCheckpoint(f"entry {name!r} is no tensor")
    for info in (metadata.storage_data or {}).values():
        path = str(info.relative_path)
        if Path(path).name != path or path in {".", ".."} or info.transform_descriptors:
            raise UnsafeCheckpoint(f"file name {path!r} leads out of the checkpoint or is transformed")
    if metadata.storage_meta is None:
        metadata.storage_meta = StorageMeta()
    return metadata


class SafeReader(FileSystemReader):
    """DCP's reader with `read_metadata` above. Works for every world size, and without a process group."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The table of contents, restricted."""
        with open(Path(self.path) / METADATA, "rb") as stream:
            metadata = read_metadata(stream)
        assert metadata.storage_meta is not None
        metadata.storage_meta.load_id = self.load_id
        return metadata


@contextmanager
def quiet() -> Iterator[None]:
    """Silence DCP's remark that it runs in one process, which is what was asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield
