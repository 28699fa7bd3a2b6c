"""Hydra configuration files; found as `pkg://conf`."""
