"""The rollout: a batch of episodes under a policy, one compiled scan over time."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp

from harness.compute.sharding import over_episodes
from sim.envs.policy import Decision, Policy

_ENVIRONMENT_STREAM = 0x656E76  # far from the small numbers that policies fold into the step's key


class Environment(Protocol):
    """What a rollout needs of an environment: pure functions of one episode, and what to record of a batch of steps."""

    @property
    def episode_length(self) -> int:
        """T, steps per episode."""

    def reset_at(self, start: jax.Array, params: Any) -> tuple[Any, Any]:
        """Starts the episode numbered `start` (int32; a user, or a session); returns observation and state."""

    def step(self, key: jax.Array, state: Any, action: jax.Array, params: Any) -> tuple[Any, Any, Any, Any, Any, Any]:
        """Returns observation, state, reward, terminated, truncated and info."""

    def prepare(self, policy: Policy) -> Policy:
        """Returns the policy, wrapped as the environment's settings ask (with a random first item, for instance)."""

    def record(self, observation: Any, decision: Decision, reward: jax.Array, info: Any) -> Any:
        """Returns what a trajectory records of one step of a batch; `observation` is the one before the decision."""


class TrainingEnvironment(Environment, Protocol):
    """What agents need of an environment to learn in it.

    The agents of `tpgr_jax` read the fields of `sim.envs.rating_env.Observation` and learn from those of `Trajectory`;
    an environment with other observations or trajectories needs its own agents. An evaluation needs `item`, `reward`
    and `hit` of a trajectory.
    """

    @property
    def num_items(self) -> int:
        """I, items that can be recommended."""

    @property
    def first_decision(self) -> int:
        """The first step at which the policy decides: 1 if the environment draws the first item, else 0."""

    def draw_starts(self, key: jax.Array, params: Any, number: int) -> jax.Array:
        """Returns [number] int32 starts to train on, drawn with replacement."""

    def recommended_before(self, items: jax.Array, steps: jax.Array | None = None) -> jax.Array:
        """Returns [n, B, T] int32 the `recommended` of observations before steps [n] of episodes [T, B].

        Args:
            items: [T, B] int32 items of the episodes (or other non-negative numbers in their place).
            steps: [n] int32 steps; None: all T.

        Returns:
            The items, padded with -1; [n, B, 0] if repeats are allowed.
        """


class Episodes(NamedTuple):
    """A batch of B running episodes: the policy's carry, and the observations and states of the environment."""

    carry: Any
    observation: Any
    state: Any


def begin(env: Environment, env_params: Any, policy: Policy, policy_params: Any, starts: jax.Array) -> Episodes:
    """Starts one episode for each of [B] int32 starts."""
    observation, state = jax.vmap(env.reset_at, in_axes=(0, None))(over_episodes(starts), env_params)
    return over_episodes(Episodes(policy.initial_carry(policy_params, starts.shape[0]), observation, state))


def advance(
    env: Environment,
    env_params: Any,
    policy: Policy,
    policy_params: Any,
    episodes: Episodes,
    key: jax.Array,
    explore: bool,
) -> tuple[Episodes, Any]:
    """Takes one step in every episode; returns the next episodes and `env.record` of the step."""
    carry, decision = policy.act(policy_params, episodes.carry, episodes.observation, key, explore)
    observation, state, reward, info = respond(env, env_params, episodes.state, decision, key)
    next_episodes = over_episodes(Episodes(carry, observation, state))
    return next_episodes, env.record(episodes.observation, decision, reward, info)


def respond(
    env: Environment, env_params: Any, state: Any, decision: Decision, key: jax.Array
) -> tuple[Any, Any, jax.Array, Any]:
    """Lets the users of a batch of episodes answer; returns observation, state, reward and info of each.

    Args:
        key: Of the step; the users' randomness is the same for every policy.
    """
    env_keys = jax.random.split(jax.random.fold_in(key, _ENVIRONMENT_STREAM), decision.action.shape[0])
    observation, state, reward, _, _, info = jax.vmap(env.step, in_axes=(0, 0, 0, None))(
        env_keys, state, decision.action, env_params
    )
    return observation, state, reward, info


def rollout(
    env: Environment,
    env_params: Any,
    policy: Policy,
    policy_params: Any,
    starts: jax.Array,
    key: jax.Array,
    explore: bool,
) -> Any:
    """Plays one episode from each of the given starts.

    Args:
        env_params: Parameters of the environment.
        policy: The policy, which acts on the whole batch at once.
        policy_params: Parameters of the policy.
        starts: [B] int32, one episode each.
        key: Random key; step t uses `fold_in(key, t)`.
        explore: True samples, False decides greedily (static).

    Returns:
        What `env.record` returns, time first: arrays [T, B, ...].
    """
    chex.assert_rank(starts, 1)
    policy = env.prepare(policy)
    episodes = begin(env, env_params, policy, policy_params, starts)
    return play_on(env, env_params, policy, policy_params, episodes, key, explore)[1]


def play_on(
    env: Environment,
    env_params: Any,
    policy: Policy,
    policy_params: Any,
    episodes: Episodes,
    key: jax.Array,
    explore: bool,
) -> tuple[Episodes, Any]:
    """Plays T steps in running episodes: `rollout` with the episodes as argument and result."""

    def step(episodes: Episodes, t: jax.Array) -> tuple[Episodes, Any]:
        return advance(env, env_params, policy, policy_params, episodes, jax.random.fold_in(key, t), explore)

    return jax.lax.scan(step, episodes, jnp.arange(env.episode_length))
