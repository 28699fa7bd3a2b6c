"""Latent users small enough to enumerate, and the formulas of `hrlmg_jax.user_model.latent.users` in NumPy."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit, logsumexp

from hrlmg_jax.user_model.latent.fit import first_weights
from hrlmg_jax.user_model.latent.likelihood import LatentParams, LatentWeights
from hrlmg_jax.user_model.settings import FitConfig
from sim.datasets.sessions import SessionData
from sim.tables.events import CLICK, ORDER, SKIP

SMALL = [
    "simulator=latent",
    *("data.size=tiny", "data.num_users=60", "data.num_items=100"),
    *("simulator.embedding.size=4", "simulator.size=3", "simulator.interests=3", "simulator.tastes=2"),
    *("simulator.posterior_tastes=2", "simulator.posterior_interests=3", "simulator.batch_size=8"),
    *("simulator.exposures=ignored", "simulator.trial_sessions=0"),
    *("simulator.train.steps=6", "simulator.train.log_every=2", "simulator.train.evaluate_every=2"),
    *("simulator.train.checkpoint_every=2", "simulator.train.max_to_keep=9", "simulator.held_out_fraction=0.3"),
]


def some_weights(config: FitConfig, items: int, spread: float = -30.0) -> LatentWeights:
    """Weights drawn at random; components without spread are all the users there are, which can be enumerated."""
    weights = first_weights(config.simulator, jnp.zeros((items, 4)), jax.random.key(0))
    leaves, tree = jax.tree.flatten(weights)
    random = np.random.default_rng(0)
    drawn = jax.tree.unflatten(
        tree, [jnp.asarray(0.4 * random.standard_normal(leaf.shape), jnp.float32) for leaf in leaves]
    )
    size = config.simulator.size + 1
    return dataclasses.replace(
        drawn,
        interest_spread=jnp.full(size, spread),
        taste_spread=jnp.full(size, spread),
        bias=jnp.asarray([-1.0, 0.5]),
        leaving=jnp.asarray([1.0, -1.0, -0.5, -0.6, 0.5]),
        trust=jnp.asarray([0.5, -0.4, 3.0, -0.1, 0.6, 0.2, 1.0]),
    )


def answer_probabilities(params: LatentParams, taste, interest, items, answers, trust=0.0) -> np.ndarray:
    """[T, 3] what one user answers along a session while there, after the formulas of the docstring, in NumPy."""
    w = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params.weights)
    embedding = np.asarray(params.embedding, np.float64)
    clicks, tastes = embedding @ w.to_interest + w.own_interest, embedding @ w.to_taste
    orders = embedding @ w.to_order + w.own_order
    click_bias = w.bias[0] + embedding @ w.click_of_embedding + w.click_appeal
    order_bias = w.bias[1] + embedding @ w.order_of_embedding + w.order_appeal
    kept, moved, tired, found = 1.0, np.zeros(len(taste) - 1), np.zeros(embedding.shape[1]), []
    for step, (item, answer) in enumerate(zip(items, answers, strict=True)):
        position = w.position[0] * (1 - np.exp(-step / 10)) + w.position[1] * (1 - np.exp(-step / 60))
        logit = click_bias[item] + position + (kept * interest[:-1] + moved) @ clicks[item] + interest[-1]
        logit += taste[:-1] @ tastes[item] + w.taste_in_clicks * taste[-1] + w.trust[0] * trust
        logit -= np.log1p(np.exp(w.boredom[0])) * max(tired @ embedding[item], 0)
        click = expit(logit)
        order = expit(order_bias[item] + taste[:-1] @ orders[item] + taste[-1] + w.trust[1] * trust)
        found.append([1 - click, click * (1 - order), click * order])
        clicked = answer >= CLICK
        shown, click_pull, back = expit(w.drift)
        pull = shown + click_pull * clicked
        kept, moved = (
            kept * (1 - pull) + back * (1 - kept),
            moved * (1 - pull - back) + pull * w.drift_length * clicks[item],
        )
        tired = expit(w.boredom[1]) * tired + (1 - expit(w.boredom[1])) * embedding[item]
        trust = next_trust(w, orders[item] @ taste[:-1] + 0.3 * (order_bias[item] - w.bias[1]), trust, clicked)
    return np.asarray(found)


def next_trust(weights, fit: float, trust: float, clicked: bool) -> float:
    gain = clicked * (weights.trust[3] + weights.trust[4] * np.tanh((fit + weights.trust[5]) / 2))
    return float(np.clip(expit(weights.trust[2]) * trust + gain, -1, 1))


def trust_left(params: LatentParams, sessions) -> np.ndarray:
    """[M] the trust of users with each of the tastes when a session begins, after sessions (items, answers)."""
    w = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params.weights)
    embedding = np.asarray(params.embedding, np.float64)
    orders = embedding @ w.to_order + w.own_order
    appeal = 0.3 * (embedding @ w.order_of_embedding + w.order_appeal)
    found = []
    for taste in w.taste:
        trust = 0.0
        for items, answers in sessions:
            for item, answer in zip(items, answers, strict=True):
                trust = next_trust(w, orders[item] @ taste[:-1] + appeal[item], trust, answer >= CLICK)
            trust *= expit(w.trust[6])
        found.append(trust)
    return np.asarray(found)


def hazards(params: LatentParams, answers) -> np.ndarray:
    """[T] the chance of leaving before each item, in NumPy."""
    start, loss, gain, full, lack = np.asarray(params.weights.leaving, np.float64)
    patience, found = expit(start), []
    for answer in answers:
        found.append(expit(4 * (full + lack * (1 - patience))))
        patience = min(patience + expit(gain), 1) if answer >= CLICK else max(patience - expit(loss), 0)
    return np.asarray([0.0, *found[1:]])


def left_at_each_step(params: LatentParams, chances: np.ndarray, answers) -> np.ndarray:
    """[T + 1] p(answers, the user left before step k), by enumeration; the last: never left."""
    steps, hazard = len(answers), hazards(params, answers)
    found = []
    for left in range(steps + 1):
        gone = np.arange(steps) >= left
        here = np.where(gone[:, None], np.eye(3)[SKIP], chances)[np.arange(steps), answers].prod()
        found.append(here * np.prod(1 - hazard[:left]) * (hazard[left] if left < steps else 1))
    return np.asarray(found)


def enumerated(params: LatentParams, items, answers, trust=(0.0, 0.0)) -> tuple[np.ndarray, np.ndarray]:
    """[M, K] log p(answers | taste, interest) and [M, K, T, 3] probabilities of answers, each given those before it.

    A session that begins with a trust [M] for each taste.
    """
    w = params.weights
    pairs = itertools.product(zip(np.asarray(w.taste, float), trust, strict=True), np.asarray(w.interest, float))
    log_likelihood, found = [], []
    for (taste, trust_of_taste), interest in pairs:
        chances = answer_probabilities(params, taste, interest, items, answers, trust_of_taste)
        # The likelihood of every beginning of the session, with each next answer.
        joint = [
            [left_at_each_step(params, chances[: t + 1], [*answers[:t], one]).sum() for one in (SKIP, CLICK, ORDER)]
            for t in range(len(items))
        ]
        log_likelihood.append(np.log(left_at_each_step(params, chances, answers).sum()))
        found.append(np.asarray(joint) / np.sum(joint, 1, keepdims=True))
    shape = len(w.taste), len(w.interest)
    return np.reshape(log_likelihood, shape), np.reshape(found, (*shape, len(items), 3))


def log_share(logits) -> np.ndarray:
    logits = np.asarray(logits, float)
    return logits - logsumexp(logits)


def sessions_of(data: SessionData, user: int) -> list[np.ndarray]:
    log = data.log
    return [np.flatnonzero(log.session == session) for session in np.unique(log.session[log.user == user])]


def a_returning_user(data: SessionData) -> int:
    return next(user for user in range(data.log.num_users) if len(sessions_of(data, user)) >= 3)
