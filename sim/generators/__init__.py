"""Synthetic ratings and logs with a known truth."""
