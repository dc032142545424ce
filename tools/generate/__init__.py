"""Generated data whose best possible metrics are known: `python -m tools.generate <kind> --output <folder>`."""
