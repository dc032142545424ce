"""Messages of a .config file, generated at build time from protos/*.proto."""
