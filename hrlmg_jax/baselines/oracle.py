"""Two oracles that know what no recommender knows: the environment's own users.

The greedy oracle takes the item with the highest expected reward now. The planner adds what a click does to the user's
trust in the shop, which pays later: how much better it is says how much planning is worth in an environment.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from harness.errors import UserError
from harness.settings import NotNegative
from hrlmg_jax.evaluation.policies import EvaluationPolicy
from hrlmg_jax.methods import AgentSettings, Method, untrained
from hrlmg_jax.problem import Problem
from hrlmg_jax.retrieval.item_scores import ItemScores, best_scored_item, rank_scored_items
from sim.envs.histories import Histories
from sim.envs.policy import Decision, Policy, Ranking
from sim.envs.session_env import TRUTH, FeedbackModel, SessionConfig, SessionObservation
from sim.generators.funnel_users import FunnelModel

_NUMBERS_PER_ITEM = 64  # of a learned user's hidden layer


@dataclass(frozen=True, kw_only=True)
class Settings(AgentSettings):
    """What the expected gain of trust counts (`conf/agent/greedy_oracle.yaml`, `conf/agent/planner.yaml`)."""

    trust_weight: NotNegative

    def check(self, env: SessionConfig) -> None:
        """Checks that users have trust if it counts; raises UserError naming the keys."""
        if self.trust_weight and env.users != TRUTH:
            raise UserError(
                "agent.trust_weight counts the trust of the users of a generated log; learned users have none",
                do="Set env.users=truth (of a generated log).",
            )


def build(problem: Problem, settings: Settings) -> Method:
    """Returns the oracle for whatever users it is tested with."""
    return untrained(settings.name, oracle(problem.env, problem.data.num_items, settings.trust_weight))


def oracle(settings: SessionConfig, num_items: int, trust_weight: float) -> EvaluationPolicy:
    """Returns an evaluation policy that asks the users themselves; it takes no part in the offline test."""

    def policy(users: FeedbackModel) -> Policy:
        return oracle_policy(users, num_items, settings.click_reward, settings.order_reward, trust_weight)

    return EvaluationPolicy(policy, lambda params: params, False, None)


def oracle_policy(
    model: FeedbackModel, num_items: int, click_reward: float, order_reward: float, trust_weight: float = 0.0
) -> Policy:
    """Returns the greedy oracle, or with a weight of trust the planner; its parameters are those of the model.

    Args:
        model: The users of the environment that it plays in.
        num_items: I, items that can be recommended.
        click_reward: External reward of a click.
        order_reward: External reward of an order.
        trust_weight: What the expected gain of trust counts, in units of reward; only the users of a generated log have
            trust.
    """
    # Expected reward, and trust, of an item for one user.
    rewards = jnp.asarray([0.0, click_reward, order_reward])

    def value(params: Any, hidden: Any, histories: Histories, item: jax.Array) -> jax.Array:
        probabilities = model.probabilities(params, hidden, histories, item)
        expected = probabilities @ rewards
        if trust_weight:
            if not isinstance(model, FunnelModel):
                raise UserError(
                    "agent.trust_weight counts the trust of users, and these have none",
                    do="Let data.world=trust, or set agent.trust_weight=0.",
                )
            expected += trust_weight * (1 - probabilities[0]) * model.trust_gain(params, hidden, item)
        return expected

    def values(params: Any, user: tuple[Any, Histories], items: jax.Array) -> jax.Array:
        return jax.vmap(lambda item: value(params, *user, item))(items)

    # Decisions and rankings for all sessions, over all items.
    items = jnp.arange(num_items, dtype=jnp.int32)

    def scores(params: Any, observation: SessionObservation) -> ItemScores:
        users = (observation.hidden, observation.histories)
        return ItemScores(partial(values, params), users, items, _NUMBERS_PER_ITEM)

    def act(
        params: Any, carry: tuple[()], observation: SessionObservation, key: jax.Array, explore: bool
    ) -> tuple[tuple[()], Decision]:
        item = best_scored_item(scores(params, observation), num_items, observation)
        return carry, Decision(item, jnp.zeros(item.shape))

    def rank(params: Any, carry: tuple[()], observation: SessionObservation, k: int, available: jax.Array) -> Ranking:
        return rank_scored_items(scores(params, observation), observation, k, available)

    return Policy(lambda params, batch_size: (), act, rank)
