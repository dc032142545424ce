"""Features of one tower of a retrieval model."""

from __future__ import annotations

from collections.abc import Sequence

from rec.config.towers import towers_of
from rec.features.base import Feature
from rec.features.build import encoding_order, sources
from rec.protos import model_pb2


def tower_features(features: Sequence[Feature], model_config: model_pb2.ModelConfig, side: str) -> list[Feature]:
    """Features that a tower reads, in the order of encoding, with those whose output they read.

    Args:
        features: all features.
        model_config: of a model with two towers.
        side: "user" or "item".
    """
    towers = towers_of(model_config)
    assert towers is not None
    by_name = {f.name: f for f in features}
    wanted = [name for name in towers.features(model_config, side) if name in by_name]
    for name in wanted:  # grows
        wanted += [source for source in sources(by_name[name]) if source not in wanted]
    return [f for f in encoding_order(list(features)) if f.name in wanted]
