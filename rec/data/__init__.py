"""From files to batches: sources, the encoder, worker processes, the loader, and the writer of predictions."""
