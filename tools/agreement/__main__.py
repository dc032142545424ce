"""Compare layers with other people's code: `python -m tools.agreement [mamba ...]` prints a table.

Every other module of this folder has `checks()`. The packages compared with have to be on the path, and are no
requirement of ours. `--output docs/results/agreement.md` writes the page.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from tools.tables import markdown

PAGE = """# Agreement with other implementations

The same weights and inputs through our layers and through other people's code. Output: largest difference. Gradient:
largest difference of a gradient (of all parameters and inputs), over the largest number of that gradient. Histories
have different lengths, some none. Made by `python -m tools.agreement --output docs/results/agreement.md` with mambapy,
transformers, fuxictr, MMSA and checkouts of github.com/reczoo/FuxiCTR and github.com/salmon1802/FCN on the path; golden
tests (tests/modules) hold numbers of theirs.

- FuxiCTR's DIN with Dice is compared at evaluation: in training its batch norm counts padding, ours valid steps only.
- FuxiCTR pads in front here, and its positions are turned round: ours count the steps to the target. What it makes of
  padding with CONCAT is left out (ours are zeros).
- mambapy and transformers take A_log and D to float32 whatever the dtype, so float64 agrees to float32's precision.
- MMSA's softmax is in float32 whatever the dtype. Its rows are of one length here: it has no padding mask.

"""
HEADER = ["layer", "reference", "sizes", "output", "gradient, relative"]


def main() -> None:
    """Print the table, and with --golden the numbers that tests hold."""
    known = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("layers", nargs="*", choices=[*known, []], help="default: all")
    parser.add_argument("--golden", action="store_true", help="print the outcomes that golden tests hold")
    parser.add_argument("--output", type=Path, help="write the page here")
    args = parser.parse_args()
    found = [row for name in args.layers or known for row in import_module(f"tools.agreement.{name}").checks()]
    rows = [[row.layer, row.reference, row.shape, f"{row.output:.1e}", f"{row.gradient:.1e}"] for row in found]
    print(markdown(HEADER, rows))
    if args.output:
        args.output.write_text(PAGE + markdown(HEADER, rows) + "\n")
    if args.golden:
        for row in found:
            print(row.layer, row.reference, row.shape, [float(f"{x:.12g}") for x in row.outcome])


if __name__ == "__main__":
    main()
