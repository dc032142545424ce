"""Which source reads which `dataset_type`, and with which column types."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from rec.config.errors import ConfigError
from rec.config.names import listed, suggest
from rec.data.csv_source import CsvSource
from rec.data.encoder import Encoder
from rec.data.parquet_source import ParquetSource
from rec.data.source import Source, check_columns
from rec.protos import data_pb2

_SCALARS: dict[int, pa.DataType] = {
    data_pb2.INT32: pa.int32(),
    data_pb2.INT64: pa.int64(),
    data_pb2.STRING: pa.string(),
    data_pb2.FLOAT: pa.float32(),
    data_pb2.DOUBLE: pa.float64(),
}


def open_source(
    path: str,
    config: data_pb2.DataConfig,
    encoder: Encoder,
    *,
    columns: Sequence[str] | None,
    skip_bad: bool = False,
    csv_texts: Sequence[str] = (),
) -> Source:
    """Find and inspect the files of an input path.

    Args:
        path: see `rec.data.files.find_files`.
        config: `dataset_type`, `input_fields`, and how CSV is written.
        encoder: which columns are needed, and as what.
        columns: what to read; None for everything there is.
        skip_bad: leave out files that cannot be opened.
        csv_texts: columns that are texts in CSV whatever they look like: "7" in one row may be "7;8" in another.

    Raises:
        ConfigError: the config does not say how to read the files.
        DataError: nothing is there, or not what the encoder needs.
    """
    fields = input_fields(config)
    if config.dataset_type == data_pb2.ParquetDataset:
        types = {name: _SCALARS[kind] for name, kind in fields if kind in _SCALARS}
        source: Source = ParquetSource(path, columns, types=types, skip_bad=skip_bad)
    elif config.dataset_type == data_pb2.CsvDataset:
        texts = [(name, data_pb2.STRING) for name in csv_texts]
        source = _csv(path, config, encoder, fields, columns, skip_bad, texts)
    else:
        name = data_pb2.DatasetType.Name(config.dataset_type)
        raise ConfigError(
            f"dataset_type {name} is not available",
            config,
            "dataset_type",
            hint="use ParquetDataset or CsvDataset",
        )
    check_columns(source.files[0], encoder.columns, source.schema.names)
    return source


def input_fields(config: data_pb2.DataConfig) -> list[tuple[str, int | None]]:
    """Names and `FieldType`s (None: not said) of `input_fields` or `input_fields_str`.

    Raises:
        ConfigError: both are set, a name stands twice, or `input_fields_str` cannot be read.
    """
    fields: list[tuple[str, int | None]] = [
        (f.input_name, f.input_type if f.HasField("input_type") else None) for f in config.input_fields
    ]
    if config.input_fields_str:
        if fields:
            raise ConfigError("input_fields and input_fields_str are both set", config, "input_fields_str")
        for part in filter(None, (part.strip() for part in config.input_fields_str.split(";"))):
            name, _, kind = part.partition(":")
            types = dict(data_pb2.FieldType.items())
            if kind and kind not in types:
                raise ConfigError(
                    f'"{kind}" is no type of a column', config, "input_fields_str", hint=suggest(kind, types)
                )
            fields.append((name.strip(), types[kind] if kind else None))
    names = [name for name, _ in fields]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f'column "{twice}" stands {names.count(twice)} times', config, "input_fields")
    return fields


def _csv(
    path: str,
    config: data_pb2.DataConfig,
    encoder: Encoder,
    fields: list[tuple[str, int | None]],
    columns: Sequence[str] | None,
    skip_bad: bool,
    texts: Sequence[tuple[str, int]],
) -> CsvSource:
    if len(config.delimiter.encode()) != 1:
        raise ConfigError(
            f"the delimiter {config.delimiter!r} is not one character", config, "delimiter", hint='e.g. "," or "\\t"'
        )
    if not config.with_header and not fields:
        raise ConfigError(
            "a CSV file without a header needs the names of its columns",
            config,
            "with_header",
            hint="set with_header: true, or list all columns in input_fields",
        )
    names = [] if config.with_header else [name for name, _ in fields]
    missing = [column for column in encoder.columns if names and column not in names]
    if missing:
        raise ConfigError(
            f"input_fields does not name {listed(missing)}, which features, labels or weights need",
            config,
            "input_fields",
        )
    types = _needed_types(encoder)
    # Lists and maps come as text in CSV; the encoder splits them.
    types |= {name: _SCALARS.get(kind, pa.string()) for name, kind in [*fields, *texts] if kind is not None}
    return CsvSource(path, columns, names=names, types=types, delimiter=config.delimiter, skip_bad=skip_bad)


def _needed_types(encoder: Encoder) -> dict[str, pa.DataType]:
    """Types by what reads the columns: a guess from the first lines could be wrong later."""
    types = {field.name: field.type for field in encoder.request_schema()}
    types = {name: pa.string() if pa.types.is_nested(kind) else kind for name, kind in types.items()}
    return types | dict.fromkeys([*encoder.label_fields, *encoder.weight_fields], pa.float64())
