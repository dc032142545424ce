"""--mode search: rows of users -> the same rows with the nearest items."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rec.assemble import Job
from rec.config.errors import ConfigError, DataError
from rec.config.load import Loaded
from rec.jobs.index import FOLDER
from rec.jobs.predict import with_scores
from rec.serve.folder import encoder_of
from rec.world import World

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from rec.data.loader import Loader
    from rec.protos import export_pb2
    from rec.serve import Predictor
    from rec.serve.index import ItemIndex


def run(loaded: Loaded, args: argparse.Namespace, world: World) -> None:
    """Searches for --input (or predict_input_path, or eval_input_path) into parquet, with `item_ids` and `scores`."""
    job = Job(loaded, world, "cpu")
    config = job.config
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
        if predictor.manifest["step"] != index.manifest["step"]:
            raise DataError(
                f"the items are those of step {index.manifest['step']}, the user tower is of step "
                f"{predictor.manifest['step']}; run --mode index again",
                file=str(job.model_dir / FOLDER),
            )
        rows = found(loader, predictor, index, config.export_config.index)
        written = write_predictions(rows, output, rank=world.rank, world=world.size)
    finally:
        loader.close()
    if world.is_main:
        print(f"searched for {(loader.rows or 0) - loader.skipped.rows:,} rows of {path} into {written}")


def found(
    loader: Loader, tower: Predictor, index: ItemIndex, settings: export_pb2.ItemIndex
) -> Iterator[pa.RecordBatch]:
    """The loader's rows with `item_ids` and `scores` behind them, lists from the nearest item down."""
    import numpy as np

    from rec.data.catalogue import Catalogue

    catalogue = Catalogue([(index.ids, np.ones(len(index.ids)))]) if settings.seen_field else None
    for batch in loader.epoch(0):
        if batch.filler:
            continue
        users = tower.score(batch.features)["user_embedding"].numpy()
        without = None
        if catalogue is not None:
            without = seen(batch.rows, settings.seen_field, catalogue)
        scores, numbers = index.search(users, settings.top_k, without=without)
        yield with_scores(batch.rows, as_lists(index.ids, scores, numbers))


def seen(rows: pa.RecordBatch, column: str, catalogue) -> list[np.ndarray]:
    """Numbers of the items that each row had before."""
    import numpy as np

    from rec.data.catalogue import item_lists
    from rec.data.source import check_columns

    check_columns("the input", [column], rows.schema.names)
    pairs = catalogue.pairs(item_lists(rows.column(column)), users=rows.num_rows)[0]
    return np.split(pairs.items, np.cumsum(np.bincount(pairs.users, minlength=rows.num_rows))[:-1])


def as_lists(ids: pa.Array, scores: np.ndarray, numbers: np.ndarray) -> dict[str, pa.Array]:
    """Columns of lists, without what was not found."""
    import numpy as np
    import pyarrow as pa

    there = numbers >= 0
    offsets = pa.array(np.concatenate([[0], np.cumsum(there.sum(1))]).astype(np.int32))
    values = {"item_ids": ids.take(pa.array(numbers[there])), "scores": pa.array(scores[there])}
    return {name: pa.ListArray.from_arrays(offsets, column) for name, column in values.items()}
