"""Arrays in one anonymous file that processes map: one copy in memory however many workers read it."""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np

from rec.data.slots import anonymous_file

_ALIGN = 64


class SharedArrays(Mapping[str, np.ndarray]):
    """Read-only arrays by name. Pickled, it travels as its layout and the number of a file descriptor.

    Whoever starts a process that will unpickle it must let that process inherit `fd`
    (`subprocess.Popen(pass_fds=...)`).

    Args:
        arrays: what to hold; copied.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        layout: list[tuple[str, str, tuple[int, ...], int]] = []
        at = 0
        for name, array in arrays.items():
            layout.append((name, array.dtype.str, array.shape, at))
            at += -(-array.nbytes // _ALIGN) * _ALIGN
        self._layout, self.nbytes = tuple(layout), max(at, 1)
        self.fd = anonymous_file()
        os.ftruncate(self.fd, self.nbytes)
        memory = mmap.mmap(self.fd, self.nbytes)
        for (_, dtype, shape, start), array in zip(layout, arrays.values(), strict=True):
            np.ndarray(shape, dtype, memory, start)[...] = array
        self._open(memory)
        # The number is this object's to close here; in a worker it lives as long as the process.
        weakref.finalize(self, os.close, self.fd)

    def __getstate__(self) -> dict[str, Any]:
        return {"_layout": self._layout, "nbytes": self.nbytes, "fd": self.fd}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open(mmap.mmap(self.fd, self.nbytes, prot=mmap.PROT_READ))

    def _open(self, memory: mmap.mmap) -> None:
        self._arrays: dict[str, np.ndarray] = {}
        for name, dtype, shape, start in self._layout:
            array = np.ndarray(shape, dtype, memory, start)
            array.setflags(write=False)
            self._arrays[name] = array

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def __iter__(self) -> Any:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)
