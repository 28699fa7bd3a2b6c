"""What a policy would have earned from the users of the log, by off-policy estimates (`sim.evaluation.off_policy`).

The policy decides along logged sessions: before each recommendation it sees what was shown and answered so far, as the
log has it, and the probability with which it would show what was shown next is divided by the shop's. A policy that
decides without chance has the probability 1 for its choice and 0 for all else, softened by a share of uniformly drawn
items (`epsilon`); one that draws without telling its probabilities (`Policy.probability`) enters with one draw per
step, which is right on average.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from harness.errors import UserError
from harness.settings import Count, CountOrZero, Positive, Share
from hrlmg_jax.evaluation.offline import gains
from hrlmg_jax.evaluation.policies import EvaluationPolicy
from hrlmg_jax.evaluation.propensities import fitted_propensities
from hrlmg_jax.problem import Problem, make_env
from sim.envs.available_items import draw_item, uniform_chance
from sim.envs.policy import Policy
from sim.envs.rollout import begin
from sim.envs.session_env import SessionEnv, SessionParams
from sim.evaluation.off_policy import LoggedDecisions, off_policy_estimates
from sim.evaluation.protocol import play_all

LOGGED, FITTED = "logged", "fitted to the log"
"""Where probabilities of what was shown are from."""
_SUPPORTED = 0.9, 1.1
"""Where the mean ratio of probabilities should be: it is 1 on average."""


@dataclass(frozen=True)
class OffPolicyConfig:
    """Off-policy estimates (`conf/evaluation/sessions.yaml` explains each)."""

    sessions: CountOrZero = 8_192
    horizons: tuple[Count, ...] = (1, 5, 20)
    epsilon: Share = 0.0
    most_weight: Positive | None = None
    least_effective: Positive = 50.0


AS_COMPOSED = OffPolicyConfig()
"""Of runs from before there were such estimates."""


@dataclass(frozen=True)
class LoggedImpressions:
    """Beginnings of S test sessions, as the shop decided.

    Attributes:
        row: [S] their first rows in the log.
        rows: [S, T] rows of the log, 0 where a session has ended.
        shown: [S, T] bool, where it has not.
        propensity: [S, T] probability with which each item was shown.
        env_params: Tables of the sessions, with the users who stand in where the log does not tell.
        of: Where the propensities are from: `LOGGED` or `FITTED`.
    """

    row: np.ndarray
    rows: np.ndarray
    shown: np.ndarray
    propensity: np.ndarray
    env_params: SessionParams
    of: dict[str, Any]


def why_not(problem: Problem) -> str | None:
    """Returns why a log tells nothing of other policies, or None."""
    if problem.data.log.synthetic_skips:
        return "skips are sampled: nobody was shown these items"
    if not problem.data.log.is_test.any():
        return "nothing of the log is for testing"
    return None


def logged_impressions(problem: Problem, number: int, most: int) -> LoggedImpressions:
    """Returns the first recommendations of test sessions, at most `number`, spread evenly over the log.

    Args:
        number: Sessions.
        most: T; what sessions have beyond is left out, so that cost is linear in what is used.

    Raises:
        UserError: A logged probability is not one.
    """
    log, starts = problem.data.log, problem.data.log.session_starts()
    test = np.flatnonzero(log.is_test)
    chosen = test[np.linspace(0, len(test) - 1, min(number, len(test))).round().astype(int)]
    length = np.minimum(starts[chosen + 1] - starts[chosen], most)
    step = np.arange(length.max())
    shown = step < length[:, None]
    rows = np.where(shown, starts[chosen][:, None] + step, 0)
    if log.shown_probability is None:
        propensity, embedding = np.ones(rows.shape), np.asarray(problem.simulator.params.embedding)
        propensity[shown], losses = fitted_propensities(problem.data, embedding, rows[shown])
        of: dict[str, Any] = {"propensities": FITTED, **losses}
    else:
        propensity, of = log.shown_probability[rows].astype(np.float64), {"propensities": LOGGED}
    if not ((propensity > 0) & (propensity <= 1))[shown].all():
        raise UserError(
            "holds probabilities of what was shown that are not above 0 and at most 1",
            where=log.source,
            do="Mend the column data.propensity_column, or set it to null: they are then fitted.",
        )
    begin_at = starts[chosen]
    return LoggedImpressions(begin_at, rows, shown, propensity, problem.env_params(begin_at), of)


class _Followed(NamedTuple):
    """What a policy thinks of logged steps, [T, B] each: see `follow`."""

    own: jax.Array
    uniform: jax.Array
    paid: jax.Array
    pays: jax.Array
    pays_uniform: jax.Array


def follow(
    problem: Problem, tested: EvaluationPolicy, logged: LoggedImpressions, epsilon: float, at_a_time: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lets a policy decide along logged sessions.

    Args:
        tested: The policy.
        epsilon: Share of uniformly drawn items.
        at_a_time: Sessions at a time, which bounds memory.

    Returns:
        [S, T] each: the probability with which the policy shows what was shown; what the users of the problem pay for
        it on average; and the mean of that over what the policy shows (of uniform items, one draw stands for all).
    """
    log = problem.data.log
    env = make_env(problem.env, problem.users, logged.rows.shape[1])
    env_params = logged.env_params
    items, feedback = jnp.asarray(log.item[logged.rows], jnp.int32), jnp.asarray(log.feedback[logged.rows], jnp.int32)
    policy, params = tested.policy(env.model), tested.params(env_params.model)

    def batch(env_params: SessionParams, params: Any, starts: jax.Array, key: jax.Array) -> _Followed:
        static = env, policy, tested.samples, problem.data.num_items
        return _follow(*static, env_params, params, starts, items[starts], feedback[starts], key)

    found = play_all(batch, env_params, params, np.arange(len(logged.row)), jax.random.key(0), at_a_time)
    soften = partial(_softened, epsilon)
    return soften(found.own, found.uniform), found.paid.astype(np.float64), soften(found.pays, found.pays_uniform)


def _softened(epsilon: float, own: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    return (1 - epsilon) * own.astype(np.float64) + epsilon * uniform


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _follow(
    env: SessionEnv,
    policy: Policy,
    samples: bool,
    num_items: int,
    env_params: SessionParams,
    policy_params: Any,
    starts: jax.Array,
    items: jax.Array,
    feedback: jax.Array,
    key: jax.Array,
) -> _Followed:
    def pays(state: Any, item: jax.Array) -> jax.Array:
        probabilities = jax.vmap(env.model.probabilities, (None, 0, 0, 0))
        answers = probabilities(env_params.model, state.hidden, state.histories, item)
        return answers @ env.reward_of(jnp.arange(answers.shape[-1]))

    def step(episodes: Any, logged: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[Any, _Followed]:
        item, answer, t = logged
        act_key, draw_key = jax.random.split(jax.random.fold_in(key, t))
        observation = episodes.observation
        # What the policy would do.
        carry, (action, _) = policy.act(policy_params, episodes.carry, observation, act_key, samples)
        own = (action == item).astype(jnp.float32)
        if policy.probability is not None:
            own = policy.probability(policy_params, episodes.carry, observation, item)
        drawn = draw_item(draw_key, observation.step, observation.recommended, num_items)
        uniform = uniform_chance(item, observation.recommended, num_items)
        said = _Followed(own, uniform, *(pays(episodes.state, one) for one in (item, action, drawn)))
        # What happened.
        observation, state = jax.vmap(env.answer, (0, 0, 0, None))(episodes.state, item, answer, env_params)
        return episodes._replace(carry=carry, observation=observation, state=state), said

    episodes = begin(env, env_params, policy, policy_params, starts)
    return jax.lax.scan(step, episodes, (items.T, feedback.T, jnp.arange(items.shape[1])))[1]


def estimate_policy(
    config: OffPolicyConfig,
    problem: Problem,
    tested: EvaluationPolicy,
    logged: LoggedImpressions,
    simulated: np.ndarray,
    at_a_time: int,
) -> dict[str, Any]:
    """Returns the estimates of one policy; see `off_policy_estimates`.

    Args:
        config: Settings.
        problem: The log, and the users who stand in where the log does not tell.
        tested: The policy.
        logged: Test sessions.
        simulated: [T] mean reward by step in a simulation of the policy.
        at_a_time: Sessions at a time, which bounds memory.
    """
    log = problem.data.log
    chance, paid, pays = follow(problem, tested, logged, config.epsilon, at_a_time)
    reward = gains(problem.env)[log.feedback[logged.rows]]
    decisions = LoggedDecisions(log.user[logged.row], logged.shown, reward, chance / logged.propensity, paid, pays)
    horizons = [horizon for horizon in config.horizons if horizon <= logged.rows.shape[1]]
    found = off_policy_estimates(decisions, simulated, horizons, config.most_weight, config.least_effective)
    return found | {"warning": _warning(found["mean_ratio"]["ci95"])}


def _warning(interval: list[float]) -> str | None:
    """Returns what is wrong with the probabilities; the mean ratio is 1 on average if nothing is."""
    low, high = interval
    if high < _SUPPORTED[0]:
        return "much of what the policy shows was hardly ever shown: the estimates are of the rest"
    if low > _SUPPORTED[1]:
        return "the shop's probabilities are too small for what it showed: the estimates are biased"
    return None


def describe(config: OffPolicyConfig, problem: Problem, logged: LoggedImpressions) -> dict[str, Any]:
    """Returns what the estimates are made from."""
    log = problem.data.log
    reward = gains(problem.env)[log.feedback[logged.rows]]
    return {
        **logged.of,
        "epsilon": config.epsilon,
        "most_weight": config.most_weight,
        "least_effective": config.least_effective,
        "interval": "95 %, percentiles of a bootstrap over users",
        "users": len(np.unique(log.user[logged.row])),
        "sessions": len(logged.row),
        "steps": int(logged.shown.sum()),
        "longest": logged.rows.shape[1],
        "logged_reward": float(reward[logged.shown].mean()),
    }
