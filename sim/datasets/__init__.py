"""Data sets by name: which files, which reader, which settings."""
