"""Compare layers with other people's code: `python -m tools.agreement [mamba ...]` prints a table.

Every other module of this folder has `checks()`. The packages compared with have to be on the path, and are no
requirement of ours.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from tools.tables import markdown

HEADER = ["layer", "reference", "sizes", "output", "gradient, relative"]


def main() -> None:
    """Print the table, and with --golden the numbers that tests hold."""
    known = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("layers", nargs="*", choices=[*known, []], help="default: all")
    parser.add_argument("--golden", action="store_true", help="print the outcomes that golden tests hold")
    args = parser.parse_args()
    found = [row for name in args.layers or known for row in import_module(f"tools.agreement.{name}").checks()]
    print(
        markdown(
            HEADER, [[row.layer, row.reference, row.shape, f"{row.output:.1e}", f"{row.gradient:.1e}"] for row in found]
        )
    )
    if args.golden:
        for row in found:
            print(row.layer, row.reference, row.shape, [float(f"{x:.12g}") for x in row.outcome])


if __name__ == "__main__":
    main()
