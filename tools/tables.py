"""Plain tables: for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence

Cell = str | float | int | None


def text(cell: Cell, digits: int = 4) -> str:
    """A cell as text: numbers with `digits` decimals, None as a dash."""
    if cell is None:
        return "-"
    return f"{cell:.{digits}f}" if isinstance(cell, float) else str(cell)


def plain(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Columns padded with spaces, the first to the left, the others to the right."""
    cells = [list(header), *([text(cell) for cell in row] for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(header))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0])] + [value.rjust(width) for value, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in cells
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(line.rstrip() for line in lines)


def markdown(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(header)} |", f"|---|{'---:|' * (len(header) - 1)}"]
    lines += [f"| {' | '.join(text(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)
