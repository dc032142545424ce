"""Speed beside peers and limits: `python -m benchmarks.run`. Run from the tree."""
