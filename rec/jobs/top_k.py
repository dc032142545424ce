"""--mode top_k: metrics of a retrieval model's checkpoint against its whole item file."""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rec.assemble import Job
from rec.config.errors import ConfigError
from rec.config.load import Loaded
from rec.data.catalogue import Catalogue, Categories, Users
from rec.data.encoder import Encoder
from rec.data.sources import open_source
from rec.features.towers import tower_features
from rec.jobs.files import write_json
from rec.jobs.restore import restored
from rec.jobs.text import table
from rec.world import World

if TYPE_CHECKING:
    import numpy as np

    from rec.metrics.catalogue import TopKReport
    from rec.network import Network
    from rec.protos.models import tdm_pb2
    from rec.protos.pipeline_pb2 import EasyRecConfig
    from rec.train.top_k import Scorer

log = logging.getLogger(__name__)

# The Ks where the config names none.
TOP_K = (10, 20, 50, 100)
# How many times as many nodes as items are asked for stay in a beam, where the config does not say.
WIDER = 2


def run(loaded: Loaded, args: argparse.Namespace, world: World) -> None:
    """Measures on --input or the path of eval_config.top_k; prints and writes <model_dir>/top_k.json."""
    job = Job(loaded, world, args.device)
    config = job.config
    if not config.eval_config.HasField("top_k"):
        raise ConfigError(
            "--mode top_k needs to know what users should find",
            config,
            hint='set eval_config { top_k { relevant_field: "item_ids" } }',
        )
    if world.size > 1:
        raise ConfigError("--mode top_k runs in one process", hint="start it without torchrun")
    settings = config.eval_config.top_k
    path = args.input or users_path(config)
    users = open_users(job, path)
    top_k = list(settings.top_k) or list(TOP_K)
    # Item files are read before torch is loaded: what is wrong with them shows in a second.
    ranked = TreeRanking(job, top_k) if job.tree is not None else TowerRanking(job, users)
    ema = config.eval_config.use_dense_ema if config.eval_config.HasField("use_dense_ema") else None
    network, checkpoint = restored(job, args, ema=ema)

    from rec.train.top_k import measure

    catalogue, scorer = ranked.scorer(network)
    diverse = None
    if settings.HasField("diversity"):
        from rec.train.diverse import DiverseLists

        wanted = settings.diversity
        assert isinstance(ranked, TowerRanking)
        diverse = DiverseLists(ranked.categories(), weight=wanted.weight, candidates=wanted.candidates, top_k=top_k)
    began = time.perf_counter()
    report = measure(
        scorer,
        users,
        catalogue,
        top_k=top_k,
        filter_seen=settings.filter_seen,
        sampled=settings.sampled_negatives,
        seed=settings.seed,
        diverse=diverse,
    )
    seconds = time.perf_counter() - began
    if settings.sampled_negatives >= len(catalogue):
        log.warning(
            "sampled_negatives is %d, but there are %d items: the metrics called sampled%d are among fewer",
            settings.sampled_negatives,
            len(catalogue),
            settings.sampled_negatives,
        )
    about = {
        "input": path,
        "step": checkpoint.step,
        "items": len(catalogue),
        "seen": ("left out" if settings.filter_seen else "kept") if settings.seen_field else "not known",
        "users_per_second": round((report.users + report.idle) / seconds),
        **ranked.about,
    }
    write_json(job.model_dir / "top_k.json", as_json(report, about))
    print(as_text(report, about))


class TowerRanking:
    """All items by the vectors of two towers."""

    def __init__(self, job: Job, users: Users) -> None:
        assert job.retrieval is not None
        self.job, self.users, self.file = job, users, job.retrieval.catalogue_file()
        self.about: dict[str, Any] = {}
        self._categories = Categories(job.config.eval_config.top_k.diversity.category_field)

    def categories(self) -> np.ndarray:
        """Category of each item, int64 [V], once there is a scorer."""
        return self._categories.keys

    def scorer(self, network: Network) -> tuple[Catalogue, Scorer]:
        """Items, and their scores for blocks of users."""
        from rec.train.top_k import item_vectors, two_towers
        from rec.train.vectors import TowerVectors

        job = self.job
        user, item = (
            TowerVectors(network, job.features, job.config.model_config, side, device=job.device)
            for side in ("user", "item")
        )
        items = self.file.items(self.users.id_type)
        if job.config.eval_config.top_k.HasField("diversity"):
            items = self._categories.of(items)
        catalogue, vectors = item_vectors(item, items)
        return catalogue, two_towers(user, vectors)


class TreeRanking:
    """The items that a beam search down the tree comes to."""

    def __init__(self, job: Job, top_k: Sequence[int]) -> None:
        assert job.tree is not None
        self.job, self.index = job, job.tree
        self.catalogue, self.numbers = job.tree.catalogue()
        self.beam = beam_of(job.config.model_config.tdm.search, max(top_k))
        self.about: dict[str, Any] = {"beam": self.beam}

    def scorer(self, network: Network) -> tuple[Catalogue, Scorer]:
        """Items, and their scores for blocks of users."""
        from rec.train.tree_search import TreeSearch, tree_scorer

        encoder = Encoder(self.index.user_features)
        search = TreeSearch(self.index.tree, network, encoder, beam=self.beam, device=self.job.device)
        return self.catalogue, tree_scorer(search, self.catalogue, self.numbers)


def beam_of(search: tdm_pb2.TreeSearch, items: int) -> int:
    """Nodes that stay in a beam when so many items are asked for."""
    return search.beam_size or WIDER * items


def users_path(config: EasyRecConfig) -> str:
    """Where the config says that users are."""
    return config.eval_config.top_k.input_path or config.test_input_path or config.eval_input_path


def open_users(job: Job, path: str) -> Users:
    """The users of a path, with the columns that the user's features and `eval_config.top_k` name."""
    config, settings = job.config, job.config.eval_config.top_k
    tree = job.tree
    encoder = Encoder(
        tree.user_features if tree is not None else tower_features(job.features, config.model_config, "user")
    )
    columns = [*encoder.columns, settings.relevant_field, settings.seen_field]
    label = next(iter(config.data_config.label_fields), "")
    if label not in open_source(path, config.data_config, encoder, columns=None).schema.names:
        label = ""
    columns = [name for name in dict.fromkeys([*columns, label]) if name]
    delimiter = config.model_config.retrieval.id_delimiter
    texts = (settings.relevant_field, settings.seen_field) if delimiter else ()
    source = open_source(path, config.data_config, encoder, columns=columns, csv_texts=texts)
    relevant, seen = settings.relevant_field, settings.seen_field
    return Users(source, path, relevant=relevant, seen=seen, label=label, delimiter=delimiter)


def as_json(report: TopKReport, about: Mapping[str, Any]) -> dict[str, Any]:
    """What is written: values that are not defined are null."""

    def known(values: Mapping[str, float]) -> dict[str, float | None]:
        return {name: None if math.isnan(value) else value for name, value in values.items()}

    return {
        **about,
        "users": report.users,
        "users_without_relevant": report.idle,
        "relevant": report.relevant,
        "relevant_not_in_item_file": report.unknown,
        "metrics": known(report.metrics),
        "groups": {name: known(values) for name, values in report.groups.items()},
    }


def as_text(report: TopKReport, about: Mapping[str, Any]) -> str:
    """What is printed: a line for each K, then groups of items and users."""
    kinds: dict[str, dict[int, float]] = {}
    for name, value in report.metrics.items():
        kind, _, k = name.rpartition("_at_")
        kinds.setdefault(kind, {})[int(k)] = value
    ks = sorted({k for values in kinds.values() for k in values})
    lines = [
        f"step {about['step']:,}: {report.users:,} users, {report.relevant:,} relevant items, {about['items']:,} items "
        f"ranked, seen ones {about['seen']}",
        table(["K", *kinds], [[k, *(values.get(k, "-") for values in kinds.values())] for k in ks]),
    ]
    if report.unknown:
        lines.append(f"{report.unknown:,} relevant items are not in the item file: they count as misses")
    if report.idle:
        lines.append(f"{report.idle:,} users have no relevant item and are in no metric")
    if report.groups:
        header = ["recall of", "items", "users", "relevant", *(f"at {k}" for k in ks)]
        lines.append("")
        lines.append(table(header, [_group(name, values, ks) for name, values in report.groups.items()]))
    return "\n".join(lines)


def _group(name: str, values: Mapping[str, float], ks: list[int]) -> list[object]:
    recall = [values[f"recall_at_{k}"] for k in ks]
    shown = ["-" if math.isnan(value) else value for value in recall]
    return [name, values.get("items", "-"), values.get("users", "-"), values["relevant"], *shown]
