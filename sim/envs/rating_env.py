"""The rating simulator of the TPGR paper (Eq. 6): a user answers each recommendation with a sequential reward."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from harness.errors import UserError
from harness.settings import Count, NotNegative, SettingError
from sim.envs.available_items import recommended_before
from sim.envs.policy import Decision, Policy, with_random_first_item
from sim.envs.rating_lookup import RatingLookup, make_rating_lookup
from sim.envs.simulator import EnvSettings, Simulator
from sim.tables.ratings import RatingData
from sim.tables.ratings_apart import apart_in, setting_without

STATUS_SIZE = 9
CONSECUTIVE_NEGATIVE, CONSECUTIVE_POSITIVE = 4, 5  # indices in the user status
NO_ITEM = -1


@dataclass(frozen=True)
class EnvConfig(EnvSettings):
    """Settings of the rating simulator (`conf/env/rating.yaml` explains each)."""

    alpha: NotNegative
    episode_length: Count
    reward_scale: Literal["half_open", "symmetric"]
    cold_start: Literal["policy", "random"]
    allow_repeats: bool
    rating_layout: Literal["auto", "dense", "csr"]
    dense_limit_mb: NotNegative
    counts_by: Literal["sign", "rating"] = "sign"

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the key."""
        if self.cold_start == "random" and self.episode_length < 2:
            raise SettingError(".cold_start=random leaves nothing to decide", do="Set .episode_length to at least 2.")

    @property
    def protocol(self) -> dict[str, Any]:
        """The settings that decide results, as `eval.json` keeps them."""
        keys = ("alpha", "counts_by", "episode_length", "reward_scale", "cold_start")
        return {key: getattr(self, key) for key in keys}

    @property
    def description(self) -> str:
        """The weight of the sequential reward."""
        return f"alpha {self.alpha:g}"


Settings = EnvConfig
"""The name by which `sim.envs.simulator` looks for a simulator's settings."""


def empirical_rewards(data: RatingData, reward_scale: str) -> np.ndarray:
    """Returns the empirical reward of each rating code, [V + 1] float64, linear in the rating; 0 for "not rated".

    Args:
        data: The ratings, with their values and scale.
        reward_scale: "half_open" maps r to 2 r / rating_max - 1 (range (-1, 1] for positive ratings, the paper's
            (a, b]); "symmetric" maps [rating_min, rating_max] onto [-1, 1].

    Raises:
        UserError: The scale cannot be mapped into [-1, 1] this way.
    """
    values = data.rating_values[1:]
    if reward_scale == "half_open":
        if data.rating_min < 0 or data.rating_max <= 0:
            raise _below_zero(data)
        rewards = 2 * values / data.rating_max - 1
    else:
        if data.rating_max <= data.rating_min:
            raise UserError(
                f"env.reward_scale=symmetric needs a scale, {data.name} has only the rating {data.rating_min:g}",
                do="Set data.rating_min and data.rating_max, or use env.reward_scale=half_open.",
            )
        rewards = 2 * (values - data.rating_min) / (data.rating_max - data.rating_min) - 1
    # The middle of a scale must be exactly 0, whatever the rounding of its ends.
    return np.concatenate([[0.0], np.round(rewards, 12)])


def _below_zero(data: RatingData) -> UserError:
    """Returns what is wrong with ratings below 0: first that some stand apart, for their scale is not known till then.

    No advice leaves out ratings that do not stand apart.
    """
    low, high = data.rating_min, data.rating_max
    problem = f"env.reward_scale=half_open needs ratings >= 0, {data.name} has a scale of {low:g} to {high:g}"
    if apart := apart_in(data):
        setting = setting_without(data, apart)
        do = f"Correct the file if that is wrong; {'; '.join(one.advise(setting) for one in apart)}."
        rest_low, rest_high = apart[0].rest
        if rest_low < 0:
            do += f" The others are from {rest_low:g} to {rest_high:g}: add env.reward_scale=symmetric for them."
        elif low < 0:
            do += f" Use env.reward_scale=symmetric if {low:g} is a rating like the others."
        return UserError(f"{' and '.join(one.describe() for one in apart)}; {problem}", where=data.source, do=do)
    if abs(low + high) <= 0.2 * (high - low):
        return UserError(problem, do="Use env.reward_scale=symmetric.")
    place = f", first on {data.value_places[0]}" if data.value_places else ""
    do = (
        "If the scale is right, use env.reward_scale=symmetric (data.rating_min and data.rating_max give its ends); "
        f"else correct the file: its lowest rating is {np.nanmin(data.rating_values):g}{place}."
    )
    return UserError(problem, where=data.source, do=do)


@flax.struct.dataclass
class EnvParams:
    """The tables of the simulator (traced).

    Attributes:
        ratings: Rating codes of all users.
        reward_of_code: [V + 1] float32 empirical reward of each code; entry 0 is 0.
        relevant_code: [V + 1] bool, whether the rating counts as a hit.
        sign_of_code: [V + 1] int8, whether an answer counts as positive (1), negative (-1) or neither (0) in the user
            status and in c_p and c_n of Eq. 6.
        users: [n] int32 users that `reset` draws from.
        alpha: float32 weight of the sequential reward (Eq. 6).
    """

    ratings: RatingLookup
    reward_of_code: jax.Array
    relevant_code: jax.Array
    sign_of_code: jax.Array
    users: jax.Array
    alpha: jax.Array


@flax.struct.dataclass
class EnvState:
    """One episode (shapes without the batch axis that the rollout vmaps).

    Attributes:
        user: int32, the user of this episode.
        step: int32, recommendations made so far.
        recommended: [T] int32 items in the order recommended, -1 = not yet.
        counts: [9] int32: total negative, positive, zero; steps; consecutive negative, positive, zero, not negative,
            not positive.
        last_reward: float32 reward R of the previous step, 0 before the first.
        last_empirical: float32 empirical reward r of the previous step, 0 before the first.
    """

    user: jax.Array
    step: jax.Array
    recommended: jax.Array
    counts: jax.Array
    last_reward: jax.Array
    last_empirical: jax.Array


@flax.struct.dataclass
class Observation:
    """What a policy sees before a recommendation.

    Attributes:
        step: int32, recommendations made so far.
        recommended: [T] int32 items recommended so far in order, padded with -1; [0] if repeats are allowed.
        last_item: int32 item of the previous step, -1 before the first.
        last_reward: float32 reward R of the previous step, 0 before the first.
        last_empirical: float32 empirical reward r of the previous step (the user's answer to the item, without the
            sequential part of R), 0 before the first and for an item that the user did not rate.
        status: [9] float32 user status, each count divided by T (all zero before the first step).
    """

    step: jax.Array
    recommended: jax.Array
    last_item: jax.Array
    last_reward: jax.Array
    last_empirical: jax.Array
    status: jax.Array


class Answer(NamedTuple):
    """A user's answer: `empirical` float32 reward r of it, and its `sign` int8 (1 positive, -1 negative, 0 neither)."""

    empirical: chex.Array
    sign: chex.Array


class StepInfo(NamedTuple):
    """Details of one step: `empirical` float32 reward r, `hit` bool (a relevant item), `repeated` bool."""

    empirical: jax.Array
    hit: jax.Array
    repeated: jax.Array

    @property
    def answer(self) -> jax.Array:
        """What the user answered, as a number: r."""
        return self.empirical


@flax.struct.dataclass
class Trajectory:
    """B episodes of T steps, time first.

    Attributes:
        item: [T, B] int32 recommended items.
        reward: [T, B] float32 rewards R (Eq. 6).
        hit: [T, B] bool, the item is relevant to the user.
        repeated: [T, B] bool, the item had been recommended before in the episode.
        log_prob: [T, B] float32 log-probability of the item under the policy that acted.
        status: [T, B, 9] float32 user status before the step.
    """

    item: jax.Array
    reward: jax.Array
    hit: jax.Array
    repeated: jax.Array
    log_prob: jax.Array
    status: jax.Array


@dataclass(frozen=True)
class RatingEnv:
    """The rating simulator: pure functions of one episode (gymnax 1.0 signature). Its fields are static.

    Attributes:
        num_items: I.
        episode_length: T.
        cold_start: "policy" or "random" (the rollout draws the first item uniformly).
        allow_repeats: Whether a repeated item is rewarded again (only for the paper's timing study); then observations
            carry no recommended items. Otherwise a repeated item counts as not rated: empirical reward 0,
            no hit, `info.repeated` true.
    """

    num_items: int
    episode_length: int
    cold_start: str = "policy"
    allow_repeats: bool = False

    @property
    def first_decision(self) -> int:
        """1 where the first item is drawn, else 0."""
        return 1 if self.cold_start == "random" else 0

    def draw_starts(self, key: jax.Array, params: EnvParams, number: int) -> jax.Array:
        """Returns [number] int32 users drawn uniformly from `params.users`, with replacement."""
        return jax.random.choice(key, params.users, (number,))

    def reset(self, key: jax.Array, params: EnvParams) -> tuple[Observation, EnvState]:
        """Starts an episode with a user drawn uniformly from `params.users`."""
        return self.reset_at(jax.random.choice(key, params.users), params)

    def reset_at(self, start: jax.Array, params: EnvParams | None = None) -> tuple[Observation, EnvState]:
        """Starts an episode with the given user (int32 scalar); `params` is not needed."""
        del params
        chex.assert_rank(start, 0)
        state = EnvState(
            user=jnp.asarray(start, jnp.int32),
            step=jnp.int32(0),
            recommended=jnp.full((self.episode_length,), NO_ITEM, jnp.int32),
            counts=jnp.zeros((STATUS_SIZE,), jnp.int32),
            last_reward=jnp.float32(0),
            last_empirical=jnp.float32(0),
        )
        return self._observe(state), state

    def step(
        self, key: jax.Array, state: EnvState, action: jax.Array, params: EnvParams
    ) -> tuple[Observation, EnvState, jax.Array, jax.Array, jax.Array, StepInfo]:
        """Recommends item `action`: R = r + alpha * (c_p - c_n) with the counts before this step (Eq. 6).

        Args:
            key: Unused: the simulator is deterministic.
            state: State before the step.
            action: int32 item in [0, I).
            params: The simulator's tables.

        Returns:
            Observation, state, reward (float32), terminated (always False), truncated (True at step T) and StepInfo.
        """
        del key
        chex.assert_rank(action, 0)
        # Eq. 6: the answer of the user, and the sequential part.
        code = params.ratings.lookup(state.user, action)
        repeated = jnp.any(state.recommended == action)
        if not self.allow_repeats:
            code = jnp.where(repeated, 0, code)
        answer = Answer(params.reward_of_code[code], params.sign_of_code[code])
        observation, state = self.answer(state, action, answer, params)
        truncated = state.step >= self.episode_length
        info = StepInfo(answer.empirical, params.relevant_code[code], repeated)
        return observation, state, state.last_reward, jnp.bool_(False), truncated, info

    def answer(
        self, state: EnvState, item: jax.Array, answer: Answer, params: EnvParams
    ) -> tuple[Observation, EnvState]:
        """Takes a step with an answer that is given, as by a real user; see `step`.

        Args:
            state: State before the step.
            item: int32 item that was recommended.
            answer: Scalars.
            params: Only alpha is read.
        """
        sequential = (state.counts[CONSECUTIVE_POSITIVE] - state.counts[CONSECUTIVE_NEGATIVE]).astype(jnp.float32)
        state = EnvState(
            user=state.user,
            step=state.step + 1,
            recommended=state.recommended.at[state.step].set(item),
            counts=_count(state.counts, answer.sign),
            last_reward=answer.empirical + params.alpha * sequential,
            last_empirical=answer.empirical,
        )
        return self._observe(state), state

    def recommended_before(self, items: jax.Array, steps: jax.Array | None = None) -> jax.Array:
        """Returns [n, B, T] the `recommended` of the observations before steps [n] (None: all) of episodes [T, B].

        [n, B, 0] if repeats are allowed.
        """
        before = recommended_before(items, steps)
        return before[..., :0] if self.allow_repeats else before

    def prepare(self, policy: Policy) -> Policy:
        """Returns the policy, with a uniformly random first item if `cold_start` is "random"."""
        return with_random_first_item(policy, self.num_items) if self.cold_start == "random" else policy

    def record(self, observation: Observation, decision: Decision, reward: jax.Array, info: StepInfo) -> Trajectory:
        """Returns one step of a trajectory."""
        return Trajectory(decision.action, reward, info.hit, info.repeated, decision.log_prob, observation.status)

    def _observe(self, state: EnvState) -> Observation:
        previous = jnp.maximum(state.step - 1, 0)
        return Observation(
            step=state.step,
            recommended=state.recommended[:0] if self.allow_repeats else state.recommended,
            last_item=state.recommended[previous],  # -1 before the first step
            last_reward=state.last_reward,
            last_empirical=state.last_empirical,
            status=state.counts.astype(jnp.float32) / self.episode_length,
        )


def _count(counts: jax.Array, sign: jax.Array) -> jax.Array:
    """Updates the nine counts with the sign of one answer; a consecutive count restarts when its run ends."""
    negative, positive, zero = sign < 0, sign > 0, sign == 0
    happened = jnp.stack([negative, positive, zero, jnp.bool_(True)]).astype(jnp.int32)
    continues = jnp.stack([negative, positive, zero, ~negative, ~positive])
    return jnp.concatenate([counts[:4] + happened, jnp.where(continues, counts[4:] + 1, 0)])


def statuses(sign: jax.Array) -> jax.Array:
    """Returns the user status [T, 9] before each of T steps, from the signs of the first T - 1 answers."""
    first = jnp.zeros((STATUS_SIZE,), jnp.int32)

    def step(counts: jax.Array, sign: jax.Array) -> tuple[jax.Array, jax.Array]:
        counts = _count(counts, sign)
        return counts, counts

    counts = jnp.concatenate([first[None], jax.lax.scan(step, first, sign)[1]])
    return counts.astype(jnp.float32) / counts.shape[0]


def make_rating_env(config: EnvConfig, data: RatingData) -> RatingEnv:
    """Builds the environment's static part.

    Raises:
        UserError: The catalogue has fewer items than an episode without repeats needs.
    """
    if not config.allow_repeats and data.num_items < config.episode_length:
        raise UserError(
            f"{data.name} has {data.num_items} items, an episode recommends {config.episode_length} different ones",
            where=data.source,
            do=f"Set env.episode_length to at most {data.num_items}.",
        )
    return RatingEnv(data.num_items, config.episode_length, config.cold_start, config.allow_repeats)


def make_env_params(config: EnvConfig, data: RatingData, users: np.ndarray, relevant_above: float) -> EnvParams:
    """Copies the simulator's tables to the device.

    Args:
        config: Simulator settings.
        data: Ratings of all users.
        users: [n] users that `reset` draws from.
        relevant_above: Ratings above this value are relevant.
    """
    relevant, rewards, sign = _answers_by_code(config, data, relevant_above)
    return EnvParams(
        ratings=make_rating_lookup(data, config.rating_layout, config.dense_limit_mb),
        reward_of_code=jnp.asarray(rewards, jnp.float32),
        relevant_code=jnp.asarray(relevant),
        sign_of_code=jnp.asarray(sign, jnp.int8),
        users=jnp.asarray(users, jnp.int32),
        alpha=jnp.float32(config.alpha),
    )


def answers_of_ratings(config: EnvConfig, data: RatingData, ratings: np.ndarray, relevant_above: float) -> Answer:
    """Returns the answers that ratings [n] on the scale of the data are, NumPy arrays [n]; NaN is "not rated"."""
    distinct, code = np.unique(np.append(np.asarray(ratings, np.float64), np.nan), return_inverse=True)
    values = np.append(np.nan, distinct[:-1])  # NaN is the last of the distinct ones, and code 0 of a table
    _, rewards, sign = _answers_by_code(config, dataclasses.replace(data, rating_values=values), relevant_above)
    code = (code[:-1] + 1) % len(values)
    return Answer(rewards.astype(np.float32)[code], sign.astype(np.int8)[code])


def _answers_by_code(
    config: EnvConfig, data: RatingData, relevant_above: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns of each rating code [V + 1] whether it counts as a hit, its empirical reward and its sign."""
    with np.errstate(invalid="ignore"):
        relevant = data.rating_values > relevant_above  # NaN ("not rated") compares false
    rewards = empirical_rewards(data, config.reward_scale)
    sign = np.sign(rewards)
    if config.counts_by == "rating":
        sign = np.where(np.isnan(data.rating_values), 0, np.where(relevant, 1, -1))
    return relevant, rewards, sign


def build(settings: EnvConfig, data: RatingData, train_users: np.ndarray, relevant_above: float) -> Simulator:
    """Builds the simulator; see `sim.envs.simulator.make_simulator`."""
    params = make_env_params(settings, data, train_users, relevant_above)
    return Simulator(make_rating_env(settings, data), params, empirical_rewards(data, settings.reward_scale))
