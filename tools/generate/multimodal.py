"""Generated text, sound and video of which a score is made; the smallest error that any model can reach is known.

`python -m tools.generate multimodal` writes train, valid and test as parquet. A row is a scene of three sequences of
vectors, of different lengths:

* text: each step names one of K topics and says something good or bad of it (p = 1 or -1);
* audio: some steps stress a topic (e = 1) or mock it (e = -1), each topic at most once; the others are noise;
* video: each step shows a mood v, around that of the scene.

    score = sum over the text's steps of p (1 + 2 e[topic]) / sqrt(steps) + mean of v + noise

What is said of a topic counts threefold where the voice stresses it and turns round where the voice mocks it: neither
text nor audio knows that, and neither does what is left of either once its steps are averaged. Text alone knows the
sum of p, audio alone nothing at all, video alone the mood. A row lacks each modality with probability `missing` (never
all).

Vectors are codes of topic, p, e and v with a little noise, from which the truth can be read; so the best prediction of
a row is the median of the score given what the row has, and its error is that of the rest. `test_without_<modality>`
are the test rows with that modality taken away.
"""

# B rows, K topics, L steps

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from tools.convert.history import lists
from tools.convert.output import SPLITS, Output

MODALITIES = ("text", "audio", "video")


@dataclass(frozen=True)
class Plan:
    """What to generate."""

    train: int = field(default=8_000, metadata={"help": "rows"})
    valid: int = field(default=1_000, metadata={"help": "rows"})
    test: int = field(default=2_000, metadata={"help": "rows"})
    topics: int = field(default=4, metadata={"help": "K"})
    text_steps: int = field(default=6, metadata={"help": "of the longest text; the shortest has 1"})
    fillers: int = field(default=5, metadata={"help": "most steps of the audio that say nothing; 1 at least"})
    video_steps: int = field(default=4, metadata={"help": "of the longest video; the shortest has 1"})
    text_width: int = field(default=16, metadata={"help": "of a vector"})
    audio_width: int = field(default=12, metadata={"help": "of a vector"})
    video_width: int = field(default=8, metadata={"help": "of a vector"})
    missing: float = field(default=0.1, metadata={"help": "probability that a row lacks a modality, of each"})
    noise: float = field(default=0.5, metadata={"help": "standard deviation of what no model can know of the score"})
    blur: float = field(default=0.05, metadata={"help": "standard deviation of the vectors' noise"})
    seed: int = field(default=1, metadata={"help": "of everything"})

    def __post_init__(self) -> None:
        if min(self.topics, self.text_steps, self.fillers, self.video_steps) < 1:
            raise ValueError("topics and steps must be positive")
        if self.text_width < self.topics + 1 or self.audio_width < self.topics + 1:
            raise ValueError(f"{self.topics} topics need text and audio vectors of {self.topics + 1} columns")


@dataclass(frozen=True)
class Scenes:
    """What is planted in B rows.

    Attributes:
        topics, said: of the text's steps, [B, L]; a topic of -1 is no step.
        stress: e of each topic, [B, K].
        fillers: steps of the audio that say nothing, [B].
        moods: of the video's steps, [B, L]; nan is no step.
        has: by modality, which rows have it, [B].
    """

    topics: np.ndarray
    said: np.ndarray
    stress: np.ndarray
    fillers: np.ndarray
    moods: np.ndarray
    has: dict[str, np.ndarray]

    def known(self, *present: str) -> np.ndarray:
        """The best prediction by what each row has of these modalities: the median of the score given that, [B]."""
        there = {name: self.has[name] & (name in present) for name in MODALITIES}
        steps = self.topics >= 0
        stress = np.where(there["audio"][:, None], np.take_along_axis(self.stress, np.maximum(self.topics, 0), 1), 0)
        text = (steps * self.said * (1 + 2 * stress)).sum(1) / np.sqrt(steps.sum(1))
        # Unknown p, e and moods are symmetric around 0, and so is what depends on them.
        return np.where(there["text"], text, 0) + np.where(there["video"], np.nanmean(self.moods, 1), 0)

    def whole(self) -> np.ndarray:
        """What the score is made of, whether the row shows it or not, [B]."""
        everything = {name: np.ones_like(has) for name, has in self.has.items()}
        return Scenes(self.topics, self.said, self.stress, self.fillers, self.moods, everything).known(*MODALITIES)


class Truth:
    """The codes of topics, of what is said, of stress and of mood."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        draw = np.random.default_rng(plan.seed)

        def codes(count: int, width: int) -> np.ndarray:
            # Orthonormal, so that each can be read beside the others.
            return np.linalg.qr(draw.normal(size=(width, width)))[0][:count] * 2

        self.text = codes(plan.topics + 1, plan.text_width)
        self.audio = codes(plan.topics + 1, plan.audio_width)
        self.video = codes(1, plan.video_width)

    def scenes(self, draw: np.random.Generator, count: int) -> Scenes:
        """Draw what is planted."""
        plan = self.plan
        text_lengths = draw.integers(1, plan.text_steps + 1, count)
        topics = draw.integers(0, plan.topics, (count, plan.text_steps))
        topics[np.arange(plan.text_steps) >= text_lengths[:, None]] = -1
        mood = draw.normal(0, 1, count)
        moods = mood[:, None] + draw.normal(0, 0.5, (count, plan.video_steps))
        moods[np.arange(plan.video_steps) >= draw.integers(1, plan.video_steps + 1, count)[:, None]] = np.nan
        lacks = draw.random((count, len(MODALITIES))) < plan.missing
        lacks[lacks.all(1)] = False
        return Scenes(
            topics,
            draw.choice([-1, 1], topics.shape),
            draw.choice([-1, 0, 1], (count, plan.topics), p=[0.35, 0.3, 0.35]),
            draw.integers(1, plan.fillers + 1, count),
            moods,
            {name: ~lacks[:, i] for i, name in enumerate(MODALITIES)},
        )

    def columns(self, draw: np.random.Generator, scenes: Scenes) -> dict[str, pa.Array]:
        """The three sequences."""
        plan, count = self.plan, len(scenes.fillers)
        row, step = np.nonzero((scenes.topics >= 0) & scenes.has["text"][:, None])
        text = self.text[scenes.topics[row, step]] + scenes.said[row, step, None] * self.text[-1]
        columns = {"text": self._vectors(draw, text, row, count)}
        # Of a row K places for topics, some of them empty, and fillers, in random order.
        kinds = np.where(scenes.stress != 0, np.arange(plan.topics), -1)
        fillers = np.where(np.arange(plan.fillers) < scenes.fillers[:, None], plan.topics, -1)
        kinds = np.concatenate([kinds, fillers], 1)
        kinds = np.take_along_axis(kinds, np.argsort(draw.random(kinds.shape), 1), 1)
        row, step = np.nonzero((kinds >= 0) & scenes.has["audio"][:, None])
        kind = kinds[row, step]
        stressed = kind < plan.topics
        audio = np.zeros((len(row), plan.audio_width))
        audio[stressed] = (
            self.audio[kind[stressed]] + scenes.stress[row[stressed], kind[stressed], None] * self.audio[-1]
        )
        columns["audio"] = self._vectors(draw, audio, row, count)
        row, step = np.nonzero(~np.isnan(scenes.moods) & scenes.has["video"][:, None])
        columns["video"] = self._vectors(draw, scenes.moods[row, step, None] * self.video[0], row, count)
        return columns

    def _vectors(self, draw: np.random.Generator, x: np.ndarray, row: np.ndarray, count: int) -> pa.Array:
        blurred = (x + draw.normal(0, self.plan.blur, x.shape)).astype(np.float32)
        steps = pa.FixedSizeListArray.from_arrays(pa.array(blurred.reshape(-1)), x.shape[1])
        return lists(np.concatenate([[0], np.cumsum(np.bincount(row, minlength=count))]), steps)

    def rows(self, count: int, *, seed: int) -> tuple[pa.Table, dict[str, float]]:
        """Rows, and the smallest mean absolute error by what is looked at: "mae", "mae_<modality>_alone", ..."""
        draw = np.random.default_rng(seed)
        scenes = self.scenes(draw, count)
        score = scenes.whole() + draw.normal(0, self.plan.noise, count)

        def error(*present: str) -> float:
            return float(np.abs(score - scenes.known(*present)).mean())

        best = {"mae": error(*MODALITIES)}
        for name in MODALITIES:
            best[f"mae_{name}_alone"] = error(name)
            best[f"mae_without_{name}"] = error(*(m for m in MODALITIES if m != name))
        return pa.table({**self.columns(draw, scenes), "score": score.astype(np.float32)}), best


def generate(plan: Plan, output: str) -> dict[str, Any]:
    """Write the splits; returns what info.json holds, the smallest errors among it."""
    truth = Truth(plan)
    with Output(output, row_group_rows=1024) as out:
        bayes: dict[str, dict[str, float]] = {}
        for number, split in enumerate(SPLITS):
            table, bayes[split] = truth.rows(getattr(plan, split), seed=plan.seed * 1000 + number)
            out.write(split, table)
        for name in MODALITIES:
            empty = pa.array([[]] * table.num_rows, table.schema.field(name).type)
            out.write(f"test_without_{name}", table.set_column(table.column_names.index(name), name, empty))
        out.info = {"dataset": "planted_multimodal", "plan": asdict(plan), "bayes": bayes}
    return {"rows": out.rows, **out.info}
