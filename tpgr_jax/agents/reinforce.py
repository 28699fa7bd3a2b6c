"""REINFORCE over the tree policy (Algorithm 1, Eq. 3 and 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import chex
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from harness.compute.sharding import EPISODES, EVERYWHERE, mean_over_devices, per_device, share_of_mean
from harness.settings import Count, CountOrZero, NotNegative, Positive, SettingError, Share
from harness.training.optimizers import annealed, clipped_adam, descend
from sim.envs.rating_env import Trajectory
from sim.envs.rollout import TrainingEnvironment, rollout
from tpgr_jax.agents.lazy_nodes import LazyNodes, LazyState, no_factors, with_factors
from tpgr_jax.agents.tree_ops import MASKED_LOGIT, TreeTables
from tpgr_jax.agents.tree_policy import PolicyParams, TreePolicy
from tpgr_jax.networks.node_heads import STALE


@dataclass(frozen=True)
class LearnerConfig:
    """REINFORCE's settings (`conf/agent/tpgr.yaml`)."""

    discount: Share
    baseline: Literal["per_user", "per_step", "none"]
    episodes_per_user: Count
    update: Literal["batch", "per_timestep", "accumulated"]
    learning_rate: Positive
    clip_norm: Positive
    entropy: Literal["shannon", "distance_to_uniform"]
    entropy_weight: NotNegative
    entropy_weight_end: NotNegative
    entropy_steps: CountOrZero
    l2_weight: NotNegative
    node_updates: Literal["auto", "lazy", "dense"] = "dense"  # that of runs before there was a choice

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the keys."""
        if self.node_updates == "lazy" and not self.may_be_lazy:
            raise SettingError(
                f".node_updates is lazy, .update {self.update} and .l2_weight {self.l2_weight:g}",
                do="Only the one update of .update=batch without a penalty (.l2_weight=0) leaves out nodes that the "
                "batch did not visit; else choose .node_updates=auto or dense.",
            )

    @property
    def may_be_lazy(self) -> bool:
        """Whether nodes that a batch does not visit get no gradient, in the one update of a training step."""
        return self.update == "batch" and self.l2_weight == 0


def lazy_levels(config: LearnerConfig, level_nodes: Sequence[int], decisions: int) -> tuple[int, ...]:
    """Returns the levels whose nodes are updated only when they are visited.

    Args:
        config: `auto` chooses those with so many nodes that a training step leaves out most of them.
        level_nodes: Number of internal nodes of each level.
        decisions: Of a training step, at each level.
    """
    if config.node_updates == "dense" or not config.may_be_lazy:
        return ()
    fewest = 2 if config.node_updates == "lazy" else decisions + 1
    return tuple(level for level, number in enumerate(level_nodes) if number >= fewest)


@flax.struct.dataclass
class World:
    """What training reads on the device: the simulator's tables and the tree."""

    env: Any
    tree: TreeTables


@flax.struct.dataclass
class LearnerState:
    """Everything that training changes: parameters, optimiser, the step count and the run's random key.

    Attributes:
        params: Network parameters.
        opt_state: Adam's moments; `LazyState` where some nodes are updated lazily (then `params` has their points of
            rest, see `harness.training.lazy_adam`).
        step: int32 training steps done.
        key: Key of the run; step n uses `fold_in(key, n)`, so that a resumed run repeats exactly.
    """

    params: Any
    opt_state: Any
    step: jax.Array
    key: jax.Array


def discounted_returns(reward: jax.Array, discount: float) -> jax.Array:
    """Returns [T, B] R_t = sum_{i >= t} discount^(i - t) r_i (Algorithm 1, line 13), for rewards [T, B]."""
    chex.assert_rank(reward, 2)

    def backward(next_return: jax.Array, r_t: jax.Array) -> tuple[jax.Array, jax.Array]:
        return_t = r_t + discount * next_return
        return return_t, return_t

    return jax.lax.scan(backward, jnp.zeros_like(reward[0]), reward, reverse=True)[1]


def advantages(returns: jax.Array, baseline: str, episodes_per_user: int) -> jax.Array:
    """Standardises returns (subtracts the mean, divides by the standard deviation plus 1e-6).

    Args:
        returns: [T, B]; episodes of one user are consecutive, `episodes_per_user` each.
        baseline: "per_user": over the episodes and steps of one user (official code); "per_step": over all episodes
            at each step; "none": returns as they are.
        episodes_per_user: G.
    """
    chex.assert_rank(returns, 2)
    if baseline == "none":
        return returns
    axes: tuple[int, ...] = (1,)
    groups = returns
    if baseline == "per_user":
        groups, axes = returns.reshape(returns.shape[0], -1, episodes_per_user), (0, 2)
    centred = groups - jnp.mean(groups, axes, keepdims=True)
    deviation = jnp.sqrt(jnp.mean(centred**2, axes, keepdims=True))
    return (centred / (deviation + 1e-6)).reshape(returns.shape)


def exploration_bonus(log_probs: jax.Array, kind: str) -> jax.Array:
    """Returns [S] how undecided each visited node is.

    Args:
        log_probs: [S, C] masked log-probabilities.
        kind: "shannon": entropy in nats over the available children; "distance_to_uniform": minus the mean squared
            distance of the probabilities to uniform over the C children (official code).
    """
    chex.assert_rank(log_probs, 2)
    probs = jnp.exp(log_probs)
    if kind == "shannon":
        return -jnp.sum(probs * jnp.where(log_probs > MASKED_LOGIT / 2, log_probs, 0.0), -1)
    return -jnp.mean((probs - 1 / log_probs.shape[-1]) ** 2, -1)


@dataclass(frozen=True)
class Reinforce:
    """The learner as pure functions.

    Attributes:
        env: The simulator.
        policy: The tree policy.
        config: Learner settings.
        episodes_per_step: B episodes per training step, a multiple of config.episodes_per_user.
        lazy: Levels whose nodes are updated only when they are visited (`lazy_levels`).
    """

    env: TrainingEnvironment
    policy: TreePolicy
    config: LearnerConfig
    episodes_per_step: int
    lazy: tuple[int, ...] = ()

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam with clipping by the global norm."""
        return clipped_adam(self.config.learning_rate, self.config.clip_norm)

    def init(self, key: jax.Array) -> LearnerState:
        """Returns the state before the first step, with freshly drawn parameters."""
        init_key, run_key = jax.random.split(key)
        params = self.policy.init(init_key)
        trainable = self.policy.trainable(params)
        opt_state = self.lazy_nodes.start(trainable) if self.lazy else self.optimizer.init(trainable)
        return LearnerState(params, opt_state, jnp.int32(0), run_key)

    @property
    def lazy_nodes(self) -> LazyNodes:
        """What updates some levels lazily."""
        return LazyNodes(self.policy, self.lazy, self.config.learning_rate, self.config.clip_norm)

    def policy_params(self, state: LearnerState, tree: TreeTables) -> PolicyParams:
        """Returns what the policy reads, in rollouts and evaluations."""
        if not isinstance(state.opt_state, LazyState):
            return PolicyParams(state.params, tree)
        return self.lazy_nodes.reading(state.params, state.opt_state, state.step, tree)

    def finished(self, state: LearnerState) -> LearnerState:
        """Returns a state that is only read from now on, with all networks up to date and without an optimiser."""
        params = state.params
        if isinstance(state.opt_state, LazyState):
            params = self.lazy_nodes.up_to_date(params, state.opt_state, state.step)
        return replace(state, params=params, opt_state=None)

    def train_step(self, state: LearnerState, world: World) -> tuple[LearnerState, dict[str, jax.Array]]:
        """Samples B episodes and updates the policy with them (one update, or one per time step).

        Returns:
            The next state and scalar metrics: reward (mean per recommendation), precision, loss, gradient norm,
            entropy per level.
        """
        # Users, each with a group of episodes.
        user_key, rollout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        groups = self.episodes_per_step // self.config.episodes_per_user
        users = self.env.draw_starts(user_key, world.env, groups)
        users = jnp.repeat(users, self.config.episodes_per_user, total_repeat_length=self.episodes_per_step)

        # Sample the episodes, then learn from them.
        policy, policy_params = self.policy.as_policy(), self.policy_params(state, world.tree)
        trajectory = rollout(self.env, world.env, policy, policy_params, users, rollout_key, explore=True)
        params, opt_state, metrics = self.update(state, world.tree, trajectory)
        metrics["reward"] = jnp.mean(trajectory.reward)
        metrics["precision"] = jnp.mean(trajectory.hit.astype(jnp.float32))
        return LearnerState(params, opt_state, state.step + 1, state.key), metrics

    def update(
        self, state: LearnerState, tree: TreeTables, trajectory: Trajectory
    ) -> tuple[Any, Any, dict[str, jax.Array]]:
        """Updates the policy with sampled episodes; returns parameters, optimiser state and metrics."""
        config = self.config
        # Returns (Algorithm 1, line 13), standardised.
        returns = discounted_returns(trajectory.reward, config.discount)
        advantage = advantages(returns, config.baseline, config.episodes_per_user)
        # A uniformly drawn first item was not the policy's choice.
        first = self.env.first_decision
        steps = jnp.arange(first, self.env.episode_length)
        entropy_weight = annealed(config.entropy_weight, config.entropy_weight_end, config.entropy_steps, state.step)

        def apply(
            carry: tuple[Any, Any, Any], steps: jax.Array | None
        ) -> tuple[tuple[Any, Any, Any], dict[str, jax.Array]]:
            trainable, opt_state, earlier = carry
            params = PolicyParams(self.policy.with_trainable(state.params, trainable), tree)
            gradient, metrics = self.gradient(params, trajectory, advantage, steps, entropy_weight)
            if config.update == "accumulated":
                gradient = earlier = jax.tree.map(jnp.add, earlier, gradient)
            gradient, metrics = self.with_penalty(gradient, metrics, trainable)
            trainable, opt_state, norm = descend(self.optimizer, gradient, opt_state, trainable)
            return (trainable, opt_state, earlier), {**metrics, "gradient_norm": norm}

        if self.lazy:
            params = self.policy_params(state, tree)
            gradient, metrics = self.gradient(params, trajectory, advantage, steps if first else None, entropy_weight)
            item = trajectory.item[first:]
            network, opt_state, norm = self.lazy_nodes.descend(gradient, params, state.opt_state, state.step, item)
            return network, opt_state, {**metrics, "gradient_norm": norm}
        # One summed update, or one per time step: of its own gradient, or of the sum so far (lines 15 and 16).
        trainable = self.policy.trainable(state.params)
        carry = (trainable, state.opt_state, jax.tree.map(jnp.zeros_like, trainable))
        if config.update == "batch":
            (trainable, opt_state, _), metrics = apply(carry, steps if first else None)
        else:
            (trainable, opt_state, _), metrics = jax.lax.scan(apply, carry, steps[:, None])
            metrics = jax.tree.map(jnp.mean, metrics)
        return self.policy.with_trainable(state.params, trainable), opt_state, metrics

    def loss(
        self,
        params: PolicyParams,
        trajectory: Trajectory,
        advantage: jax.Array,
        steps: jax.Array | None,
        entropy_weight: jax.Array,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Minus the mean over episodes of sum_t log pi(a_t | s_t) A_t, less the exploration bonus.

        Args:
            params: The policy's; `params.network` is to differentiate.
            trajectory: [T, B] episodes sampled from it.
            advantage: [T, B] (standardised) returns, constants.
            steps: [n] time steps that the sum runs over (None = all of them), only one unless the update is `batch`.
            entropy_weight: Scalar weight of the exploration bonus.

        Returns:
            Scalar loss and metrics: mean entropy of the visited nodes per level (nats).
        """
        log_prob, levels = self.policy.path_log_probs(params, self.env, trajectory, steps)
        advantage = advantage if steps is None else advantage[steps]
        chex.assert_equal_shape([log_prob, advantage])
        episodes = log_prob.shape[1]
        bonus = sum(jnp.sum(exploration_bonus(log_probs, self.config.entropy)) for log_probs in levels) / episodes
        gain = jnp.sum(log_prob * advantage) / episodes
        entropies = [jnp.mean(exploration_bonus(log_probs, "shannon")) for log_probs in levels]
        metrics = {f"entropy_{level}": entropy for level, entropy in enumerate(entropies)}
        return -gain - entropy_weight * bonus, metrics

    def gradient(
        self,
        params: PolicyParams,
        trajectory: Trajectory,
        advantage: jax.Array,
        steps: jax.Array | None,
        entropy_weight: jax.Array,
    ) -> tuple[Any, dict[str, jax.Array]]:
        """Returns the gradient of `loss` for the trainable parameters, and metrics; of stale ones its `Factors`.

        Many devices take each the gradient for their episodes, and exchange nothing else. Arguments as for `loss`.
        """
        policy, stale = self.policy, params.collections.get(STALE, {})
        trainable = {name: value for name, value in policy.trainable(params.network).items() if name not in stale}
        layout = policy.partition(trainable)
        along = PartitionSpec(None, EPISODES)

        def local_gradient(trainable: Any, params: PolicyParams, trajectory: Trajectory, *batch: Any) -> Any:
            def loss_of(learned: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
                network = policy.with_trainable(params.network, learned[0])
                return self.loss(with_factors(replace(params, network=network), learned[1]), trajectory, *batch)

            steps = batch[1]
            shape = (len(trajectory.item) if steps is None else len(steps), trajectory.item.shape[1])
            learned = trainable, no_factors(params, math.prod(shape))
            (loss, metrics), (gradient, factors) = jax.value_and_grad(loss_of, has_aux=True)(learned)
            factors = {name: each._replace(slopes=share_of_mean(each.slopes)) for name, each in factors.items()}
            factors = jax.tree.map(lambda values: values.reshape(*shape, -1), factors)
            gradient = mean_over_devices(gradient, layout)
            return gradient, factors, mean_over_devices({"loss": loss, **metrics})

        # Of each device's episodes, averaged.
        on_devices = per_device(
            local_gradient,
            (layout, policy.partition(params), along, along, EVERYWHERE, EVERYWHERE),
            (layout, along, EVERYWHERE),
            trajectory.item.shape[1],
        )
        gradient, factors, metrics = on_devices(trainable, params, trajectory, advantage, steps, entropy_weight)
        return {**gradient, **factors}, metrics

    def with_penalty(
        self, gradient: Any, metrics: dict[str, jax.Array], trainable: Any
    ) -> tuple[Any, dict[str, jax.Array]]:
        """Adds the L2 penalty, which no episode changes, to the gradient and to the loss among the metrics."""
        weight = self.config.l2_weight
        if weight == 0:
            return gradient, metrics
        gradient = jax.tree.map(lambda slope, leaf: slope + weight * leaf, gradient, trainable)
        penalty = weight * 0.5 * optax.tree.norm(trainable, squared=True)
        return gradient, metrics | {"loss": metrics["loss"] + penalty}
