"""GreedySVD: matrix factorisation, the user's vector re-fitted after each answer, the highest prediction recommended.

The paper "trains the singular value decomposition (SVD) model after each interaction and picks the item with highest
rating predicted". The items' side is fitted on the training users; one more user cannot move it much, so after each
interaction only the user's vector is fitted again (fold-in), by ridge regression on all answers of the episode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from harness.settings import Count, Positive
from sim.envs.policy import EXPECTED_REWARD, Policy, scoring_policy
from sim.envs.rating_env import Observation
from sim.tables.ratings import RatingData
from tpgr_jax.methods import AgentSettings, Method, RunContext, fitted_method
from tpgr_jax.models.kalman import KalmanState, predict
from tpgr_jax.models.matrix_factorisation import factorise
from tpgr_jax.models.reward_moments import mean_rewards, principal_axes, reward_matrix
from tpgr_jax.problem import Problem


@dataclass(frozen=True)
class GreedySVDConfig:
    """Settings (`conf/agent/greedy_svd.yaml`)."""

    target: Literal["rating", "reward"]
    factors: Count
    epochs: Count
    ridge: Positive


@dataclass(frozen=True)
class Settings(AgentSettings):
    """What `conf/agent/greedy_svd.yaml` holds."""

    policy: GreedySVDConfig


@flax.struct.dataclass
class GreedySVDParams:
    """The items' side of the factorisation, in units of the empirical reward.

    Attributes:
        base: [I] float32 prediction for a user of whom nothing is known.
        features: [I, K] float32 what the user's vector is multiplied with.
        ridge: float32 penalty on the user's vector.
        unrated_answers: bool; whether an answer of 0 is an observation. False: it means "not rated" and carries no
            rating (nor does an exactly neutral one, which the simulator answers with 0 too).
    """

    base: jax.Array
    features: jax.Array
    ridge: jax.Array
    unrated_answers: jax.Array


def fit_greedy_svd(
    config: GreedySVDConfig, data: RatingData, train_users: np.ndarray, reward_of_code: np.ndarray, seed: int
) -> GreedySVDParams:
    """Factorises what the training users answered.

    The target "rating" is the paper's: biased matrix factorisation (Koren, Bell and Volinsky 2009) of the ratings
    given. As rewards are linear in ratings, the highest predicted reward is the highest predicted rating. Like the
    highest average rating, it favours niche items that few users know. The target "reward" is the truncated singular
    value decomposition of the empirical rewards, not rated = 0.

    Args:
        data: Ratings of all users.
        train_users: [n] users to learn from, ascending.
        reward_of_code: [V + 1] empirical reward of each rating code.

    Raises:
        UserError: More factors of rewards than items.
    """
    if config.target == "reward":
        rewards = reward_matrix(data, train_users, reward_of_code)
        values, vectors = principal_axes(rewards, config.factors, True, seed)
        base, features = mean_rewards(rewards), vectors * np.sqrt(values)
    else:
        model = factorise(data, train_users, config.factors, config.epochs, seed)
        slope, offset = _reward_of_rating(data, reward_of_code)
        base = slope * (model["mean"] + model["item_bias"]) + offset
        features = np.concatenate([model["item_factors"], np.ones((data.num_items, 1))], axis=1)  # with a user bias
    return GreedySVDParams(
        jnp.asarray(base, jnp.float32),
        jnp.asarray(features, jnp.float32),
        jnp.float32(config.ridge),
        jnp.bool_(config.target == "reward"),
    )


def _reward_of_rating(data: RatingData, reward_of_code: np.ndarray) -> tuple[float, float]:
    """Returns slope and offset of the empirical reward as a function of the rating divided by the largest."""
    ratings, rewards = data.rating_values[1:] / data.rating_max, reward_of_code[1:]
    slope = (rewards[-1] - rewards[0]) / (ratings[-1] - ratings[0]) if len(ratings) > 1 else 1.0
    return slope, rewards[0] - slope * ratings[0]


def greedy_svd_policy() -> Policy:
    """Returns the policy whose parameters are `GreedySVDParams`; greedy whether it is to explore or not."""
    return scoring_policy(_initial_carry, _score, EXPECTED_REWARD)


def _initial_carry(params: GreedySVDParams, batch_size: int) -> KalmanState:
    return KalmanState.initial(jnp.zeros(params.features.shape[1]), 1 / params.ridge, batch_size)


def _score(params: GreedySVDParams, posterior: KalmanState, observation: Observation) -> tuple[KalmanState, jax.Array]:
    item, answer = jnp.maximum(observation.last_item, 0), observation.last_empirical
    observed = (observation.step > 0) & ((answer != 0) | params.unrated_answers)
    posterior, _ = posterior.update(params.features[item], answer - params.base[item], jnp.float32(1), observed)
    return posterior, params.base + predict(params.features, posterior.mean)


def build(problem: Problem, settings: Settings, run: RunContext) -> Method:
    """Builds the method (see `tpgr_jax.registry`)."""
    params = fit_greedy_svd(settings.policy, *problem.training_ratings, run.seed)
    return fitted_method(settings.result_name, greedy_svd_policy(), params)
