"""Published tables again: `python -m tools.reproduce frappe --seeds 3` trains every model of the table.

A name for `python -m tools.experiment configs/experiments/<table>.textproto --runs experiments/reproduce`: runs that
are finished are not run again, so the command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from tools import experiment, runs

TABLES = ("frappe", "movielens")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a table from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.reproduce", description=__doc__.split("\n\n")[0])
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--seeds", type=int, default=3, help="runs per model, seeds 0, 1, ... (%(default)s)")
    parser.add_argument("--models", nargs="*", help="only these configs, e.g. deepfm dcn_v2")
    parser.add_argument("--runs", default="experiments/reproduce", help="folder of the runs (%(default)s)")
    given, rest = parser.parse_known_args(arguments)
    models = [f"{stem}_{given.table}" for stem in given.models or ()]
    return experiment.main(
        [
            str(runs.ROOT / "configs" / "experiments" / f"{given.table}.textproto"),
            *("--seeds", str(given.seeds)),
            *("--runs", given.runs),
            *(["--models", *models] if models else []),
            *("--command", shlex.join(["python", "-m", "tools.reproduce", given.table, "--seeds", str(given.seeds)])),
            *rest,
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
