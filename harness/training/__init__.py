"""The outer training loop and what every learner shares."""
