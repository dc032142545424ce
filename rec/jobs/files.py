"""Files that are never seen half written: written aside, then renamed."""

from __future__ import annotations

import json
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def write_json(path: Path, values: object) -> None:
    """Write values as JSON."""
    write_text(path, json.dumps(values, indent=2) + "\n")
