"""Functions for agent=python in tests of commands."""


def smallest_new_id(history):
    """The smallest id, from 0, that is not in the history."""
    seen = {item for item, _ in history}
    return next(item for item in range(len(history) + 1) if item not in seen)
