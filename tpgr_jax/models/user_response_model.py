"""A Gaussian model of a user's answers with K factors: what every recommendation tells about all other items.

An answer has three channels: whether the item is rated at all, whether its empirical reward is positive, and the
empirical reward. Over users, the channels of all items are jointly Gaussian with covariance `loadings loadings^T` plus
a 3 x 3 block per item, so that conditioning on the answers seen so far is a Kalman filter on the user's K factors,
O(K^2) per step (Rasmussen and Williams 2006, appendix A.2; Kalman 1960).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from harness.settings import Count, Positive
from sim.envs.rating_env import Observation
from tpgr_jax.models.coded_rewards import CodedRewards
from tpgr_jax.models.kalman import KalmanState
from tpgr_jax.models.reward_moments import largest_eigenvectors

RATED, POSITIVE, REWARD = 0, 1, 2
CHANNELS = 3
_COMBINATIONS = 2  # of the channels that are observed: what the third would add changes no result


@dataclass(frozen=True)
class UserResponseModelConfig:
    """What the model keeps (`conf/agent/tpgr_plus.yaml`)."""

    factors: Count
    noise: Positive
    channels: Literal["all", "reward"]


@flax.struct.dataclass
class UserResponseModel:
    """What the filter reads.

    Attributes:
        mean: [I, 3] float32 mean of each channel.
        whitening: [I, N, 3] float32; turns an item's answer into its N <= 3 most informative combinations of channels,
            whose parts that the factors leave unexplained are uncorrelated and have unit variance.
        loadings: [I, N, K] float32 loadings of these combinations.
    """

    mean: jax.Array
    whitening: jax.Array
    loadings: jax.Array

    def initial(self, batch_size: int) -> KalmanState:
        """Returns what is known of B users' factors before the first answer: N(0, identity)."""
        return KalmanState.initial(jnp.zeros(self.loadings.shape[-1]), jnp.float32(1), batch_size)

    def update(self, posterior: KalmanState, item: jax.Array, empirical: jax.Array, observed: jax.Array) -> KalmanState:
        """Takes in one answer per episode.

        Args:
            item: [B] int32 recommended items.
            empirical: [B] their empirical rewards.
            observed: [B] bool; where false nothing changes.
        """
        innovation = channels_of(empirical) - self.mean[item]
        whitened = jnp.sum(self.whitening[item] * innovation[:, None, :], -1)
        return posterior.update_many(self.loadings[item], whitened, 1.0, observed)[0]

    def after_last(self, posterior: KalmanState, observation: Observation) -> KalmanState:
        """Takes in the answers to the last items (nothing before the first step)."""
        item = jnp.maximum(observation.last_item, 0)
        return self.update(posterior, item, observation.last_empirical, observation.step > 0)


def channels_of(empirical: jax.Array) -> jax.Array:
    """Returns the [..., 3] float32 channels of empirical rewards; a reward of exactly 0 counts as not rated."""
    return jnp.stack([empirical != 0, empirical > 0, empirical], -1).astype(jnp.float32)


class FittedResponses(NamedTuple):
    """The model on the host: `model` as the filter reads it, `mean` [I, 3] and `loadings` [I, 3, K] of the channels."""

    model: UserResponseModel
    mean: np.ndarray
    loadings: np.ndarray


def empty_response_model(num_items: int, config: UserResponseModelConfig) -> UserResponseModel:
    """Returns a model of the given shape that knows nothing."""
    observed = _observed(config)
    return UserResponseModel(
        jnp.zeros((num_items, CHANNELS)),
        jnp.zeros((num_items, observed, CHANNELS)),
        jnp.zeros((num_items, observed, config.factors)),
    )


def _observed(config: UserResponseModelConfig) -> int:
    return _COMBINATIONS if config.channels == "all" else 1


def fit_response_model(
    config: UserResponseModelConfig, answers: CodedRewards, seed: int, seen: float = 1.0
) -> FittedResponses:
    """Estimates the model from users' answers, in closed form.

    Factors are principal components of the stacked channels over users. With few users these overfit, so each
    component's variance is lowered by what pure noise of the same total would have given it: the rest divided by the
    number of users (Marchenko and Pastur 1967).

    Args:
        answers: Of n training users; what a user has not answered has an empirical reward of 0.
        seed: Of the iteration that finds the factors.
        seen: Share of the users' answers that these are, the others missing at random; 1 for all of them.

    Raises:
        UserError: More factors than channels of items.
    """
    # Means and mean products of the channels, which are functions of an answer's code.
    num_users, num_items = answers.num_users, answers.num_items
    channels = np.stack([answers.rewards != 0, answers.rewards > 0, answers.rewards]).astype(np.float64)
    observed = slice(None) if config.channels == "all" else slice(REWARD, None)
    share = answers.counts / num_users / seen
    mean = channels @ share
    moments = np.einsum("cv,dv,vi->icd", channels, channels, share)

    # Principal components of the channels, and how much of their variance is noise.
    def covariances(write: np.ndarray, write_mean: np.ndarray, vector: np.ndarray) -> np.ndarray:
        """Returns [D, I] covariances of channels with what a vector [C * I] makes of the observed ones."""
        vector = vector.reshape(-1, num_items)
        products = answers.second_moments(write, channels[observed], vector) / num_users / seen**2
        return products - write_mean * np.sum(mean[observed] * vector)

    size = mean[observed].size
    values, vectors = largest_eigenvectors(
        lambda vector: covariances(channels[observed], mean[observed], vector).reshape(-1), size, config.factors, seed
    )
    total = float(np.sum(channels[observed] ** 2 @ share) / seen - np.sum(mean[observed] ** 2))
    noise_level = max(total - float(values.sum()), 0.0) / num_users

    # How every channel, whether observed or not, varies with each component.
    slopes = np.stack([covariances(channels, mean, vector).T for vector in vectors.T], -1)

    # Missing answers make each item seem to vary more by itself, though not with others: that is taken off again.
    axes = np.moveaxis(vectors.reshape(-1, num_items, config.factors), 0, 1)
    excess = (1 / seen - 1) * np.einsum("icd,idk->ick", moments[:, :, observed], axes)
    values = np.maximum(values - np.sum(axes * excess[:, observed], (0, 1)), 1e-12)
    loadings = (slopes - excess) * np.sqrt(np.maximum(values - noise_level, 0)) / values

    # What the factors leave unexplained of each item's channels, and the combinations that whiten it.
    mean = mean.T
    covariance = moments - mean[:, :, None] * mean[:, None, :]
    residual = covariance - np.einsum("ick,idk->icd", loadings, loadings)
    whitening = _whitening(residual, config.noise, config.channels == "all")
    combined = np.einsum("icd,idk->ick", whitening, loadings)

    # Rotated so that the first combinations carry the most.
    rotation = np.swapaxes(np.linalg.svd(combined, full_matrices=False)[0], 1, 2)[:, : _observed(config)]
    model = UserResponseModel(_float32(mean), _float32(rotation @ whitening), _float32(rotation @ combined))
    return FittedResponses(model, mean, loadings)


def _whitening(residual: np.ndarray, noise: float, all_channels: bool) -> np.ndarray:
    """Returns W, [I, 3, 3] or for the reward alone [I, 1, 3], with W (residual + noise) W^T = identity."""
    if not all_channels:
        variance = np.maximum(residual[:, REWARD, REWARD], 0) + noise
        return np.eye(CHANNELS)[REWARD] / np.sqrt(variance)[:, None, None]
    # Rounding, or answers that are only partly seen, must not make a variance negative.
    values, vectors = np.linalg.eigh(residual)
    scaled = vectors / np.sqrt(np.maximum(values, 0) + noise)[:, None, :]
    return np.swapaxes(scaled, 1, 2)


def _float32(values: np.ndarray) -> jax.Array:
    return jnp.asarray(values, jnp.float32)
