"""Environments, the policies that need no learning, and the one rollout."""
