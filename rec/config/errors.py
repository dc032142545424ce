"""The two errors a user can cause: a wrong config and wrong data. `rec.main` maps them to exit codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.message import Message


class ConfigError(Exception):
    """The config is wrong (exit code 2).

    Args:
        text: what is there and what was expected.
        message: the proto message at fault; `Loaded.describe` finds its place in the file by identity.
        field: name of the field of `message` at fault. A field that is not set points to the message.
        index: which element, when `field` is repeated.
        hint: what would do, as an instruction.
        where: "file:line:col" when it is known already.
    """

    def __init__(
        self,
        text: str,
        message: Message | None = None,
        field: str | None = None,
        *,
        index: int | None = None,
        hint: str | None = None,
        where: str | None = None,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.message = message
        self.field = field
        self.index = index
        self.hint = hint
        self.where = where

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{place}{self.text}{hint}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Across processes only the words survive: a message has its place by identity.
        return _config_error, (self.text, self.field, self.index, self.hint, self.where)


def _config_error(text: str, field: str | None, index: int | None, hint: str | None, where: str | None) -> ConfigError:
    return ConfigError(text, None, field, index=index, hint=hint, where=where)


class DataError(Exception):
    """Data is missing or wrong (exit code 3).

    Args:
        text: what is wrong and what would do.
        file: path of the file at fault.
        row: number of the row in it, from 0.
        column: name of the column at fault.
    """

    def __init__(
        self,
        text: str,
        *,
        file: str | None = None,
        row: int | None = None,
        column: str | None = None,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.file = file
        self.row = row
        self.column = column

    def __str__(self) -> str:
        parts = [str(self.file)] if self.file is not None else []
        if self.row is not None:
            parts.append(f"row {self.row}")
        if self.column is not None:
            parts.append(f'column "{self.column}"')
        return f"{', '.join(parts)}: {self.text}" if parts else self.text

    def __reduce__(self) -> tuple[Any, ...]:
        return _data_error, (self.text, self.file, self.row, self.column)


def _data_error(text: str, file: str | None, row: int | None, column: str | None) -> DataError:
    return DataError(text, file=file, row=row, column=column)
