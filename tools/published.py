"""Published test results that our runs are held against, with their sources."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Test AUC and logloss of a paper or a benchmark."""

    auc: float
    logloss: float


@dataclass(frozen=True)
class Table:
    """What `python -m tools.reproduce <name>` runs.

    Attributes:
        title: heading of the result page.
        source: of the published column.
        models: title -> (config without "_<name>.config", published result or None).
        allowance: a mean this much below the published AUC still counts as reached.
        note: what a reader must know.
    """

    title: str
    source: str
    models: dict[str, tuple[str, Published | None]]
    allowance: float
    note: str


TABLES = {
    "frappe": Table(
        title="Frappe_x1",
        source="BARS, https://openbenchmark.github.io/BARS (embedding width 10)",
        models={
            "Logistic regression": ("lr", Published(0.9356, 0.3076)),
            "DeepFM": ("deepfm", Published(0.9842, 0.1482)),
            "DCN v2": ("dcn_v2", Published(0.9845, 0.1491)),
            "AutoInt+": ("autoint_plus", Published(0.9848, 0.1490)),
            "MaskNet": ("masknet", Published(0.9837, 0.1696)),
            "FinalMLP": ("finalmlp", Published(0.9861, 0.1484)),
            "DCNv3 (FCN)": ("dcnv3", None),
        },
        allowance=0.0015,
        note="Validation and test rows are those of the published split. Differences of .001 are near run noise. "
        "DCNv3 has no published result on Frappe.",
    ),
    "movielens": Table(
        title="MovieLens-1M, clicks",
        source="FCN (DCNv3), arXiv 2407.13349, Table 4 (embedding width 16)",
        models={
            "Logistic regression": ("lr", None),
            "DeepFM": ("deepfm", Published(0.9051, 0.3073)),
            "DCN v2": ("dcn_v2", Published(0.9056, 0.3098)),
            "MaskNet": ("masknet", Published(0.9034, 0.3080)),
            "AutoInt": ("autoint", Published(0.9045, 0.3112)),
            "FinalMLP": ("finalmlp", Published(0.9052, 0.3058)),
            "DCNv3 (FCN)": ("dcnv3", Published(0.9074, 0.3001)),
        },
        allowance=0.002,
        note="Ratings of 4 and 5 are clicks, 1 and 2 are not, 3 is left out; random 8:1:1. The seed of the published "
        "split is unknown, so levels compare, not fourth decimals.",
    ),
}
