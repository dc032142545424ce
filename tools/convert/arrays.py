"""Arrays out of .npz files and of pickles that hold nothing but arrays, text and numbers; nothing in them is run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from rec.config.errors import DataError


class _Codec:
    """`_codecs.encode(text, "latin1")`: how Python 3 pickles bytes for Python 2. No other codec."""

    __slots__ = ()  # nothing that a pickle could set

    def __call__(self, text: str, codec: str) -> bytes:
        if codec not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f'codec "{codec}"')
        return text.encode("latin-1")


class _Blank:
    """An empty array, of a size that its contents will set: what numpy's `_reconstruct` makes."""

    __slots__ = ()

    def __call__(self, kind: Any, shape: tuple, code: Any) -> np.ndarray:
        if kind is not np.ndarray:
            raise pickle.UnpicklingError("an array of another class")
        return np.ndarray.__new__(np.ndarray, (0,), "b")


class _Scalar:
    """A numpy number of its type and bytes."""

    __slots__ = ()

    def __call__(self, kind: np.dtype, data: bytes) -> Any:
        if not isinstance(kind, np.dtype) or kind.hasobject:
            raise pickle.UnpicklingError("a scalar of objects")
        return np.frombuffer(data, kind, 1)[0]


class _Buffer:
    """An array on bytes (protocol 5)."""

    __slots__ = ()

    def __call__(self, data: Any, kind: Any, shape: tuple, order: str) -> np.ndarray:
        # numpy refuses objects here by itself.
        return np.frombuffer(data, kind).reshape(shape, order="F" if order == "F" else "C")


_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _Codec(),
    **{(module, "_reconstruct"): _Blank() for module in _NUMPY},
    **{(module, "scalar"): _Scalar() for module in _NUMPY},
    **{(module, "_frombuffer"): _Buffer() for module in ("numpy.core.numeric", "numpy._core.numeric")},
}


class ArrayUnpickler(pickle.Unpickler):
    """Reads dicts, lists, text, numbers and numpy arrays; any other name in the file is refused before it is looked up.

    A pickle is a program that calls what it names. This one can name numpy's array, dtype and scalar and one codec.
    """

    def find_class(self, module: str, name: str) -> Any:
        """What the file may name."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f'it names "{module}.{name}", which is no array')
        return _ALLOWED[module, name]


def read_arrays(path: str | Path) -> dict[str, Any]:
    """The dict in a .pkl file, or the arrays of a .npz file with "<a>/<b>" as nested dicts.

    Raises:
        DataError: it is missing, damaged, or holds something else than arrays.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError("does not exist", file=str(path))
    try:
        if path.suffix == ".npz":
            return _nested(path)
        with open(path, "rb") as file:
            # latin1: arrays that Python 2 wrote.
            found = ArrayUnpickler(file, encoding="latin1").load()
    except (pickle.UnpicklingError, ValueError, EOFError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise DataError(f"cannot be read as arrays: {error}", file=str(path)) from error
    if not isinstance(found, dict):
        raise DataError(f"holds a {type(found).__name__}, expected a dict of splits", file=str(path))
    return found


def _nested(path: Path) -> dict[str, Any]:
    out: dict[str, Any] = {}
    with np.load(path, allow_pickle=False) as file:
        for name in file.files:
            *folders, last = name.split("/")
            at = out
            for folder in folders:
                at = at.setdefault(folder, {})
            at[last] = file[name]
    return out
