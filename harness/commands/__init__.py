"""How commands start, read their words, and fail."""
