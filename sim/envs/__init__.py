"""Environments, policies without learning, and the rollout."""
