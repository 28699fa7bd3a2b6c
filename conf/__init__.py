"""Hydra configuration files; found by their place beside `harness`."""
