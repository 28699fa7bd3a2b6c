"""Item vectors from a variational auto-encoder (Kingma and Welling 2013) on the items' rating vectors."""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.sparse

HIDDEN = 128
KL_WEIGHT = 0.2
LEARNING_RATE = 1e-3
_DENSE_NUMBERS_PER_BATCH = 2**24


class ItemAutoEncoder(nn.Module):
    """Rating vector -> (mean, log variance) -> reconstruction, with a multinomial likelihood over the users.

    Attributes:
        num_users: n, length of a rating vector.
        size: F, length of an item vector.
    """

    num_users: int
    size: int

    def setup(self) -> None:
        """Declares the layers."""
        self.encoder_hidden = nn.Dense(HIDDEN)
        self.posterior = nn.Dense(2 * self.size)
        self.decoder_hidden = nn.Dense(HIDDEN)
        self.output = nn.Dense(self.num_users)

    def encode(self, ratings: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns [b, F] posterior mean and log variance for [b, n] rating vectors."""
        norm = jnp.linalg.norm(ratings, axis=-1, keepdims=True)
        mean, log_variance = jnp.split(self.posterior(jnp.tanh(self.encoder_hidden(ratings / (norm + 1e-6)))), 2, -1)
        return mean, jnp.clip(log_variance, -10, 10)

    def __call__(self, ratings: jax.Array, key: jax.Array) -> jax.Array:
        """Returns the negative evidence lower bound, averaged over the ratings of the batch."""
        mean, log_variance = self.encode(ratings)
        code = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
        log_probs = jax.nn.log_softmax(self.output(jnp.tanh(self.decoder_hidden(code))))
        total = jnp.sum(ratings, -1) + 1e-6
        likelihood = jnp.sum(ratings * log_probs, -1) / total
        divergence = 0.5 * jnp.sum(jnp.exp(log_variance) + mean**2 - 1 - log_variance, -1)
        return jnp.mean(KL_WEIGHT * divergence / total - likelihood)


def vae_vectors(item_ratings: scipy.sparse.csr_array, size: int, epochs: int, seed: int) -> np.ndarray:
    """Trains the auto-encoder and returns the posterior means as item vectors, [I, size] float32.

    Args:
        item_ratings: [I, n] sparse; only a batch of rows at a time becomes dense.
        size: F.
        epochs: Passes over the items.
        seed: Of initialisation, noise and batches.
    """
    num_items, num_users = item_ratings.shape
    batch_size = int(np.clip(_DENSE_NUMBERS_PER_BATCH // max(1, num_users), 1, min(256, num_items)))
    model = ItemAutoEncoder(num_users, size)
    init_key, key = jax.random.split(jax.random.key(seed))
    params = model.init(init_key, jnp.zeros((1, num_users)), init_key)["params"]
    optimizer = optax.adam(LEARNING_RATE)
    opt_state = optimizer.init(params)

    @partial(jax.jit, donate_argnums=(0, 1))
    def train_step(params: Any, opt_state: Any, ratings: jax.Array, key: jax.Array) -> tuple[Any, Any]:
        gradient = jax.grad(lambda params: model.apply({"params": params}, ratings, key))(params)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return optax.apply_updates(params, updates), opt_state

    # Training: a batch of rows at a time.
    encode = jax.jit(lambda params, ratings: model.apply({"params": params}, ratings, method=ItemAutoEncoder.encode)[0])
    generator = np.random.default_rng(seed)
    step = 0
    for _ in range(epochs):
        order = generator.permutation(num_items)
        for start in range(0, num_items - batch_size + 1, batch_size):
            ratings = item_ratings[order[start : start + batch_size]].toarray()
            params, opt_state = train_step(params, opt_state, ratings, jax.random.fold_in(key, step))
            step += 1

    # Posterior means of all items.
    vectors = np.empty((num_items, size), np.float32)
    for start in range(0, num_items, batch_size):
        rows = np.arange(start, start + batch_size) % num_items  # one shape, so one compilation
        stop = min(start + batch_size, num_items)
        vectors[start:stop] = np.asarray(encode(params, item_ratings[rows].toarray()))[: stop - start]
    return vectors
