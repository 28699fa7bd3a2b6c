"""Recommenders on the small rating problem, to be exported."""

import numpy as np
from bandit_methods import METHODS, build

from sim.recommend.recommender import Recommender
from tpgr_jax.recommender import RatingSystem


def recommender_of(name: str) -> Recommender:
    """The recommender of a method, whose items are called "item 0" and so on."""
    problem, method, params = build(METHODS[name])
    system = RatingSystem(problem, method, params, problem.env)
    return Recommender(system, np.array([f"item {i}" for i in problem.data.item_ids]), "run")
