"""ProtoRec: a declarative, protobuf-configured recommender model zoo."""

__version__ = "0.1.0"
