"""Layers: torch only. They know no protobuf and no torchrec, so they run anywhere PyTorch does."""
