"""Agents with nothing to train: random items, fixed lists, and oracles that know the users."""
