"""`python -m tools.generate <kind> --output <folder>`: one subcommand per kind of generated data."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from tools.generate import clicks, multimodal, sequences, towers

KINDS = {
    "clicks": (clicks, "data/planted"),
    "sequences": (sequences, "data/planted_sequences"),
    "multimodal": (multimodal, "data/planted_multimodal"),
    "towers": (towers, "data/planted_towers"),
}


def parser() -> argparse.ArgumentParser:
    """Arguments of the command: the fields of each kind's Plan."""
    command = argparse.ArgumentParser(
        prog="python -m tools.generate", description="Data of which the best possible result is known."
    )
    kinds = command.add_subparsers(dest="kind", required=True)
    for name, (module, folder) in KINDS.items():
        first, _, rest = (module.__doc__ or "").partition("\n\n")
        one = kinds.add_parser(
            name, help=first, description=f"{first}\n\n{rest}", formatter_class=argparse.RawDescriptionHelpFormatter
        )
        one.add_argument("--output", default=folder, help="folder of the parquet files (%(default)s)")
        for field in dataclasses.fields(module.Plan):
            one.add_argument(f"--{field.name}", **_argument(field))
    return command


def _argument(field: dataclasses.Field) -> dict[str, Any]:
    text = f"{field.metadata['help']} (%(default)s)"
    if isinstance(field.default, bool):
        return {"action": "store_true", "help": field.metadata["help"]}
    if isinstance(field.default, tuple):
        return {"type": int, "nargs": "*", "default": field.default, "help": text}
    return {"type": type(field.default), "default": field.default, "help": text}


def main(arguments: Sequence[str] | None = None) -> int:
    """Generate from the command line; exit code 2 for sizes that do not go together."""
    command = parser()
    given = vars(command.parse_args(arguments))
    module, _ = KINDS[given.pop("kind")]
    output = given.pop("output")
    try:
        plan = module.Plan(
            **{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        )
    except ValueError as error:
        command.error(str(error))
    print(json.dumps(module.generate(plan, output), indent=1))
    print(f"written to {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
