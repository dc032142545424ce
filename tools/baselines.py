"""`python -m tools.baselines`: popularity, item-kNN, EASE, Markov on the rows and by the metrics of --mode top_k.

Train rows are pairs of user and item (with `--history`, the history's items too); test rows have lists (or one) of
relevant and of seen items, from which all score. In numpy and torch, dense blocks of similarities.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rec.config.errors import DataError
from rec.data.catalogue import Catalogue, UserBlock, Users, item_lists
from rec.data.item_file import ItemFile
from rec.data.parquet_source import ParquetSource
from rec.jobs.files import write_json
from rec.jobs.top_k import as_json, as_text
from rec.train.top_k import Scorer, measure
from tools.markov import markov, successions

# EASE and Markov hold some matrices of items x items.
DENSE_ITEMS = 12_000
BLOCK = 256


@dataclass(frozen=True)
class Rows:
    """Where the training rows are, for methods that read their order.

    Attributes:
        path: folder.
        item, history: columns of the row's item and of those before it; "" where there is none.
        steps: how far back to look.
    """

    path: str
    item: str
    history: str
    steps: int


def interactions(path: str, catalogue: Catalogue, *, user: str, item: str, history: str = "") -> tuple[Tensor, Tensor]:
    """Distinct pairs of users (numbered anew) and items (numbers in the catalogue), int64 [P] each, by user.

    Raises:
        DataError: no rows, or a column is missing.
    """
    source = ParquetSource(path, [user, item, *filter(None, [history])])
    users, keys = [], []
    for chain in source.chains:
        for piece in source.pieces(chain):
            of_row = item_lists(piece.batch.column(user)).keys
            for column in filter(None, [item, history]):
                lists = item_lists(piece.batch.column(column))
                users.append(of_row[lists.rows])
                keys.append(lists.keys)
    if not users:
        raise DataError("no rows", file=path)
    items = catalogue.find(np.concatenate(keys))
    rows = np.unique(np.concatenate(users), return_inverse=True)[1]
    width = len(catalogue)
    pairs = np.unique(rows[items >= 0] * width + items[items >= 0])
    return torch.from_numpy(pairs // width), torch.from_numpy(pairs % width)


def popularity(users: Tensor, items: Tensor, catalogue: Catalogue) -> Scorer:
    """The number of users of an item, for everybody."""
    counts = torch.bincount(items, minlength=len(catalogue)).float()

    def scores(block: UserBlock) -> Iterator[tuple[int, Tensor]]:
        yield 0, counts.repeat(block.rows.num_rows, 1)

    return scores


def item_knn(users: Tensor, items: Tensor, catalogue: Catalogue, *, neighbours: int = 100) -> Scorer:
    """Sum of the cosines to those of an item's nearest `neighbours` that the user has seen.

    Sarwar et al., "Item-based Collaborative Filtering Recommendation Algorithms", WWW 2001; binary, without shrinkage.
    """
    width = len(catalogue)
    near = torch.zeros(width, min(neighbours, width), dtype=torch.int64)
    weight = torch.zeros(near.shape)
    norm = torch.bincount(items, minlength=width).float().clamp_min(1).rsqrt()
    for start, block in together(users, items, width):
        cosine = block * norm * norm[start : start + len(block), None]
        cosine[torch.arange(len(block)), torch.arange(start, start + len(block))] = 0
        weight[start : start + len(block)], near[start : start + len(block)] = cosine.topk(near.shape[1], dim=1)
    # By neighbour: which items have it, and how near.
    order = near.flatten().argsort()
    target, weight = order // near.shape[1], weight.flatten()[order]
    lengths = torch.bincount(near.flatten(), minlength=width)
    begins = lengths.cumsum(0) - lengths

    def scores(block: UserBlock) -> Iterator[tuple[int, Tensor]]:
        rows, seen = _seen(block, catalogue)
        flat = torch.zeros(block.rows.num_rows * width)
        at = spans(begins[seen], lengths[seen])
        flat.index_add_(0, rows.repeat_interleave(lengths[seen]) * width + target[at], weight[at])
        yield 0, flat.view(-1, width)

    return scores


def ease(users: Tensor, items: Tensor, catalogue: Catalogue, *, l2: float = 500.0) -> Scorer:
    """B = I - P diag(1 / diag P), P = (X'X + l2 I)^-1; the score is the sum of B over the seen items.

    Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, Eq. 8.

    Raises:
        DataError: so many items that the matrix is not worth its memory.
    """
    width = _dense(catalogue)
    gram = torch.cat([block for _, block in together(users, items, width)])
    gram.diagonal().add_(l2)
    p = torch.linalg.inv(gram)
    b = -p / p.diagonal()
    b.fill_diagonal_(0)

    def scores(block: UserBlock) -> Iterator[tuple[int, Tensor]]:
        rows, seen = _seen(block, catalogue)
        x = torch.zeros(block.rows.num_rows, width)
        x[rows, seen] = 1
        yield 0, x @ b

    return scores


def next_of_last(users: Tensor, items: Tensor, catalogue: Catalogue, *, rows: Rows) -> Scorer:
    """What followed the last steps of a history in others' (`tools.markov`).

    Raises:
        DataError: there is no history, or there are so many items that the tables are not worth their memory.
    """
    if not rows.history:
        raise DataError("needs the items before each row's item, in order: --history")
    _dense(catalogue)
    counts = successions(rows.path, catalogue, item=rows.item, history=rows.history, steps=rows.steps)
    return markov(counts, catalogue)


def _dense(catalogue: Catalogue) -> int:
    """Items of a catalogue that is small enough for matrices of items x items."""
    width = len(catalogue)
    if width > DENSE_ITEMS:
        raise DataError(
            f"a matrix of {width:,} x {width:,} items takes {width**2 * 4 / 1e9:.1f} GB; at most {DENSE_ITEMS:,} items"
        )
    return width


def together(users: Tensor, items: Tensor, width: int) -> Iterator[tuple[int, Tensor]]:
    """Rows of X'X, float32 [n, V], from an item on: how many users have both items."""
    lengths = torch.bincount(users)
    begins = lengths.cumsum(0) - lengths
    order = items.argsort(stable=True)
    bounds = torch.bincount(items, minlength=width).cumsum(0)
    for start in range(0, width, BLOCK):
        end = min(start + BLOCK, width)
        pairs = order[int(bounds[start - 1]) if start else 0 : int(bounds[end - 1])]
        count = lengths[users[pairs]]
        others = items[spans(begins[users[pairs]], count)]
        cells = (items[pairs] - start).repeat_interleave(count) * width + others
        yield start, torch.bincount(cells, minlength=(end - start) * width).view(-1, width).float()


def spans(begins: Tensor, lengths: Tensor) -> Tensor:
    """begins[0], begins[0] + 1, ... (lengths[0] of them), begins[1], ..."""
    return (begins - lengths.cumsum(0) + lengths).repeat_interleave(lengths) + torch.arange(int(lengths.sum()))


def _seen(block: UserBlock, catalogue: Catalogue) -> tuple[Tensor, Tensor]:
    assert block.seen is not None
    pairs = catalogue.pairs(block.seen, users=block.rows.num_rows)[0].distinct(items=len(catalogue))
    return torch.from_numpy(pairs.users), torch.from_numpy(pairs.items)


METHODS: dict[str, Callable[..., Scorer]] = {
    "popularity": popularity,
    "item_knn": item_knn,
    "ease": ease,
    "markov": next_of_last,
}


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    p = argparse.ArgumentParser(prog="python -m tools.baselines", description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--data", required=True, help="folder of a converter: train, test and items")
    p.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), help="(all)")
    p.add_argument("--split", default="test", help="folder of the users (%(default)s)")
    p.add_argument("--user", default="user_id", help="column of users in train (%(default)s)")
    p.add_argument("--item", default="item_id", help="column of items in train and in the item file (%(default)s)")
    p.add_argument("--history", default="", help="column of train with more items of the user")
    p.add_argument("--relevant", default="item_ids", help="column of the items to be found (%(default)s)")
    p.add_argument("--seen", default="seen_ids", help="column of the items the user had (%(default)s)")
    p.add_argument("--top_k", nargs="+", type=int, default=[10, 20, 50, 100], help="(%(default)s)")
    p.add_argument("--sampled", type=int, default=0, help="rank also among so many drawn items")
    p.add_argument("--neighbours", type=int, default=100, help="of item-kNN (%(default)s)")
    p.add_argument("--l2", type=float, default=500.0, help="of EASE (%(default)s)")
    p.add_argument("--steps", type=int, default=5, help="of Markov: steps back that it looks at (%(default)s)")
    p.add_argument("--output", help="write the metrics as JSON")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the baselines; returns the exit code, 3 when the data is missing or wrong."""
    given = parser().parse_args(arguments)
    try:
        results = run(given)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    if given.output:
        write_json(Path(given.output), results)
    return 0


def run(given: argparse.Namespace) -> dict:
    """Measures and prints each method; their results by name."""
    folder = Path(given.data)
    path = str(folder / given.split)
    users = Users(ParquetSource(path, [given.relevant, given.seen]), path, relevant=given.relevant, seen=given.seen)
    file = ItemFile(str(folder / "items"), id_field=given.item, attributes=[])
    catalogue = Catalogue([(piece.ids, piece.weights) for piece in file.items(users.id_type)])
    pairs = interactions(str(folder / "train"), catalogue, user=given.user, item=given.item, history=given.history)
    rows = Rows(str(folder / "train"), given.item, given.history, given.steps)
    options = {"item_knn": {"neighbours": given.neighbours}, "ease": {"l2": given.l2}, "markov": {"rows": rows}}
    results = {}
    for name in given.methods:
        began = time.process_time()
        try:
            scorer = METHODS[name](*pairs, catalogue, **options.get(name, {}))
        except DataError as error:
            print(f"\n{name}: left out. {error}")
            continue
        report = measure(scorer, users, catalogue, top_k=given.top_k, sampled=given.sampled)
        seconds = round(time.process_time() - began, 1)
        about = {"method": name, "step": 0, "items": len(catalogue), "seen": "left out", "cpu_seconds": seconds}
        print(f"\n{name} ({seconds:.0f} processor seconds)")
        print(as_text(report, about))
        results[name] = as_json(report, about)
    return results


if __name__ == "__main__":
    sys.exit(main())
