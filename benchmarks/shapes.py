"""The yardsticks: widths of the models in ../shared/bench and what is expected of them."""

from __future__ import annotations

from dataclasses import dataclass

DENSE = 13
FIELDS = 26
WIDTH = 16
WIDE_WIDTH = 4  # DeepFM's default wide_embedding_dim
BATCH = 4096

# Rows of the tables in ../shared/bench (3.36 M), and of the comparison with large vocabularies (6 M).
VOCABULARIES = (
    *(1_000_000, 500_000, 500_000, 250_000, 250_000, 200_000, *[100_000] * 4, *[50_000] * 3, *[20_000] * 3),
    *([10_000] * 3 + [5_000] * 3 + [2_000] * 2 + [1_000] * 2),
)
LARGE = (
    *(1_849_000, 1_000_000, 800_000, 500_000, 400_000, 300_000, *[200_000] * 4, *[80_000] * 3, *[20_000] * 3),
    *([10_000] * 3 + [5_000] * 3 + [2_000] * 2 + [1_000] * 2),
)


@dataclass(frozen=True)
class Yardstick:
    """A config of ../shared/bench.

    Attributes:
        limit: processor seconds of the trainer per million rows that it may take.
        other: what a well-known TorchRec framework takes, from ../shared/bench/README.md.
        mlps: widths of its MLPs, input first.
        table_widths: widths of its tables (each over all 26 fields).
        dot: whether it has DLRM's dot interaction over 27 vectors.
    """

    name: str
    limit: float
    other: str
    mlps: tuple[tuple[int, ...], ...]
    table_widths: tuple[int, ...]
    dot: bool = False

    @property
    def table_bytes(self) -> int:
        """Of the float32 tables, without optimizer state."""
        return sum(VOCABULARIES) * sum(self.table_widths) * 4


_DEEP = DENSE + FIELDS * WIDTH
YARDSTICKS = (
    Yardstick(
        "dlrm",
        23,
        "29-38",
        mlps=((DENSE, 64, 16), (27 * 26 // 2 + _DEEP - DENSE + 16, 64, 32, 1)),
        table_widths=(WIDTH,),
        dot=True,
    ),
    Yardstick("deepfm", 50, "58-71", mlps=((_DEEP, 512, 256, 128, 1),), table_widths=(WIDTH, WIDE_WIDTH)),
    Yardstick("multi_tower", 48, "53-58", mlps=((_DEEP, 512, 256, 128, 64, 1),), table_widths=(WIDTH,)),
)
