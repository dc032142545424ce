"""Converters of public datasets to parquet: `python -m tools.convert <dataset> --output <folder>`."""
