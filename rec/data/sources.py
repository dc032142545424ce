"""Which source reads which `dataset_type`."""

from __future__ import annotations

from collections.abc import Sequence

from rec.config.errors import ConfigError
from rec.data.parquet import ParquetSource
from rec.data.source import Source, check_columns
from rec.protos import data_pb2


def open_source(
    path: str,
    config: data_pb2.DataConfig,
    columns: Sequence[str] | None,
    *,
    needed: Sequence[str] = (),
    skip_bad: bool = False,
) -> Source:
    """Find and inspect the files of an input path.

    Args:
        path: see `rec.data.files.find_files`.
        config: `dataset_type` and how CSV is written.
        columns: what to read; None for everything there is.
        needed: columns that must be there even when `columns` is None.
        skip_bad: leave out files that cannot be opened.
    """
    if config.dataset_type == data_pb2.ParquetDataset:
        source: Source = ParquetSource(path, columns, skip_bad=skip_bad)
    else:
        name = data_pb2.DatasetType.Name(config.dataset_type)
        raise ConfigError(
            f"dataset_type {name} is not available",
            config,
            "dataset_type",
            hint="use ParquetDataset or CsvDataset",
        )
    check_columns(source.files[0], needed, source.schema.names)
    return source
