"""MovieLens to parquet, as a click-through task: ratings 4-5 are 1, 1-2 are 0, 3 is left out.

That is the protocol `rating_ne3` of FCN (arXiv 2407.13349, Table 4): a random 8:1:1 split. GroupLens' licence
forbids redistribution, so the data is brought by path or from the package index when needed, never bundled.
"""

from __future__ import annotations

import gzip
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from rec.config.errors import DataError
from tools.convert.output import Output, random_splits, strings

# One reader per way of bringing the data: name of a file inside -> its lines.
Lines = Callable[[str], list[str]]


@dataclass(frozen=True)
class Movies:
    """The three tables, with users and movies numbered from 1 in the order of their files."""

    user: np.ndarray  # [ratings], 1...
    movie: np.ndarray  # [ratings], 1...
    rating: np.ndarray  # [ratings], 1-5
    timestamp: np.ndarray  # [ratings], seconds
    gender: np.ndarray  # [users], "F" or "M"
    age: np.ndarray  # [users]
    occupation: np.ndarray  # [users], 0-20
    zip_code: np.ndarray  # [users]
    title: np.ndarray  # [movies]
    year: np.ndarray  # [movies], 0 where unknown
    genres: list[list[str]]  # [movies]


def read(path: str | Path) -> Movies:
    """Read any of: a folder or zip of GroupLens' ML-1M files (plain or .gz), or a wheel of RecBole's atomic files."""
    path = Path(path)
    if path.is_dir():
        names = {file.name: file for file in sorted(path.rglob("*")) if file.is_file()}
        lines = _reader(list(names), lambda name: names[name].read_bytes(), where=str(path))
        return _groups_lens(lines) if _has(names, "ratings.dat") else _atomic(lines, list(names), str(path))
    if not path.exists():
        raise DataError("no such file; give the folder or zip of MovieLens-1M, or leave --input out", file=str(path))
    if not zipfile.is_zipfile(path):
        raise DataError("expected a folder, a zip (ml-1m.zip) or a wheel", file=str(path))
    with zipfile.ZipFile(path) as archive:
        entries = archive.namelist()
        lines = _reader(entries, archive.read, where=str(path))
        if any(name.endswith("ratings.dat") for name in entries):
            return _groups_lens(lines)
        return _atomic(lines, entries, str(path))


def _has(names: dict[str, Path], name: str) -> bool:
    return name in names or f"{name}.gz" in names


def _reader(names: list[str], content: Callable[[str], bytes], *, where: str) -> Lines:
    def lines(suffix: str) -> list[str]:
        for name in names:
            if name.endswith((suffix, f"{suffix}.gz")):
                data = content(name)
                data = gzip.decompress(data) if name.endswith(".gz") else data
                # GroupLens' files are Latin-1, RecBole's UTF-8.
                text = data.decode("latin-1" if suffix.endswith(".dat") else "utf-8")
                return text.replace("\r", "").strip("\n").split("\n")
        raise DataError(f"has no {suffix}; a complete MovieLens-1M has ratings, users and movies", file=where)

    return lines


def _columns(rows: list[str], separator: str, width: int, name: str) -> list[np.ndarray]:
    split = [row.split(separator) for row in rows]
    wrong = next((number for number, row in enumerate(split) if len(row) < width), None)
    if wrong is not None:
        raise DataError(f"has {len(split[wrong])} fields, expected {width}: {rows[wrong]!r}", file=name, row=wrong)
    return [np.array([row[column] for row in split]) for column in range(width)]


def _groups_lens(lines: Lines) -> Movies:
    user_id, gender, age, occupation, zip_code = _columns(lines("users.dat"), "::", 5, "users.dat")
    movie_id, title, genres = _columns(lines("movies.dat"), "::", 3, "movies.dat")
    rated_by, rated, rating, timestamp = _columns(lines("ratings.dat"), "::", 4, "ratings.dat")
    return Movies(
        user=_numbers(rated_by, user_id, "ratings.dat", "UserID"),
        movie=_numbers(rated, movie_id, "ratings.dat", "MovieID"),
        rating=rating.astype(np.float32).astype(np.int32),
        timestamp=timestamp.astype(np.float64).astype(np.int64),
        gender=gender,
        age=age.astype(np.int32),
        occupation=occupation.astype(np.int32),
        zip_code=zip_code,
        title=title,
        year=_years(title),
        genres=[text.split("|") for text in genres],
    )


def _atomic(lines: Lines, names: list[str], where: str) -> Movies:
    """RecBole's atomic files: tab-separated, a header `name:type`; two layouts are about."""
    large = any(name.endswith("ml-1m.inter") for name in names)
    stem = "ml-1m" if large else "ml-100k"
    if not any(name.endswith(f"{stem}.inter") for name in names):
        raise DataError("has neither ratings.dat nor ml-1m.inter nor ml-100k.inter", file=where)
    tables: dict[str, dict[str, np.ndarray]] = {}
    for kind in ("inter", "item", "user"):
        header, *rows = lines(f"{stem}.{kind}")
        fields = [field.split(":")[0] for field in header.split("\t")]
        tables[kind] = dict(zip(fields, _columns(rows, "\t", len(fields), f"{stem}.{kind}"), strict=True))
    users, items, inter = tables["user"], tables["item"], tables["inter"]
    genres = items["genre"] if "genre" in items else items["class"]
    # In one of the layouts the item's id is "title (year)".
    title = items["item_id"] if large else items["movie_title"]
    return Movies(
        user=_numbers(inter["user_id"], users["user_id"], f"{stem}.inter", "user_id"),
        movie=_numbers(inter["item_id"], items["item_id"], f"{stem}.inter", "item_id"),
        rating=inter["rating"].astype(np.float32).astype(np.int32),
        timestamp=inter["timestamp"].astype(np.float64).astype(np.int64),
        gender=users["gender"],
        age=users["age"].astype(np.int32),
        occupation=_codes(users["occupation"]),
        zip_code=users["zip_code"],
        title=title,
        year=np.array([int(text) if text.isdigit() else 0 for text in items["release_year"]], np.int32),
        genres=[text.split() for text in genres],
    )


def _numbers(values: np.ndarray, known: np.ndarray, file: str, column: str) -> np.ndarray:
    """Place (from 1) of each value in `known`: the same numbers whichever way the data came."""
    order = np.argsort(known)
    place = np.searchsorted(known[order], values)
    place = order[np.minimum(place, len(known) - 1)]
    wrong = np.flatnonzero(known[place] != values)
    if wrong.size:
        first = int(wrong[0])
        raise DataError(f'"{values[first]}" is not in the table it points to', file=file, row=first, column=column)
    return (place + 1).astype(np.int32)


def _codes(names: np.ndarray) -> np.ndarray:
    """Numbers of occupations: as they are in ML-1M, in alphabetical order where the file has words (ML-100K)."""
    if np.char.isdecimal(names).all():
        return names.astype(np.int32)
    return np.unique(names, return_inverse=True)[1].astype(np.int32)


def _years(titles: np.ndarray) -> np.ndarray:
    found = [re.search(r"\((\d{4})\)\s*$", title) for title in titles]
    return np.array([int(match[1]) if match else 0 for match in found], np.int32)


def click_table(movies: Movies) -> pa.Table:
    """One row per rating other than 3, in the order of the ratings file."""
    keep = np.flatnonzero(movies.rating != 3)
    user, movie = movies.user[keep] - 1, movies.movie[keep] - 1
    lengths = np.array([len(names) for names in movies.genres])
    genres = pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()),
        strings(name for names in movies.genres for name in names),
    )
    return pa.table(
        {
            "label": (movies.rating[keep] > 3).astype(np.int32),
            "user_id": user + 1,
            "gender": pa.array(movies.gender[user], pa.string()),
            "age": movies.age[user],
            "occupation": movies.occupation[user],
            "zip": pa.array(movies.zip_code[user], pa.string()),
            "movie_id": movie + 1,
            "year": movies.year[movie],
            "decade": movies.year[movie] // 10 * 10,
            "genres": genres.take(pa.array(movie)),
            "timestamp": movies.timestamp[keep],
        }
    )


def convert(path: str | Path, output: str | Path, *, seed: int = 2024) -> dict:
    """Write the click-through task; returns its info."""
    movies = read(path)
    table = click_table(movies)
    with Output(output) as out:
        for split, rows in random_splits(table.num_rows, seed=seed).items():
            out.write(split, table.take(pa.array(rows)))
        out.info = {
            "dataset": "movielens",
            "protocol": "rating_ne3, random 8:1:1",
            "seed": seed,
            "users": len(movies.gender),
            "movies": len(movies.title),
            "ratings": len(movies.rating),
            "positive_rate": float(np.mean(table["label"])),
            "columns": table.column_names,
        }
    return {"rows": out.rows, **out.info}
