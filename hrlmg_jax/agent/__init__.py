"""The two-level actor-critic: networks, goals, replay rows, learner."""
