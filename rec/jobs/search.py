"""--mode search: rows of users -> the same rows with the nearest items, or the best leaves of a tree."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rec.assemble import Job
from rec.config.errors import ConfigError, DataError
from rec.config.load import Loaded
from rec.data.build_tree import TreeIndex
from rec.data.seen import Seen
from rec.jobs.index import FOLDER, mark
from rec.jobs.predict import with_scores
from rec.jobs.top_k import beam_of
from rec.serve.folder import encoder_of
from rec.world import World

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from rec.data.loader import Loader
    from rec.protos import export_pb2
    from rec.protos.models import tdm_pb2
    from rec.serve import Predictor
    from rec.serve.index import ItemIndex
    from rec.train.tree_search import TreeSearch


def run(loaded: Loaded, args: argparse.Namespace, world: World) -> None:
    """Searches for --input (or predict_input_path, or eval_input_path) into parquet, with `item_ids` and `scores`."""
    job = Job(loaded, world, "cpu")
    config = job.config
    if job.tree is not None:
        tree_search(job, args)
        return
    if job.retrieval is None:
        raise ConfigError("--mode search is for retrieval models", config.model_config, hint="use dssm, for example")
    path = args.input or config.predict_input_path or config.eval_input_path
    output = args.output or str(job.model_dir / "search")
    tower = (Path(args.export_dir) if args.export_dir else job.model_dir / "export") / "user"
    loader = job.predict_loader(path, encoder=encoder_of(tower))
    loader.start()
    try:
        from rec.data.writer import write_predictions
        from rec.serve import Predictor
        from rec.serve.index import ItemIndex

        predictor, index = Predictor(tower), ItemIndex(job.model_dir / FOLDER)
        if index.manifest.get("user_tower") != mark(predictor):
            raise DataError(
                f"the items are of another export (step {index.manifest['step']}) than the user tower in {tower} (step "
                f"{predictor.manifest['step']}); run --mode index again",
                file=str(job.model_dir / FOLDER),
            )
        delimiter = config.model_config.retrieval.id_delimiter
        rows = found(loader, predictor, index, config.export_config.index, id_delimiter=delimiter)
        written = write_predictions(rows, output, rank=world.rank, world=world.size)
    finally:
        loader.close()
    if world.is_main:
        print(f"searched for {(loader.rows or 0) - loader.skipped.rows:,} rows of {path} into {written}")


def tree_search(job: Job, args: argparse.Namespace) -> None:
    """The same by the exported model of a tree, without an index."""
    from rec.data.encoder import Encoder

    config, world = job.config, job.world
    path = args.input or config.predict_input_path or config.eval_input_path
    output = args.output or str(job.model_dir / "search")
    export = Path(args.export_dir) if args.export_dir else job.model_dir / "export"
    index = TreeIndex(config, encoder_of(export).features)  # of the export, with its vocabularies
    encoder = Encoder(index.user_features)
    loader = job.predict_loader(path, encoder=encoder)
    loader.start()
    try:
        ids, leaves = index.leaf_ids()

        from rec.data.writer import write_predictions
        from rec.serve import Predictor
        from rec.train.tree_search import TreeSearch

        settings = config.model_config.tdm.search
        search = TreeSearch(
            index.tree, Predictor(export).score, encoder, beam=beam_of(settings, settings.top_k), device="cpu"
        )
        delimiter = config.model_config.retrieval.id_delimiter
        rows = found_in_tree(loader, search, ids, leaves, settings, id_delimiter=delimiter)
        written = write_predictions(rows, output, rank=world.rank, world=world.size)
    finally:
        loader.close()
    if world.is_main:
        print(f"searched for {(loader.rows or 0) - loader.skipped.rows:,} rows of {path} into {written}")


def found_in_tree(
    loader: Loader,
    search: TreeSearch,
    ids: pa.Array,
    leaves: np.ndarray,
    settings: tdm_pb2.TreeSearch,
    *,
    id_delimiter: str = "",
) -> Iterator[pa.RecordBatch]:
    """The loader's rows with `item_ids` and `scores`, the probabilities, behind them, from the best item down.

    Args:
        loader: of users.
        search: down the tree.
        ids: of the items.
        leaves: numbers of their nodes.
        settings: how many are found, and what is left out.
        id_delimiter: between the ids of a text.
    """
    import numpy as np

    from rec.train.tree_search import best_of_each

    place = np.full(len(search.tree), -1)
    place[leaves] = np.arange(len(leaves))
    seen = Seen(settings.seen_field, ids, delimiter=id_delimiter) if settings.seen_field else None
    for batch in loader.epoch(0):
        if batch.filler:
            continue
        row, leaf, odds = search({name: t.numpy() for name, t in batch.features.items()}, batch.size)
        without = seen(batch.rows) if seen is not None else None
        items, odds = best_of_each(batch.size, row, place[leaf], odds, top_k=settings.top_k, without=without)
        with np.errstate(over="ignore"):
            probs = 1 / (1 + np.exp(-odds))
        yield with_scores(batch.rows, as_lists(ids, probs, items))
    if seen is not None:
        seen.tell()


def found(
    loader: Loader, tower: Predictor, index: ItemIndex, settings: export_pb2.ItemIndex, *, id_delimiter: str = ""
) -> Iterator[pa.RecordBatch]:
    """The loader's rows with `item_ids` and `scores` behind them, lists from the nearest item down."""
    seen = Seen(settings.seen_field, index.ids, delimiter=id_delimiter) if settings.seen_field else None
    for batch in loader.epoch(0):
        if batch.filler:
            continue
        users = tower.score(batch.features)["user_embedding"].numpy()
        without = seen(batch.rows) if seen is not None else None
        if settings.HasField("diversity"):
            diversity = settings.diversity
            scores, numbers = index.diverse(
                users, settings.top_k, weight=diversity.weight, candidates=diversity.candidates, without=without
            )
        else:
            scores, numbers = index.search(users, settings.top_k, without=without)
        yield with_scores(batch.rows, as_lists(index.ids, scores, numbers))
    if seen is not None:
        seen.tell()


def as_lists(ids: pa.Array, scores: np.ndarray, numbers: np.ndarray) -> dict[str, pa.Array]:
    """Columns of lists, without what was not found."""
    import numpy as np
    import pyarrow as pa

    there = numbers >= 0
    offsets = pa.array(np.concatenate([[0], np.cumsum(there.sum(1))]).astype(np.int32))
    values = {"item_ids": ids.take(pa.array(numbers[there])), "scores": pa.array(scores[there])}
    return {name: pa.ListArray.from_arrays(offsets, column) for name, column in values.items()}
