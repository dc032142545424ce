"""Names inside an export folder, and how it replaces an older one. No torch: serving reads it too."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rec.config.errors import DataError

MODEL = "scripted_model.pt"
PROGRAM = "program.pt2"
CONFIG = "pipeline.config"
MANIFEST = "manifest.json"
GOLDEN_REQUEST = "golden_request.parquet"
GOLDEN_ANSWER = "golden_answer.parquet"
GOLDEN_TENSORS = "golden_tensors.json"
ASSETS = "assets"

# Of the manifest's structure; a reader refuses a larger one.
FORMAT = 1


def sha256(path: Path) -> str:
    """Checksum of a file, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def files_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Bytes and sha256 of every file but the manifest, by path relative to the folder."""
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def read_manifest(folder: Path, *, verify: bool = True) -> dict[str, Any]:
    """The manifest of an export folder that holds a model.

    Args:
        folder: the export; of a retrieval model the folder of one tower.
        verify: compare every file with its checksum.

    Raises:
        DataError: no export there, a file missing or damaged, or made by a newer version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"no export: it has no {MANIFEST}; give the folder that --mode export wrote", file=str(folder))
    try:
        manifest = json.loads(path.read_text())
        known, files = manifest["format"], manifest["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"damaged ({error!r}); export again", file=str(path)) from error
    if known > FORMAT:
        raise DataError(f"format {known} of a newer version, this one reads up to {FORMAT}; upgrade", file=str(path))
    if "towers" in manifest:
        listed = " or ".join(str(folder / tower) for tower in manifest["towers"])
        raise DataError(f"holds two towers; give the folder of one: {listed}", file=str(folder))
    for name, facts in files.items():
        file = folder / name
        if not file.is_file():
            raise DataError(f"missing from the export ({MANIFEST} lists it); export again", file=str(file))
        if verify and (file.stat().st_size != facts["bytes"] or sha256(file) != facts["sha256"]):
            raise DataError(f"damaged: it differs from its checksum in {MANIFEST}; export again", file=str(file))
    return manifest


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, which takes its place when the block ends without an error.

    The old one stays readable until the new one is complete; after an error it stays as it was.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for stale in folder.parent.glob(f"{folder.name}.tmp-*"):  # of a job that was killed
        shutil.rmtree(stale, ignore_errors=True)
    fresh = folder.with_name(f"{folder.name}.tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    fresh.mkdir()
    try:
        yield fresh
        _sync(fresh)
        _swap(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _swap(fresh: Path, folder: Path) -> None:
    """`fresh` becomes `folder`; what was there lies at `fresh` afterwards."""
    if not folder.exists():
        fresh.rename(folder)
    elif not _exchange(fresh, folder):
        old = folder.with_name(f"{fresh.name}-old")
        folder.rename(old)
        fresh.rename(folder)
        old.rename(fresh)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two paths in one step; False where the system cannot (then it takes two renames)."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    at_cwd, exchange = -100, 2
    return renameat2(at_cwd, os.fsencode(first), at_cwd, os.fsencode(second), exchange) == 0


def _sync(folder: Path) -> None:
    """Force the files to the disk: a rename must not become visible before they are whole."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
