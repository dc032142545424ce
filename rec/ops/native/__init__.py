"""Kernels in C for the CPU, called with addresses of tensors. See README.md."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

log = logging.getLogger(__name__)

__all__ = ["available", "call", "choose", "in_parts", "offsets_of", "pieces_of", "row_major"]

# Instruction sets.
PLAIN, AVX2, AVX512 = 0, 1, 2

# Of the functions' signatures: that of native.c.
VERSION = 2

# Channels times steps that one piece of work holds at least, and pieces at most. Pieces follow from the sizes alone,
# never from the number of threads, so that sums over pieces repeat bit by bit.
PIECE = 2**17
PIECES = 16

_I, _P = ctypes.c_int64, ctypes.c_void_p
_RANGE = [_I, _I, _I, _I, _P]  # first and last row, two sizes, offsets
_SCAN = [*_RANGE, _P, _I, _P, _I, _P, _P, _I, _P, _I, _P]  # u, dt, A, B, C, D
_HEADS = [*_RANGE, _P, _P, _P, _P, _I, ctypes.c_float, _I]  # kept, q, k, v, scale, causal
_SIGNATURES: dict[str, list[type]] = {
    "rec_scan_forward": [*_SCAN, _P, _P, _P],
    "rec_scan_backward": [*_SCAN, _P, _I, *[_P] * 6],
    "rec_conv_forward": [*_RANGE, _P, _I, _P, _P, _P],
    "rec_conv_backward": [*_RANGE, _P, _I, _P, _P, _P, _I, _P, _P, _P],
    "rec_attention_forward": [*_HEADS, _P, _P],
    "rec_attention_backward": [*_HEADS, _P, _P, _P, _I, _P, _P, _P, _I],
    "rec_exp2": [_I, _P, _P],
    "rec_choose": [_I],
}


@functools.cache
def _library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where the install had no compiler."""
    paths = [Path(__file__).with_name(f"_native{suffix}") for suffix in EXTENSION_SUFFIXES]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        log.warning(
            "the compiled CPU kernels are missing (was there a C compiler at the install?): the selective scan takes "
            "PyTorch's loop, some ten times slower, attention up to seven times; with gcc at hand, install again"
        )
        return None
    library = ctypes.CDLL(str(path))
    if library.rec_version() != VERSION:
        log.warning("%s is of another version: install again; until then PyTorch's loop is taken", path)
        return None
    for name, types in _SIGNATURES.items():
        if hasattr(library, name):
            getattr(library, name).argtypes = types
        else:
            log.warning("%s is older than %s: install again; until then PyTorch's functions are taken", path, name)
    library.rec_choose(AVX512)
    return library


def available(kernel: str = "") -> bool:
    """Whether the compiled kernels are here; told once in the log where they are not.

    Args:
        kernel: one that an older build may lack.
    """
    library = _library()
    return library is not None and (not kernel or hasattr(library, kernel))


def choose(most: int) -> int:
    """Take the best instruction set of the machine up to `most` (PLAIN, AVX2, AVX512); which one it is."""
    library = _library()
    assert library is not None
    return library.rec_choose(most)


def call(name: str, *arguments: float | Tensor | None) -> None:
    """Call a kernel.

    Args:
        name: of the C function.
        arguments: numbers; tensors on the CPU, float32 or int64 as the function has it, or None.

    Raises:
        MemoryError: there was none for its workspace.
    """
    library = _library()
    assert library is not None
    if getattr(library, name)(*(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments)) != 0:
        raise MemoryError(f"{name} has no memory for its workspace")


def row_major(x: Tensor) -> Tensor:
    """`x` [N, E] with neighbouring columns beside each other; rows may be apart (a part of a wider tensor)."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def offsets_of(lengths_B: Tensor, steps_NE: Tensor) -> Tensor:
    """Where each row starts, and where the last one ends: int64 [B + 1].

    Raises:
        ValueError: the lengths do not sum to N; the kernels would read and write beyond the tensors.
    """
    offsets = torch.nn.functional.pad(torch.cumsum(lengths_B.to(torch.int64), 0), (1, 0))
    if int(offsets[-1]) != steps_NE.shape[0]:
        raise ValueError(f"lengths sum to {int(offsets[-1])}, there are {steps_NE.shape[0]} steps")
    return offsets


def pieces_of(offsets: Tensor, width: int) -> list[tuple[int, int]]:
    """Ranges of rows (first, last) with about as many steps each: none when there are no rows."""
    rows, steps = offsets.numel() - 1, int(offsets[-1])
    count = max(1, min(PIECES, steps * width // PIECE))
    targets = torch.arange(1, count, device=offsets.device) * steps // count
    ends = [*torch.searchsorted(offsets, targets).tolist(), rows]
    return [(first, last) for first, last in zip([0, *ends[:-1]], ends, strict=True) if first < last]


def in_parts(work: Callable[[int, int, int], None], pieces: Sequence[tuple[int, int]]) -> None:
    """Run `work(piece, first, last)` for each range of rows, on as many threads as PyTorch may use."""
    threads = min(torch.get_num_threads(), len(pieces))
    if threads <= 1:
        for i, (first, last) in enumerate(pieces):
            work(i, first, last)
        return
    # ctypes lets go of the interpreter while a kernel runs.
    for done in [_pool(threads).submit(work, i, *piece) for i, piece in enumerate(pieces)]:
        done.result()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="rec-native")


# A forked child has the pool's object and none of its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
