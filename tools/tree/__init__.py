"""Trees over the items of a catalogue, for tree-based models: `python -m tools.tree build`."""
