from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from rec.features.hashing import hash_text

# Digests of the specification's algorithm, from the reference C library (xxhash 0.8).
KNOWN = {
    b"": 0xEF46DB3751D8E999,
    b"a": 0xD24EC4F1A98C6E5B,
    b"abc": 0x44BC2CF5AD770999,
    b"Nobody inspects the spammish repetition": 0xFBCEA83C8A378BF1,
    bytes(range(100)): 0x6AC1E58032166597,
}


def test_known_digests():
    assert hash_text(pa.array(list(KNOWN), pa.binary())).tolist() == list(KNOWN.values())


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()]
)
def test_every_length_agrees_with_the_reference_library_in_every_layout(kind):
    xxhash = pytest.importorskip("xxhash")
    rng = random.Random(0)
    words = ["".join(chr(rng.choice([65, 233, 20013])) for _ in range(n)) for n in [*range(70), 0, 1000, 31, 32, 33]]
    expected = [xxhash.xxh64_intdigest(w.encode()) for w in words]
    assert hash_text(pa.array(words, pa.string()).cast(kind)).tolist() == expected
    # slices share the buffers of the whole
    assert hash_text(pa.array(words, pa.string()).cast(kind)[5:40]).tolist() == expected[5:40]


def test_no_rows_and_nulls_do_not_fail():
    assert len(hash_text(pa.array([], pa.string()))) == 0
    assert len(hash_text(pa.array([None, None], pa.string()))) == 2
    mixed = hash_text(pa.array([None, "abc", None], pa.string()))
    assert mixed[1] == KNOWN[b"abc"]


def test_another_process_with_another_hash_seed_agrees():
    code = (
        "import pyarrow as pa; from rec.features.hashing import hash_text;"
        "print(hash_text(pa.array(['user_1', 'Zürich'])).tolist())"
    )
    seeds = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
            cwd=".",
        ).stdout
        for seed in ("1", "2")
    ]
    assert seeds[0] == seeds[1] == f"{hash_text(pa.array(['user_1', 'Zürich'])).tolist()}\n"


def test_buckets_are_even():
    # 100 buckets, 100 000 keys: mean 1000, standard deviation 31.5; six of them is 190
    buckets = hash_text(pa.array([str(i) for i in range(100_000)])) % np.uint64(100)
    counts = np.bincount(buckets.astype(np.int64), minlength=100)
    assert abs(counts - 1000).max() < 190
