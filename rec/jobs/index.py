"""--mode index: the exported item tower over the item file -> <model_dir>/index."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rec.assemble import Job
from rec.config.errors import ConfigError, DataError
from rec.config.load import Loaded
from rec.data.catalogue import Catalogue, Categories
from rec.data.item_file import Span
from rec.export import layout
from rec.jobs.files import write_json
from rec.jobs.text import size, table
from rec.protos.model_pb2 import DEEP
from rec.world import World

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from rec.serve import Predictor

log = logging.getLogger(__name__)

# Rows of eval_input_path that are searched for, to compare with the exact answer.
QUERIES = 1000
# Leaves that are looked up at once.
LEAVES = 65536
FOLDER = "index"


def run(loaded: Loaded, args: argparse.Namespace, world: World) -> None:
    """Writes vectors and index of all items; prints how well and how fast it finds."""
    job = Job(loaded, world, "cpu")
    if world.size > 1:
        raise ConfigError("--mode index runs in one process", hint="start it without torchrun")
    if job.tree is not None:
        write_leaves(job, args)
        return
    if job.retrieval is None:
        raise ConfigError("--mode index is for retrieval models", job.config.model_config, hint="use dssm, for example")
    file = job.retrieval.catalogue_file()

    from rec.serve import Predictor
    from rec.serve import index as item_index

    item_index.faiss()  # before the vectors are made
    export = Path(args.export_dir) if args.export_dir else job.model_dir / "export"
    user, item = (Predictor(export / side) for side in ("user", "item"))

    settings = job.config.export_config.index
    categories = Categories(settings.diversity.category_field)

    ids = job.retrieval.id_type()
    known: list[tuple[pa.Array, np.ndarray]] = []
    spans: list[Span] = []

    def pieces() -> Iterator[tuple[pa.Array, np.ndarray]]:
        for items in categories.of(file.items(ids)) if settings.HasField("diversity") else file.items(ids):
            known.append((items.ids, items.weights))
            spans.append(items.span)
            try:
                yield items.ids, item.predict(items.rows)["item_embedding"]
            except DataError as error:
                raise items.place.error(error.row or 0, error.text, error.column) from error

    folder = job.model_dir / FOLDER
    with layout.replacing(folder) as fresh:
        vectors = item_index.write_vectors(fresh / item_index.ITEMS, pieces())
        Catalogue(known, spans=spans)  # refuses an item that stands there twice
        if settings.HasField("diversity"):
            item_index.write_categories(fresh / item_index.CATEGORIES, categories.keys)
        began = time.perf_counter()
        built = item_index.build(vectors, settings)
        seconds = time.perf_counter() - began
        item_index.faiss().write_index(built, str(fresh / item_index.INDEX))
        about = {
            "kind": settings.WhichOneof("kind") or "flat",
            "items": len(vectors),
            "dimension": vectors.shape[1],
            "step": item.manifest["step"],
            "user_tower": mark(user),
            "build_seconds": round(seconds, 3),
            "bytes": (fresh / item_index.INDEX).stat().st_size,
        }
        measured = compare(built, vectors, users(job, user), settings.top_k)
        write_json(fresh / item_index.MANIFEST, about | measured)
    print(f"{about['items']:,} items of step {about['step']}, {about['kind']}, {size(about['bytes'])} in {folder}")
    if measured:
        header = ("index", f"recall at {measured['top_k']} beside flat", "queries a second")
        rows = [("flat", 1.0, round(measured["flat_queries_per_second"]))]
        rows += [(about["kind"], measured["recall"], round(measured["queries_per_second"]))] * (about["kind"] != "flat")
        print(table(header, rows))


def mark(tower: Predictor) -> str:
    """What an export has in common with one of the same weights alone: its answer to the golden request."""
    return tower.manifest["files"][layout.GOLDEN_ANSWER]["sha256"]


def write_leaves(job: Job, args: argparse.Namespace) -> None:
    """Vectors of the leaves of a tree, by a checkpoint: of them `tools.tree build --vectors` builds the next tree."""
    import torch

    from rec.data.batch import Batch
    from rec.jobs.restore import restored
    from rec.serve.index import ITEMS, write_vectors
    from rec.train.vectors import no_rows

    assert job.tree is not None
    index, (ids, leaves) = job.tree, job.tree.leaf_ids()
    network, checkpoint = restored(job, args)
    nobody = {name: tensor for f in index.user_features if not f.stub for name, tensor in no_rows(f).items()}
    group = next(g.group_name for g in job.config.model_config.feature_groups if g.group_type != DEEP)

    def pieces() -> Iterator[tuple[pa.Array, np.ndarray]]:
        for first in range(0, len(leaves), LEAVES):
            arrays = index.tree.table.features(leaves[first : first + LEAVES])
            nodes = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
            with torch.no_grad():
                groups = network.embedding(Batch(nobody | nodes).features)
            yield ids.slice(first, LEAVES), groups[f"{group}.query"].numpy()

    folder = job.model_dir / FOLDER
    with layout.replacing(folder) as fresh:
        vectors = write_vectors(fresh / ITEMS, pieces())
        about = {"kind": "leaves", "items": len(vectors), "dimension": vectors.shape[1], "step": checkpoint.step}
        write_json(fresh / "manifest.json", about)
    print(f"vectors of {len(vectors):,} leaves of step {checkpoint.step} in {folder}")


def users(job: Job, tower: Predictor) -> np.ndarray | None:
    """Vectors of some users, or None where the data is gone."""
    try:
        rows = job.rows(job.config.eval_input_path, QUERIES)
    except DataError as error:
        log.warning("no users to measure the index with: %s", error)
        return None
    return tower.predict(rows.select(tower.schema.names))["user_embedding"]


def compare(index: Any, vectors: np.ndarray, users: np.ndarray | None, k: int) -> dict[str, Any]:
    """Recall and speed of an index beside the exact one."""
    if users is None:
        return {}
    from rec.protos import export_pb2
    from rec.serve.index import agreement, build, search

    found = {}
    for name, one in (("flat", build(vectors, export_pb2.ItemIndex())), ("index", index)):
        began = time.perf_counter()
        numbers = search(one, users, k)[1]
        found[name] = numbers, len(users) / (time.perf_counter() - began)
    return {
        "top_k": k,
        "queries": len(users),
        "recall": agreement(found["index"][0], found["flat"][0]),
        "queries_per_second": found["index"][1],
        "flat_queries_per_second": found["flat"][1],
    }
