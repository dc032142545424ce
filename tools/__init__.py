"""Tools beside the package: converters, generators, the quickstart, result tables. Run from the tree."""
