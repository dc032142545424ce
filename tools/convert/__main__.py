"""`python -m tools.convert <dataset> --input <path> --output <folder>`: one subcommand per dataset."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rec.config.errors import DataError
from tools.convert import (
    avazu,
    criteo,
    frappe,
    gowalla,
    mosei,
    mosi,
    movielens,
    movielens_history,
    next_item,
    taobao_ad,
)
from tools.fetch import ML_1M, ML_100K, download


@dataclass(frozen=True)
class Dataset:
    """A subcommand. Its options are the keyword arguments of `convert`.

    Attributes:
        convert: (path, output, **options) -> info.
        help: what to give.
        downloads: MovieLens is downloaded where --input is left out.
    """

    convert: Callable[..., dict]
    help: str
    downloads: bool = False


DATASETS = {
    "movielens": Dataset(movielens.convert, "MovieLens-1M as a click-through task; downloaded without --input", True),
    "movielens_history": Dataset(
        movielens_history.convert, "MovieLens-1M clicks with the history before each, split by time; downloaded", True
    ),
    "frappe": Dataset(frappe.convert, "Frappe_x1: a folder with train, valid and test .csv(.gz)"),
    "criteo": Dataset(criteo.convert, "Criteo: train.txt, or a folder with train, valid and test .csv"),
    "avazu": Dataset(avazu.convert, "Avazu: train or train.gz, or a folder with train, valid and test .csv"),
    "taobao_ad": Dataset(
        taobao_ad.convert, f"Taobao Ad Display/Click: a folder with {', '.join(taobao_ad.FILES)} (or .gz)"
    ),
    "next_item": Dataset(
        next_item.convert, "the next item of each user: lines of user item item ..., or MovieLens-1M, downloaded", True
    ),
    "mosei": Dataset(mosei.convert, "CMU-MOSI or CMU-MOSEI in the layout of MMSA or MulT: a .pkl or .npz file"),
    "mosi": Dataset(mosi.convert, "CMU-MOSI by utterance, with those before it: mosi_utterance.npz, or its folder"),
    "gowalla": Dataset(gowalla.convert, "Gowalla in LightGCN's split: a folder with train.txt(.gz) and test.txt(.gz)"),
}
# What the options mean, wherever they are; defaults are those of `convert`.
OPTIONS: dict[str, dict[str, Any]] = {
    "buckets": {"help": "parts of the join; more need less memory"},
    "histories": {
        "help": "of training rows: half of the user's items, the same as in the test, or the others",
        "choices": gowalla.HISTORIES,
    },
    "history": {"help": "which ratings: of 4-5, or all", "choices": movielens_history.HISTORIES},
    "latest": {"help": "of prefixes, the most rows of a user, the latest; 0: all"},
    "length": {"help": "longest history"},
    "max_wrong": {"help": "largest share of wrong rows of a file"},
    "min_count": {"help": "what comes less often is unknown (id 0) or, for next_item, left out"},
    "rows": {"help": "of training: one for a user, or for each prefix of its items", "choices": next_item.ROWS},
    "seed": {"help": "of random splits and orders"},
    "tags": {"help": "behaviours of the history", "choices": taobao_ad.TAGS, "nargs": "+"},
    "valid_share": {"help": "of training rows (of mosi, videos) held out for validation"},
}


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    command = argparse.ArgumentParser(prog="python -m tools.convert", description="Public datasets to parquet.")
    datasets = command.add_subparsers(dest="dataset", required=True)
    for name, dataset in DATASETS.items():
        one = datasets.add_parser(name, help=dataset.help, description=dataset.help)
        one.add_argument("--input", required=not dataset.downloads, help="file or folder of the data as published")
        one.add_argument("--output", default=f"data/{name}", help="folder of the parquet files (%(default)s)")
        for option, default in _defaults(dataset.convert).items():
            settings = OPTIONS[option] | {"help": f"{OPTIONS[option]['help']} (%(default)s)", "default": default}
            if "choices" not in settings:
                settings["type"] = type(default)
            one.add_argument(f"--{option}", **settings)
        if dataset.downloads:
            one.add_argument("--small", action="store_true", help="MovieLens-100K instead when downloading")
    return command


def _defaults(convert: Callable[..., dict]) -> dict[str, Any]:
    parameters = inspect.signature(convert).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert; returns the exit code, 3 when the data is missing or wrong."""
    given = vars(parser().parse_args(arguments))
    dataset, path, output = DATASETS[given.pop("dataset")], given.pop("input"), given.pop("output")
    small = given.pop("small", False)
    try:
        if path is None:
            path = download(ML_100K if small else ML_1M)
        info = dataset.convert(path, output, **given)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    print(json.dumps(info, indent=1))
    print(f"written to {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
