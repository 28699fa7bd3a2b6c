"""Tuning: studies of Optuna whose trials are runs of a training command."""
