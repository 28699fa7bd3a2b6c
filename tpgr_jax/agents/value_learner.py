"""Learning of the value tree from its own episodes: every head is taught what its children's heads would say."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp
import optax

from harness.settings import Count, CountOrZero, Positive
from harness.training.optimizers import clipped_adam, descend
from sim.envs.rating_env import RatingEnv, Trajectory
from sim.envs.rollout import rollout
from tpgr_jax.agents.reinforce import LearnerState, World
from tpgr_jax.agents.tree_ops import MASKED_LOGIT
from tpgr_jax.agents.value_tree import Learned, UserState, ValueTree, ValueTreeParams, filter_estimate, for_each

RATINGS, EPISODES = "ratings", "episodes"


@dataclass(frozen=True)
class ValueLearnerConfig:
    """The learner's settings (`conf/agent/tpgr_plus.yaml`)."""

    fit_to: Literal["ratings", "episodes"]
    fit_episodes: Count
    steps_per_episode: Count
    random_paths: CountOrZero
    learning_rate: Positive
    learning_rate_end: Positive
    decay_steps: Count
    clip_norm: Positive


@dataclass(frozen=True)
class ValueLearner:
    """The learner as pure functions.

    Attributes:
        env: The simulator.
        policy: The value tree.
        config: Settings.
        episodes_per_step: B.
    """

    env: RatingEnv
    policy: ValueTree
    config: ValueLearnerConfig
    episodes_per_step: int

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam with clipping by the global norm; its rate falls along half a cosine."""
        config = self.config
        rate = optax.cosine_decay_schedule(
            config.learning_rate, config.decay_steps, config.learning_rate_end / config.learning_rate
        )
        return clipped_adam(rate, config.clip_norm)

    def init(self, key: jax.Array) -> LearnerState:
        """Returns the state before the first step, with freshly drawn parameters."""
        init_key, run_key = jax.random.split(key)
        learned = self.policy.init(init_key)
        return LearnerState(learned, self.optimizer.init(learned.network), jnp.int32(0), run_key)

    def train_step(self, state: LearnerState, world: World) -> tuple[LearnerState, dict[str, jax.Array]]:
        """Plays B episodes by sampling, and learns from some steps of each.

        Returns:
            The next state and scalar metrics: reward (mean per recommendation), precision, the parts of the loss, the
            gradient's norm.
        """
        # Play B episodes by sampling.
        user_key, rollout_key, learn_key = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        users = self.env.draw_starts(user_key, world.env, self.episodes_per_step)
        params = ValueTreeParams(state.params, world.tree)
        policy = self.policy.as_policy()
        trajectory = rollout(self.env, world.env, policy, params, users, rollout_key, explore=True)

        # Learn from some steps of each.
        loss_of = jax.value_and_grad(self.loss, has_aux=True)
        (_, metrics), gradient = loss_of(state.params.network, state.params, world, trajectory, users, learn_key)
        network, opt_state, norm = descend(self.optimizer, gradient, state.opt_state, state.params.network)
        metrics |= {
            "gradient_norm": norm,
            "reward": jnp.mean(trajectory.reward),
            "precision": jnp.mean(trajectory.hit.astype(jnp.float32)),
        }
        learned = dataclasses.replace(state.params, network=network)
        return LearnerState(learned, opt_state, state.step + 1, state.key), metrics

    def loss(
        self, network: Any, learned: Learned, world: World, trajectory: Trajectory, users: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss at `steps_per_episode` random steps of every episode: the sum of two mean squares.

        Each internal head's estimate for a child against the largest value that the child's own head gives (for the
        deepest: the best item's), along the paths of the beam and some random paths; and the persistence against the
        share of positive answers that followed.

        Args:
            network: What the loss is differentiated for.
            learned: Everything else.
            world: The simulator's tables and the tree.
            trajectory: [T, B] episodes.
            users: [B] int32 their users.
            key: Draws steps and paths.

        Returns:
            Scalar loss and its parts.
        """
        params = ValueTreeParams(dataclasses.replace(learned, network=network), world.tree)
        # Users' states before a few steps drawn for the whole batch.
        step_key, path_key = jax.random.split(key)
        steps = jax.random.permutation(step_key, self.env.episode_length)[: self.config.steps_per_episode]
        empirical = self._empirical(world, users, trajectory.item)
        state = self._states(params.learned, trajectory, empirical, steps)
        past_leaves = self._past_leaves(world, trajectory.item, steps)

        # Each internal head against the best that its child offers.
        node = self._paths(params, state, past_leaves, path_key)
        backup = self._backup_loss(params, jax.lax.stop_gradient(state), node, past_leaves)

        # Persistence against the share of positive answers from each step on.
        positive = (empirical > 0).astype(jnp.float32)
        share = jnp.cumsum(positive[::-1], 0)[::-1] / jnp.arange(len(positive), 0, -1)[:, None]
        persistence = jnp.mean((jax.nn.sigmoid(state.persistence_logit) - share[steps].reshape(-1)) ** 2)
        return backup + persistence, {"loss": backup + persistence, "backup": backup, "persistence": persistence}

    def _empirical(self, world: World, users: jax.Array, item: jax.Array) -> jax.Array:
        """Returns [T, B] the empirical rewards that users [B] gave to items [T, B]."""
        codes = jax.vmap(jax.vmap(world.env.ratings.lookup), (None, 0))(users, item)
        return world.env.reward_of_code[codes]

    def _states(self, learned: Learned, trajectory: Trajectory, empirical: jax.Array, steps: jax.Array) -> UserState:
        """Runs the filter along [T, B] episodes and returns the users' states before the given steps, [n * B]."""

        def advance(posterior: Any, seen: tuple[jax.Array, jax.Array]) -> tuple[Any, Any]:
            after = learned.answers.update(posterior, *seen, jnp.ones(seen[0].shape, bool))
            return after, filter_estimate(posterior)

        start = learned.answers.initial(trajectory.item.shape[1])
        mean, spread = jax.lax.scan(advance, start, (trajectory.item, empirical))[1]
        rows = (mean[steps], spread[steps], trajectory.status[steps])
        return self.policy.user_state(learned, *(row.reshape(-1, *row.shape[2:]) for row in rows))

    def _past_leaves(self, world: World, item: jax.Array, steps: jax.Array) -> jax.Array:
        """Returns [n * B, T] leaf slots that cannot be taken again at the given steps of [T, B] episodes."""
        before = self.env.recommended_before(world.tree.item_leaf[item], steps)
        return before.reshape(steps.size * item.shape[1], before.shape[-1])

    def _paths(self, params: ValueTreeParams, state: UserState, past_leaves: jax.Array, key: jax.Array) -> jax.Array:
        """Returns [S, P] deepest internal nodes to learn at: those of the beam, and those of random items."""
        beam = self.policy.follow_beam(params, jax.lax.stop_gradient(state), past_leaves)
        shape = (beam.shape[0], self.config.random_paths)
        item = jax.random.randint(key, shape, 0, self.policy.num_items)
        drawn = params.tables.item_leaf[item] // self.policy.network.num_children
        return jnp.concatenate([beam, drawn], 1)

    def _backup_loss(
        self, params: ValueTreeParams, state: UserState, node: jax.Array, past_leaves: jax.Array
    ) -> jax.Array:
        """Returns the mean squared distance of the internal heads' estimates along paths to what lies below.

        Args:
            state: [S], constants.
            node: [S, P] the deepest internal nodes of the paths.
            past_leaves: [S, T] leaf slots recommended before.
        """
        chex.assert_rank([node, past_leaves], 2)
        policy, loss = self.policy, jnp.float32(0)
        children = policy.network.num_children
        # Two paths of a user may end at one node, which `item_values` does not allow.
        alone = jax.tree.map(lambda rows: for_each(rows, node), (state, past_leaves))
        below = policy.item_values(params, alone[0], node.reshape(-1, 1), alone[1]).reshape(*node.shape, -1)

        # From the deepest level up: the best value below is what the head above should have estimated.
        for level in reversed(range(policy.network.depth - 1)):
            value = jax.lax.stop_gradient(jnp.max(below, -1))
            child, node = node % children, node // children
            # All paths share the root.
            below = policy.child_values(params, level, state, node[:, :1] if level == 0 else node, past_leaves)
            below = jnp.broadcast_to(below, (*node.shape, children))
            estimate = jnp.take_along_axis(below, child[:, :, None], -1)[:, :, 0]
            alive = (value > MASKED_LOGIT / 2) & (estimate > MASKED_LOGIT / 2)
            error = jnp.where(alive, estimate - value, 0) ** 2
            loss += jnp.sum(error) / jnp.maximum(jnp.sum(alive), 1)
        return loss
