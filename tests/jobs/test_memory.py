"""Memory that is freed and asked for again costs no page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys
from rec.jobs.memory import keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def step():
    buffers = [libc.malloc(40 << 20) for _ in range(2)]  # above the 32 MB from which glibc always asks the kernel
    for buffer in buffers:
        ctypes.memset(buffer, 1, 40 << 20)
    for buffer in buffers:
        libc.free(buffer)
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_a_second_step_takes_the_pages_of_the_first() -> None:
    faults = {}
    for mode in ("default", "kept"):
        done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True)
        faults[mode] = int(done.stdout)
    # 80 MB are 20,000 pages of 4 KiB, or 40 huge ones where the kernel gives those.
    assert faults["default"] >= 40
    assert faults["kept"] < faults["default"] / 10
