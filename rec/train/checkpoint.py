"""Checkpoints: folders `step-<n>` written aside, made durable, then renamed.

A checkpoint is there whole or not at all. It holds the tensors (torch.distributed.checkpoint), a
`state.json` with everything that is not a tensor, copies of config and vocabularies, and a
`manifest.json` with the checksum of every file, by which damage is found and named.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rec.config.errors import DataError
from rec.train import ranks, safe_dcp

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
STATE = "state.json"
FORMAT = 1
_NAME = re.compile(r"step-(\d+)")


class CheckpointError(Exception):
    """A checkpoint that is missing, damaged, unsafe or of another network."""

    user_error = True  # its text says what to do; a traceback would bury it


class NoCheckpointError(CheckpointError, DataError):
    """There is none where one was named: data that is missing (exit code 3)."""


def differences(wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> dict[str, list[str]]:
    """What keeps `found` from being `wanted`: lists of "missing", "unexpected" and "misshaped" names."""
    return {
        "missing": [n for n in sorted(wanted) if n not in found],
        "unexpected": [n for n in sorted(found) if n not in wanted],
        "misshaped": [
            f"{n}: {list(found[n])} in the checkpoint, {list(wanted[n])} in the network"
            for n in sorted(wanted)
            if n in found and tuple(found[n]) != tuple(wanted[n])
        ],
    }


def refuse(where: str, diff: Mapping[str, list[str]], hint: str) -> None:
    """Raise with a readable list unless `diff` is empty."""
    if not any(diff.values()):
        return
    lines = [f"{where} does not fit the network:"]
    for kind, names in diff.items():
        if names:
            lines.append(f"  {kind} ({len(names)}):")
            lines += [f"    {n}" for n in names[:30]]
            if len(names) > 30:
                lines.append(f"    ... and {len(names) - 30} more")
    raise CheckpointError("\n".join([*lines, hint]))


@dataclass(frozen=True)
class Checkpoint:
    """One finished checkpoint folder, for reading."""

    path: Path

    @property
    def step(self) -> int:
        """Optimizer steps done when it was written."""
        return int(self.info["step"])

    @cached_property
    def info(self) -> dict[str, Any]:
        """What is not a tensor: step, epoch, reader positions, scaler, ..."""
        return _read_json(self.path / STATE)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by name."""
        return {n: tuple(t.size) for n, t in self._metadata.items()}

    @cached_property
    def _metadata(self) -> dict[str, Any]:
        try:
            with open(self.path / safe_dcp.METADATA, "rb") as stream:
                return safe_dcp.read_metadata(stream).state_dict_metadata
        except (OSError, safe_dcp.UnsafeCheckpoint) as err:
            raise CheckpointError(f"{self.path}: {err}") from err

    def verify(self) -> None:
        """Compare every file with the manifest.

        Raises:
            CheckpointError: naming the file that is missing, cut or changed.
        """
        manifest = _read_json(self.path / MANIFEST)
        if manifest.get("format") != FORMAT:
            raise CheckpointError(f"{self.path / MANIFEST}: format {manifest.get('format')!r}, expected {FORMAT}")
        for name, entry in manifest["files"].items():
            file = self.path / name
            if not file.is_file():
                raise CheckpointError(f"{file} is missing")
            size = file.stat().st_size
            if size != entry["bytes"]:
                raise CheckpointError(f"{file} has {size} bytes, its manifest says {entry['bytes']}")
            if _sha256(file) != entry["sha256"]:
                raise CheckpointError(f"{file} is damaged: its checksum differs from the manifest's")

    def load(self, tensors: Mapping[str, Any]) -> None:
        """Fill tensors (plain, ShardedTensor or DTensor) in place, each from the entry of its name."""
        import torch.distributed.checkpoint as dcp

        absent = [n for n in tensors if n not in self._metadata]
        if absent:
            raise CheckpointError(f"{self.path} has no {', '.join(absent[:5])}")
        try:
            # no_dist: a rank can find its own shards alone, so nothing need be pickled between ranks
            with safe_dcp.quiet():
                dcp.load(dict(tensors), storage_reader=safe_dcp.SafeReader(self.path), no_dist=True)
        except dcp.CheckpointException as err:  # its text is a stack trace; the reason is in what it carries
            reasons = "; ".join(str(e) for e, _ in err.failures.values())
            raise CheckpointError(f"{self.path} cannot be read: {reasons}") from err

    def read(self, names: Iterable[str] | None = None, *, prefix: str = "") -> dict[str, Tensor]:
        """New CPU tensors of the given names, or of all that start with `prefix` (then cut off)."""
        if names is None:
            names = [n for n in self._metadata if n.startswith(prefix)]
        out = {}
        for name in names:
            meta = self._metadata[name]
            out[name] = torch.empty(tuple(meta.size), dtype=meta.properties.dtype)
        if out:
            self.load(out)
        return {n[len(prefix) :]: t for n, t in out.items()}


class Checkpointer:
    """The checkpoints of a training, in `model_dir/checkpoints`.

    Args:
        directory: where the `step-<n>` folders are.
        keep: how many to keep, newest first; 0 keeps all. The best one is kept beside them.
        rank: of this process; rank 0 names, describes and removes.
    """

    def __init__(self, directory: str | os.PathLike[str], *, keep: int = 0, rank: int = 0) -> None:
        self.directory = Path(directory)
        self.keep = keep
        self.rank = rank
        self._damaged: dict[int, str] = {}

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, oldest first."""
        if not self.directory.is_dir():
            return []
        found = (_NAME.fullmatch(p.name) for p in self.directory.iterdir() if p.is_dir())
        return sorted(int(m.group(1)) for m in found if m)

    def at(self, step: int) -> Checkpoint:
        """The checkpoint of a step."""
        return Checkpoint(self.directory / f"step-{step}")

    def latest(self) -> Checkpoint | None:
        """The newest undamaged checkpoint; damaged ones are named in the log and passed over.

        Raises:
            CheckpointError: when there are checkpoints and all are damaged: starting anew would hide it.
        """
        step = -1
        if self.rank == 0:
            step = self._newest_sound()
        step = ranks.agree(step)
        if step == -2:
            raise CheckpointError(
                f"every checkpoint in {self.directory} is damaged:\n  "
                + "\n  ".join(self._damaged.values())
                + "\nmove the folder away to start anew"
            )
        return None if step < 0 else self.at(step)

    def _newest_sound(self) -> int:
        steps = self.steps()
        for step in reversed(steps):
            try:
                self.at(step).verify()
            except CheckpointError as err:
                self._damaged[step] = str(err)
                log.warning("checkpoint step-%d refused: %s; trying the one before", step, err)
            else:
                return step
        return -2 if steps else -1

    def save(
        self,
        step: int,
        tensors: Mapping[str, Any],
        info: Mapping[str, Any],
        *,
        files: Mapping[str, str | Path] | None = None,
        keep_also: Iterable[int] = (),
    ) -> Checkpoint:
        """Write `step-<n>`; on return it is durable and visible, and old ones are pruned.

        Every rank calls it with its part of the tensors; rank 0's `info` and `files` are written.

        Args:
            step: names the checkpoint.
            tensors: by name; what several ranks hold alike is written once.
            info: JSON-able; `step` is added.
            files: text to write, or a Path to copy, by file name inside the checkpoint.
            keep_also: steps that pruning spares, e.g. the best.
        """
        import torch.distributed.checkpoint as dcp

        final = self.directory / f"step-{step}"
        aside = self.directory / f".writing-step-{step}"
        if self.rank == 0:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
        ranks.barrier()
        with safe_dcp.quiet():
            dcp.save(
                {name: _alone(t) for name, t in tensors.items()},
                storage_writer=dcp.FileSystemWriter(aside),
                no_dist=ranks.world() == 1,
            )
        if self.rank == 0:
            _write(aside / STATE, json.dumps({**info, "step": step}, indent=1))
            for name, content in (files or {}).items():
                _put(aside / name, content)
            _write(aside / MANIFEST, json.dumps(_manifest(aside), indent=1))
            for folder in [aside, *(p for p in aside.rglob("*") if p.is_dir())]:
                _sync_dir(folder)
            if final.exists():  # the same step written again, e.g. after a damaged one was refused
                shutil.rmtree(final)
            aside.rename(final)
            _sync_dir(self.directory)
            self._damaged.pop(step, None)
            self.prune(keep_also)
        ranks.barrier()
        return Checkpoint(final)

    def prune(self, keep_also: Iterable[int] = ()) -> None:
        """Remove all but the newest `keep`, and what killed processes left behind.

        Args:
            keep_also: steps that are spared, e.g. the best.
        """
        spare = set(keep_also)
        if self.rank != 0:
            return
        if self.directory.is_dir():  # left by a process that was killed while it wrote or removed
            for p in self.directory.glob(".*-step-*"):
                shutil.rmtree(p, ignore_errors=True)
        if self.keep <= 0:
            return
        steps = [s for s in self.steps() if s not in self._damaged]
        for step in steps[: -self.keep]:
            if step in spare:
                continue
            # renamed first: a kill in between must not leave a half removed folder that looks whole
            doomed = self.directory / f".removing-step-{step}"
            with contextlib.suppress(OSError):
                self.at(step).path.rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)


def find_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint a path means: a `step-<n>` folder, a folder of them, or a `model_dir`; verified.

    Raises:
        CheckpointError: when there is none, or it is damaged.
    """
    path = Path(path)
    if (path / MANIFEST).is_file() and (path / STATE).is_file():
        checkpoint = Checkpoint(path)
        checkpoint.verify()
        return checkpoint
    for folder in (path, path / "checkpoints"):
        if latest := Checkpointer(folder).latest():
            return latest
    raise NoCheckpointError(f"no checkpoint in {path}: expected a step-<n> folder, or a model_dir with checkpoints/")


def _alone(tensor: Any) -> Any:
    """The same memory as a tensor of its own storage.

    Tables are views of one large storage. DCP copies such views and keeps all copies until the file is
    written: a second copy of tables and optimizer state in memory.
    """
    if type(tensor) is not torch.Tensor or tensor.device.type != "cpu" or not tensor.is_contiguous():
        return tensor
    if tensor.untyped_storage().nbytes() == tensor.nbytes or tensor.dtype not in (torch.float32, torch.float16):
        return tensor
    return torch.from_numpy(tensor.detach().numpy())


def _manifest(folder: Path) -> dict[str, Any]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {
        "format": FORMAT,
        "files": {p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": _sha256(p)} for p in files},
    }


def _sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise CheckpointError(f"{path} is missing") from err
    except (ValueError, OSError) as err:
        raise CheckpointError(f"{path} cannot be read: {err}") from err


def _put(target: Path, content: str | Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, target)
        with open(target, "rb+") as f:
            os.fsync(f.fileno())
    else:
        _write(target, content)


def _write(path: Path, text: str) -> None:
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())


def _sync_dir(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
