"""Paths as a config gives them, and open files: local ones through pyarrow, the rest through fsspec."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from typing import IO, Any

import pyarrow as pa

from rec.config.errors import DataError

# "s3://", "memory://", ...; a one-letter scheme would be a Windows drive.
_REMOTE = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]+://")
_HIDDEN = (".", "_")

COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}


def is_remote(path: str) -> bool:
    """Whether a path is a URL that fsspec opens."""
    return bool(_REMOTE.match(path)) and not path.startswith("file://")


def find_files(path: str, suffixes: Iterable[str]) -> list[str]:
    """Files that an input path names, in a stable order.

    Args:
        path: a file, a glob, a folder (searched with its sub-folders), or a list of these separated by commas;
            local or a URL (`s3://`, `gs://`, ...).
        suffixes: endings that count inside a folder, e.g. ".parquet". A file or glob is taken as it is named.

    Returns:
        Parts in the order of the list, files of a glob or folder sorted by name. Files whose name starts with
        "." or "_" (markers, unfinished writes) are left out of folders and globs.

    Raises:
        DataError: nothing is there.
    """
    parts = [part.strip() for part in path.split(",") if part.strip()]
    if not parts:
        raise DataError("the input path is empty; name a file, a glob, a folder or a comma-separated list of these")
    files: list[str] = []
    for part in parts:
        files.extend(_find(part.removeprefix("file://"), tuple(suffixes)))
    return files


def _find(part: str, suffixes: tuple[str, ...]) -> list[str]:
    fs, root = (filesystem(part), part) if is_remote(part) else (None, part)
    is_folder = fs.isdir(root) if fs else os.path.isdir(root)
    if is_folder:
        found = _walk(fs, part)
        files = [name for name in found if name.lower().endswith(suffixes)]
        if not files:
            seen = f"it holds {len(found)} other files, e.g. {os.path.basename(found[0])}" if found else "it is empty"
            raise DataError(f"no file ending in {' or '.join(suffixes)} in this folder; {seen}", file=part)
        return sorted(files)
    if fs.exists(root) if fs else os.path.exists(root):
        return [part]
    if any(mark in part for mark in "*?["):
        names = _remote_names(fs, part, fs.glob(root)) if fs else glob.glob(part, recursive=True)
        fixed = os.path.dirname(re.split(r"[*?\[]", part)[0])
        files = sorted(_visible(names, fixed))
        if not files:
            raise DataError("no file matches this pattern", file=part)
        return files
    raise DataError(f"no such file or folder{_nearest_parent(part) if fs is None else ''}", file=part)


def _walk(fs: Any, folder: str) -> list[str]:
    if fs is not None:
        names = _remote_names(fs, folder, fs.find(folder))
    else:
        names = [os.path.join(base, name) for base, _, files in os.walk(folder) for name in files]
    return _visible(names, folder)


def _visible(names: Iterable[str], folder: str) -> list[str]:
    """Names without a hidden part below the folder."""
    inside = [(name, os.path.relpath(name, folder or ".")) for name in names]
    return [name for name, rest in inside if not any(p.startswith(_HIDDEN) and p != ".." for p in rest.split(os.sep))]


def _remote_names(fs: Any, url: str, names: Iterable[str]) -> list[str]:
    # fsspec lists names without the scheme.
    scheme = url.split("://", 1)[0]
    return [name if _REMOTE.match(name) else f"{scheme}://{name.lstrip('/')}" for name in names]


def _nearest_parent(path: str) -> str:
    # Which part of a long path is wrong is what one wants to know.
    parent = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(parent):
        return ""
    while not os.path.isdir(parent):
        parent = os.path.dirname(parent)
    return f"; the path exists up to {parent}"


def filesystem(url: str) -> Any:
    """The fsspec file system of a URL.

    Raises:
        DataError: it is not known, or its package is not installed.
    """
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)[0]
    except ImportError as err:
        raise DataError(f"cannot open this kind of URL: {err}", file=url) from err
    except ValueError as err:
        raise DataError(f"unknown kind of URL: {err}", file=url) from err


def open_binary(path: str, *, memory_map: bool = False) -> pa.NativeFile | IO[bytes]:
    """Open a file for random access reads.

    Raises:
        DataError: the file cannot be opened.
    """
    try:
        if is_remote(path):
            return filesystem(path).open(path, "rb")
        return pa.memory_map(path, "r") if memory_map and os.path.getsize(path) else pa.OSFile(path, "rb")
    except OSError as err:
        raise DataError(f"cannot be opened: {_words(err)}", file=path) from err


def compression_of(path: str) -> str | None:
    """Codec by the ending of a file name, None for a plain file."""
    return COMPRESSIONS.get(os.path.splitext(path)[1].lower())


def file_size(path: str) -> int:
    """Bytes of a file."""
    return int(filesystem(path).size(path)) if is_remote(path) else os.path.getsize(path)


def _words(err: BaseException) -> str:
    text = getattr(err, "strerror", None) or str(err)
    return text.splitlines()[0] if text else type(err).__name__
