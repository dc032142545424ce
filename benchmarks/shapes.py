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
# Users, ages, cities, items and categories of gen_seq_like.py, whose histories have 1 to 50 steps.
SEQUENCE_VOCABULARIES = (100_000, 10, 500, 200_000, 2_000)
MEAN_STEPS = 25.5
SEQUENCE_ROWS = 200_000


@dataclass(frozen=True)
class Yardstick:
    """A config of ../shared/bench.

    Attributes:
        limit: processor seconds of the trainer per million rows that it may take.
        other: what a well-known TorchRec framework takes, from ../shared/bench/README.md.
        mlps: widths of its MLPs, input first.
        table_widths: widths of its tables, each over all `vocabularies`.
        dot: whether it has DLRM's dot interaction over 27 vectors.
        step_mlps: widths of the MLPs that see every step of the histories.
        histories: vocabularies of the histories, whose tables are among the others.
        similarity: width of the vectors of users and items that are all compared within a batch.
        data: its files, `criteo_like` or `seq_like`.
    """

    name: str
    limit: float
    other: str
    mlps: tuple[tuple[int, ...], ...]
    table_widths: tuple[int, ...] = (WIDTH,)
    dot: bool = False
    step_mlps: tuple[tuple[int, ...], ...] = ()
    histories: tuple[int, ...] = ()
    similarity: int = 0
    vocabularies: tuple[int, ...] = VOCABULARIES
    batch: int = BATCH
    data: str = "criteo_like"

    @property
    def table_bytes(self) -> int:
        """Of the float32 tables, without optimizer state."""
        return sum(self.vocabularies) * sum(self.table_widths) * 4


_DEEP = DENSE + FIELDS * WIDTH
YARDSTICKS = (
    Yardstick(
        "dlrm",
        23,
        "29-38",
        mlps=((DENSE, 64, 16), (27 * 26 // 2 + _DEEP - DENSE + 16, 64, 32, 1)),
        dot=True,
    ),
    Yardstick("deepfm", 50, "58-71", mlps=((_DEEP, 512, 256, 128, 1),), table_widths=(WIDTH, WIDE_WIDTH)),
    Yardstick("multi_tower", 48, "53-58", mlps=((_DEEP, 512, 256, 128, 64, 1),)),
    Yardstick(
        "din",
        75,
        "155-169",
        mlps=((5 * WIDTH + 1, 256, 128), (128 + 2 * WIDTH, 64, 1)),
        step_mlps=((4 * 2 * WIDTH, 64, 32, 1),),
        histories=SEQUENCE_VOCABULARIES[3:],
        vocabularies=SEQUENCE_VOCABULARIES,
        batch=2048,
        data="seq_like",
    ),
    Yardstick(
        "dssm_inbatch",
        34,
        "56-58",
        mlps=((3 * WIDTH, 256, 128, 64), (2 * WIDTH + 1, 256, 128, 64)),
        similarity=64,
        vocabularies=SEQUENCE_VOCABULARIES,
        batch=2048,
        data="seq_like",
    ),
)
