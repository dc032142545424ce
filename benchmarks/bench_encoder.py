"""CPU seconds of the encoder per million rows, by kind of column.

    python -m benchmarks.bench_encoder

One thread (run with OMP_NUM_THREADS=1), batches of 4096 rows, warm; the median of five runs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from google.protobuf import text_format

from rec.data.encoder import Encoder
from rec.protos import pipeline_pb2

BATCH = 4096
WORDS = 100_000


def main() -> None:
    """Print a line per kind of column."""
    for name, text, columns in cases():
        config = text_format.Merge(f"data_config {{ fg_mode: FG_NORMAL }} {text}", pipeline_pb2.EasyRecConfig())
        encoder = Encoder.from_config(config)
        rows = pa.RecordBatch.from_pydict(columns)
        runs = [seconds(encoder, rows) for _ in range(5)]
        print(f"{name:52s} {statistics.median(runs):6.2f}  (from {min(runs):.2f} to {max(runs):.2f})")


def seconds(encoder: Encoder, rows: pa.RecordBatch, batches: int = 25) -> float:
    """CPU seconds per million rows."""
    encoder.encode(rows)
    start = time.process_time()
    for _ in range(batches):
        encoder.encode(rows)
    return (time.process_time() - start) * 1e6 / (batches * rows.num_rows)


def cases() -> Iterator[tuple[str, str, dict[str, object]]]:
    """Name, features and columns of each case."""
    rng = np.random.default_rng(0)
    ints = [rng.integers(0, WORDS, BATCH) for _ in range(26)]
    floats = [rng.random(BATCH).astype(np.float32) for _ in range(13)]
    numbers = "".join(feature("raw", f"x{i}", "") for i in range(13))

    def ids(n: int, how: str) -> str:
        return "".join(feature("id", f"c{i}", f"embedding_dim: 16 {how}") for i in range(n))

    def named(columns: list[object]) -> dict[str, object]:
        return {f"c{i}": column for i, column in enumerate(columns)}

    dense = {f"x{i}": column for i, column in enumerate(floats)}
    yield "26 int64 num_buckets, 13 float32", ids(26, f"num_buckets: {WORDS}") + numbers, {**named(ints), **dense}
    nullable = [pa.array(v, mask=rng.random(BATCH) < 0.1) for v in ints]
    yield "26 int64 with nulls, num_buckets", ids(26, f"num_buckets: {WORDS}"), named(nullable)
    yield "26 int64, hash_bucket_size", ids(26, f"hash_bucket_size: {WORDS}"), named(ints)
    hexes = [pa.array([f"{x:08x}" for x in rng.integers(0, 2**32, BATCH)]) for _ in range(26)]
    yield "26 strings of 8 bytes, hash_bucket_size", ids(26, f"hash_bucket_size: {WORDS}"), named(hexes)
    words = " ".join(f'vocab_list: "{i}"' for i in range(0, WORDS, 10))
    yield "4 int64, vocab_list of 10 000", ids(4, words), named(ints[:4])
    yield "4 strings, vocab_list of 10 000", ids(4, words), named([pa.array(v).cast(pa.string()) for v in ints[:4]])
    log10 = "".join(feature("raw", f"x{i}", 'normalizer: "method=log10"') for i in range(13))
    yield "13 float32, normalizer log10", log10, dense
    lists = steps(rng)
    delimited = pa.array([";".join(map(str, row)) for row in lists.to_pylist()])
    for how in (f"num_buckets: {WORDS}", f"hash_bucket_size: {WORDS}"):
        text = feature("sequence_id", "c0", f"embedding_dim: 16 sequence_length: 50 {how}")
        yield f"1 list of 25 int64, {how}", text, {"c0": lists}
    text = feature("sequence_id", "c0", f"embedding_dim: 16 sequence_length: 50 num_buckets: {WORDS}")
    yield "1 string of 25 steps, num_buckets", text, {"c0": delimited}


def feature(kind: str, name: str, rest: str) -> str:
    """Text of one feature that reads the column of its name."""
    return f'feature_configs {{ {kind}_feature {{ feature_name: "{name}" {rest} }} }} '


def steps(rng: np.random.Generator) -> pa.Array:
    """A list column of 1 to 50 ids."""
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 51, BATCH))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(rng.integers(0, WORDS, offsets[-1])))


if __name__ == "__main__":
    main()
