"""Optional pre-training of the encoder: a state must tell the rewards of the items seen so far."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sim.envs.fixed_policies import scripted_policy
from sim.envs.rating_env import Trajectory
from sim.envs.rollout import Environment, rollout
from sim.tables.ratings import RatingData
from tpgr_jax.networks.encoder import Encoder

LEARNING_RATE = 1e-3


def pretrain_encoder(
    encoder: Encoder,
    params: Any,
    env: Environment,
    env_params: Any,
    data: RatingData,
    users: np.ndarray,
    steps: int,
    episodes: int,
    seed: int,
) -> tuple[Any, list[float]]:
    """Trains the encoder on random episodes of training users by masked reconstruction.

    The reward of item j, seen before step t, is read out as (W s_t) . e_j; the squared error is averaged over all
    pairs (t, j seen before t). W is thrown away afterwards.

    Args:
        encoder: The policy's.
        params: Parameters of the policy's network; only those of the encoder change.
        data: Ratings, to draw items from.
        users: [n] training users.
        steps: Updates.
        episodes: Episodes per update.

    Returns:
        The parameters and the loss of each update.
    """
    generator = np.random.default_rng(seed)
    size = (encoder.embedding_size, encoder.state_size)
    readout = jax.random.normal(jax.random.key(seed), size) / np.sqrt(size[1])
    optimizer = optax.adam(LEARNING_RATE)
    learned = (params["encoder"], readout)
    opt_state = optimizer.init(learned)

    @jax.jit
    def update(env_params: Any, learned: Any, opt_state: Any, users: jax.Array, script: jax.Array) -> Any:
        trajectory = rollout(env, env_params, scripted_policy(), script, users, jax.random.key(0), False)
        value, gradient = jax.value_and_grad(
            lambda learned: _reconstruction_loss(encoder, learned[0], learned[1], trajectory)
        )(learned)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return optax.apply_updates(learned, updates), opt_state, value

    losses = []
    for _ in range(steps):
        batch = generator.choice(users, episodes)
        script = random_script(generator, data, batch, env.episode_length)
        learned, opt_state, value = update(env_params, learned, opt_state, jnp.asarray(batch), jnp.asarray(script))
        losses.append(float(value))
    return {**params, "encoder": learned[0]}, losses


def _reconstruction_loss(encoder: Encoder, params: Any, readout: jax.Array, trajectory: Trajectory) -> jax.Array:
    state = encoder.apply({"params": params}, trajectory.item, trajectory.reward, trajectory.status)
    table = params["item_embedding"]
    embedding = (table if encoder.train_embedding else jax.lax.stop_gradient(table))[trajectory.item]
    predicted = jnp.einsum("tbs,es,jbe->tjb", state, readout, embedding)
    steps = jnp.arange(trajectory.item.shape[0])
    seen = (steps[:, None] > steps)[:, :, None]
    error = jnp.where(seen, predicted - trajectory.reward[None], 0.0)
    return jnp.sum(error**2) / jnp.maximum(1, jnp.sum(seen) * trajectory.item.shape[1])


def random_script(
    generator: np.random.Generator, data: RatingData, users: np.ndarray, episode_length: int
) -> np.ndarray:
    """Returns [B, T] int32 random items without repeats per row; about half (where possible) rated by the user.

    Uniform items alone would nearly always be unrated, and there would be nothing to reconstruct.
    """
    script = np.empty((len(users), episode_length), np.int32)
    for row, user in enumerate(users):
        rated = np.asarray(data.items[data.indptr[user] : data.indptr[user + 1]], np.int32)
        liked = generator.choice(rated, min(len(rated), episode_length // 2), replace=False)
        others = generator.choice(data.num_items, min(data.num_items, 2 * episode_length), replace=False)
        fill = others[~np.isin(others, liked)][: episode_length - len(liked)]
        script[row] = generator.permutation(np.concatenate([liked, fill]))
    return script
