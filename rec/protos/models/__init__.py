"""Messages of the architectures, generated at build time from protos/models/*.proto."""
