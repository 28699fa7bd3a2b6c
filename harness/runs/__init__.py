"""The run folder: configuration, provenance, metrics, checkpoints."""
