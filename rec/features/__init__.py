"""Features: columns of Arrow record batches to ids and values. Imports no torch."""

from rec.features.base import FEATURES, Encoded, Feature, Scope, TableSpec
from rec.features.build import build_features

__all__ = ["FEATURES", "Encoded", "Feature", "Scope", "TableSpec", "build_features"]
