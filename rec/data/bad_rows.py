"""What happens to rows and files that cannot be read: stop, or leave out and count."""

from __future__ import annotations

from dataclasses import dataclass, field

from rec.config.errors import DataError

# Examples kept for the report.
MAX_EXAMPLES = 5


@dataclass
class Skipped:
    """Rows and files left out under `bad_rows: SKIP`.

    Attributes:
        rows: rows left out, of damaged row groups too.
        files: files that could not be opened; how many rows they held is not known.
        examples: the first few, as an error would have said it.
    """

    rows: int = 0
    files: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, error: DataError, *, rows: int = 1) -> None:
        self.rows += rows
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(str(error))

    def merge(self, other: Skipped) -> None:
        self.rows += other.rows
        self.files += other.files
        self.examples = (self.examples + other.examples)[:MAX_EXAMPLES]

    def __bool__(self) -> bool:
        return bool(self.rows or self.files)

    def __str__(self) -> str:
        parts = [f"{self.rows:,} bad rows"] if self.rows else []
        if self.files:
            parts.append(f"{self.files} damaged files")
        examples = "".join(f"\n  {example}" for example in self.examples)
        return f"{' and '.join(parts) or 'nothing'} left out{examples}"
