"""What the value-based learners share: they play, remember episodes, and learn from a few of those at a time."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import optax
from pydantic import Field

from harness.errors import UserError
from harness.settings import Count, CountOrZero, Finite, Positive, Share
from harness.training.agent import Agent
from harness.training.optimizers import annealed
from harness.training.replay import Replay
from sim.envs.available_items import draw_item
from sim.envs.policy import Policy
from sim.envs.rating_env import Observation
from sim.envs.rollout import TrainingEnvironment, rollout
from tpgr_jax.baselines.episode_replay import Episodes, add_episodes, make_episode_replay, sample_episodes
from tpgr_jax.methods import Method, RunContext
from tpgr_jax.networks.encoder import EncoderConfig, pretrained
from tpgr_jax.problem import Problem


@dataclass(frozen=True)
class ReplayConfig:
    """Settings of learning from replay (`conf/agent/*.yaml` explain each)."""

    discount: Share
    updates_per_step: Count
    batch_episodes: Count
    replay_episodes: Count
    target_rate: Annotated[Finite, Field(gt=0, le=1)]
    loss: Literal["squared", "huber"]
    clip_norm: Positive
    epsilon: Share
    epsilon_end: Share
    epsilon_steps: CountOrZero


@flax.struct.dataclass
class World:
    """What training reads on the device.

    Attributes:
        env: The simulator's tables.
        item_vectors: [I, E] the items as actions of a continuous policy; None where the agent has no use for them.
    """

    env: Any
    item_vectors: jax.Array | None = None


@flax.struct.dataclass
class Learned:
    """What an update changes: parameters, target parameters, the optimisers' moments."""

    params: Any
    target: Any
    opt_state: Any


@flax.struct.dataclass
class ReplayState:
    """Everything that training changes.

    Attributes:
        params: Network parameters.
        target: Those of the target networks.
        opt_state: Moments of the optimisers.
        replay: Episodes to learn from.
        step: int32 training steps done.
        key: Key of the run; step n uses `fold_in(key, n)`, so that a resumed run repeats exactly.
    """

    params: Any
    target: Any
    opt_state: Any
    replay: Replay
    step: jax.Array
    key: jax.Array


@flax.struct.dataclass
class ActingParams:
    """What a policy acts on.

    Attributes:
        network: Network parameters.
        epsilon: float32 share of uniformly drawn items when exploring.
        item_vectors: As in `World`.
    """

    network: Any
    epsilon: jax.Array
    item_vectors: jax.Array | None


class NetworkPolicy(Protocol):
    """A policy of the state that networks encode."""

    def init(self, key: jax.Array) -> Any:
        """Draws initial network parameters."""

    def as_policy(self) -> Policy:
        """Returns the functions of `Policy`, of `ActingParams`."""


def td_targets(reward: jax.Array, next_value: jax.Array, discount: float) -> jax.Array:
    """Returns [T, n] y_t = r_t + discount * v_{t+1}, with v = 0 after the last step: what counts is the episode's sum.

    Args:
        reward: [T, n] r_t.
        next_value: [T - 1, n] values v_1 to v_{T-1} of the states after the first T - 1 steps.
        discount: In [0, 1].
    """
    return reward + discount * jnp.concatenate([next_value, jnp.zeros_like(reward[:1])])


def regression_loss(value: jax.Array, target: jax.Array, kind: str) -> jax.Array:
    """Returns the mean of (value - target)^2 / 2 ("squared"), or of Huber's function, linear from 1 on ("huber")."""
    each = optax.losses.huber_loss if kind == "huber" else optax.losses.l2_loss
    return jnp.mean(each(value, target))


def epsilon_greedy(
    key: jax.Array, epsilon: jax.Array, greedy: jax.Array, observation: Observation, num_items: int
) -> jax.Array:
    """Returns [B] items: those of `greedy`, or with probability epsilon one drawn uniformly from the available ones."""
    coin_key, draw_key = jax.random.split(key)
    drawn = draw_item(draw_key, observation.step, observation.recommended, num_items)
    return jnp.where(jax.random.uniform(coin_key, greedy.shape) < epsilon, drawn, greedy)


@dataclass(frozen=True)
class ReplayLearner(ABC):
    """A learner as pure functions.

    Attributes:
        env: The simulator.
        policy: Networks and how they act.
        config: Learner settings.
        episodes_per_step: B episodes per training step.

    Raises:
        UserError: The memory cannot hold the episodes of one training step.
    """

    env: TrainingEnvironment
    policy: NetworkPolicy
    config: ReplayConfig
    episodes_per_step: int

    def __post_init__(self) -> None:
        """Checks settings against each other."""
        if self.config.replay_episodes < self.episodes_per_step:
            raise UserError(
                f"agent.learner.replay_episodes is {self.config.replay_episodes}, less than train.episodes_per_step "
                f"({self.episodes_per_step})",
                do="Give more room.",
            )

    @abstractmethod
    def init_optimizers(self, params: Any) -> Any:
        """Returns the optimisers' moments before the first update."""

    @abstractmethod
    def update(self, learned: Learned, world: World, episodes: Episodes) -> tuple[Learned, dict[str, jax.Array]]:
        """Updates networks and targets once; returns them and scalar metrics."""

    def init(self, key: jax.Array) -> ReplayState:
        """Returns the state before the first step, with freshly drawn parameters."""
        init_key, run_key = jax.random.split(key)
        params = self.policy.init(init_key)
        return ReplayState(
            params=params,
            target=jax.tree.map(jnp.copy, params),
            opt_state=self.init_optimizers(params),
            replay=make_episode_replay(self.env.episode_length, self.config.replay_episodes),
            step=jnp.int32(0),
            key=run_key,
        )

    def with_params(self, state: ReplayState, params: Any) -> ReplayState:
        """Returns an untrained state that starts from the given network parameters."""
        return dataclasses.replace(state, params=params, target=jax.tree.map(jnp.copy, params))

    def policy_params(self, state: ReplayState, world: World) -> ActingParams:
        """Returns what the policy acts on after the training so far."""
        config = self.config
        epsilon = annealed(config.epsilon, config.epsilon_end, config.epsilon_steps, state.step)
        return ActingParams(state.params, epsilon, world.item_vectors)

    def train_step(self, state: ReplayState, world: World) -> tuple[ReplayState, dict[str, jax.Array]]:
        """Plays B episodes with training users drawn uniformly, remembers them, and makes the updates.

        Returns:
            The next state and scalar metrics: reward (mean per recommendation), precision and epsilon of the episodes
            played; means of the metrics of the updates.
        """
        # Play, and remember.
        user_key, rollout_key, update_key = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        users = self.env.draw_starts(user_key, world.env, self.episodes_per_step)
        acting = self.policy_params(state, world)
        trajectory = rollout(self.env, world.env, self.policy.as_policy(), acting, users, rollout_key, explore=True)
        replay = add_episodes(state.replay, trajectory)

        # Learn from remembered episodes.
        def update(learned: Learned, key: jax.Array) -> tuple[Learned, dict[str, jax.Array]]:
            return self.update(learned, world, sample_episodes(replay, key, self.config.batch_episodes))

        learned, metrics = jax.lax.scan(
            update,
            Learned(state.params, state.target, state.opt_state),
            jax.random.split(update_key, self.config.updates_per_step),
        )
        metrics = jax.tree.map(jnp.mean, metrics) | {
            "reward": jnp.mean(trajectory.reward),
            "precision": jnp.mean(trajectory.hit.astype(jnp.float32)),
            "epsilon": acting.epsilon,
        }
        return ReplayState(
            learned.params, learned.target, learned.opt_state, replay, state.step + 1, state.key
        ), metrics


def replay_method(
    problem: Problem, name: str, config: EncoderConfig, learner: ReplayLearner, world: World, run: RunContext
) -> Method:
    """Returns the method that trains a learner and recommends by its policy.

    Args:
        name: In results.
        config: Of the policy's encoder: which item embedding training starts from.
        learner: What is trained.
        world: What it reads on the device.
        run: Seed and episodes of a training step.
    """

    def pretrain(state: ReplayState) -> ReplayState:
        if run.earlier is not None:
            return learner.with_params(state, run.earlier.carry_over(state.params))
        return learner.with_params(state, pretrained(state.params, problem, config, run.seed))

    row = jax.eval_shape(learner.init, jax.random.key(0)).replay.bytes_per_row
    return Method(
        name,
        Agent(lambda key, world: learner.init(key), pretrain, learner.train_step, world, run.episodes_per_step),
        learner.policy.as_policy(),
        lambda state: learner.policy_params(state, world),
        False,
        f"{name}: replay of {learner.config.replay_episodes:,} episodes, {row} bytes each",
    )
