"""MovieLens as clicks with the history before each of them, split by time.

A row is a rating: 4-5 are label 1, 1-2 are 0, rows of 3 are left out (the protocol `rating_ne3`). Its history are
the last `length` ratings of the same user with a smaller timestamp, most recent last; by default only those of 4-5,
the clicks. Ratings of the row's own second are not history, so nothing of the row's moment leaks.

The split is by time over all users: training ends before validation begins and validation before the test. Rows of
one second are never parted, so the shares are 80, 10 and 10 % up to a few rows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from tools.convert.history import length_summary, lists, sort_behaviours, windows_before
from tools.convert.movielens import Movies, click_table, read
from tools.convert.output import SPLITS, Output, time_splits

BLOCK_ROWS = 65_536
HISTORIES = ("clicks", "all")


def convert(
    path: str | Path, output: str | Path, *, history: str = "clicks", length: int = 50, seed: int = 2024
) -> dict:
    """Write the task; returns its info.

    Args:
        path: what `movielens.read` takes.
        output: folder of the splits.
        history: "clicks" takes the ratings of 4 and 5 into the histories, "all" every rating.
        length: longest history.
        seed: of the order of the training rows; validation and test are in the order of time.
    """
    movies = read(path)
    splits = time_splits(movies.timestamp[movies.rating != 3])
    splits["train"] = np.random.default_rng(seed).permutation(splits["train"])
    rows = Rows(movies, history=history, length=length)
    with Output(output) as out:
        for split in SPLITS:
            for start in range(0, len(splits[split]), BLOCK_ROWS):
                out.write(split, rows.take(splits[split][start : start + BLOCK_ROWS]))
        out.info = {
            "dataset": "movielens",
            "protocol": "rating_ne3, split by time 8:1:1",
            "history": history,
            "length": length,
            "seed": seed,
            "users": len(movies.gender),
            "movies": len(movies.title),
            "ratings": len(movies.rating),
            "genres": rows.genre_names,
            "splits": {split: rows.summary(splits[split], splits["train"]) for split in SPLITS},
        }
    return {"rows": out.rows, **out.info}


class Rows:
    """The click table with histories, made for any rows in any order."""

    def __init__(self, movies: Movies, *, history: str, length: int) -> None:
        self.table = click_table(movies)
        self.user, self.movie, self.time = (
            self.table[name].to_numpy() for name in ("user_id", "movie_id", "timestamp")
        )
        self.label = self.table["label"].to_numpy()
        # The first genre of a movie is its category; 0 is free for padding and unknown.
        self.genre_names = sorted({name for names in movies.genres for name in names if name})
        number = {name: place for place, name in enumerate(self.genre_names, start=1)}
        self.genre_of = np.array([0, *(number.get(names[0], 0) for names in movies.genres)], np.int32)
        taken = np.flatnonzero(movies.rating > 3) if history == "clicks" else np.arange(len(movies.rating))
        order = taken[sort_behaviours(movies.user[taken], movies.timestamp[taken])]
        self.seen, self.seen_time, self.rating = movies.movie[order], movies.timestamp[order], movies.rating[order]
        self.windows = windows_before(
            movies.user[order], self.seen_time, row_user=self.user, row_time=self.time, length=length
        )

    def take(self, rows: np.ndarray) -> pa.Table:
        """Some rows with their histories."""
        windows = self.windows.take(rows)
        places, offsets = windows.places(), windows.offsets()
        seen = self.seen[places]
        ago = np.repeat(self.time[rows], windows.lengths) - self.seen_time[places]
        table = self.table.take(pa.array(rows)).append_column("genre", pa.array(self.genre_of[self.movie[rows]]))
        for name, values in (
            ("movie_id", seen),
            ("genre", self.genre_of[seen]),
            ("rating", self.rating[places]),
            ("seconds_ago", ago.astype(np.int32)),
        ):
            table = table.append_column(f"hist__{name}", lists(offsets, values))
        return table

    def summary(self, rows: np.ndarray, train: np.ndarray) -> dict:
        """What one should know of a split: its time, how much of it training has not seen, its histories."""
        if not len(rows):
            return {}
        new_user = ~np.isin(self.user[rows], self.user[train])
        new_movie = ~np.isin(self.movie[rows], self.movie[train])
        return {
            "from": str(self.time[rows].min().astype("datetime64[s]")),
            "to": str(self.time[rows].max().astype("datetime64[s]")),
            "positive_rate": round(float(self.label[rows].mean()), 4),
            "users": len(np.unique(self.user[rows])),
            "rows_of_users_unseen_in_training": round(float(new_user.mean()), 4),
            "rows_of_movies_unseen_in_training": round(float(new_movie.mean()), 4),
            "history": length_summary(self.windows.lengths[rows]),
        }
