"""Fits latent users to logged sessions by maximum likelihood, tastes and interests summed out over draws."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from harness.compute.quick_compilation import quick_compilation
from harness.errors import UserError
from harness.runs.run_folder import RunFolder, make_folder
from hrlmg_jax.user_model.early_stopping import ENOUGH_USERS, Fit, FitState, begun_with, run_fit
from hrlmg_jax.user_model.item_embedding import told_by_others
from hrlmg_jax.user_model.latent.exposures import first_exposure_weights, log_chances_of_shown, log_shares, shown_items
from hrlmg_jax.user_model.latent.leaving import log_likelihood_of_users, only_those
from hrlmg_jax.user_model.latent.likelihood import (
    LatentParams,
    LatentWeights,
    Pieces,
    draw_users,
    items_of,
    log_likelihoods,
    trust_maps,
)
from hrlmg_jax.user_model.latent.logged_pieces import LoggedPieces
from hrlmg_jax.user_model.latent.trust import trust_along
from hrlmg_jax.user_model.settings import AUTO, EVIDENCE, IGNORED, FitConfig, LatentConfig
from sim.datasets.sessions import SessionData
from sim.tables.events import CLICK, ORDER

_DYNAMICS = ("boredom", "trust", "position", "leaving")
"""Few numbers, which all rows tell of: they are learned faster than what is said of single items."""
_PIECES = 5
"""Pieces of a user in a batch, the last ones."""
FURTHER = "exposures"
"""The folder, within the fit's, in which it goes on with what was shown as evidence (`simulator.exposures=auto`)."""
_LEAST_GAIN = 0.001
"""Share of the held-out log-loss that this must save: less may be the longer fit alone."""
_HOPELESS = 0.003
"""Share that it may cost after half of the steps, or it is given up."""
_ROOM = 1.15
"""A batch has room for so many times the pieces that its users have on average; more are left out."""


@flax.struct.dataclass
class FitWorld:
    """What fitting reads on the device.

    Attributes:
        sessions: Pieces of the log, those that are fitted to first.
        of_user: [2, u, 5] int32 the pieces of each training user, -1 for none, in two halves.
        embedding: [J, E].
        of_others: [2, J, E] for each half the vectors that the other half tells of.
        first: The weights to begin with.
        log_share: [I] of the training part's exposures, by item; None: what is shown is no evidence.
    """

    sessions: Pieces
    of_user: jax.Array
    embedding: jax.Array
    of_others: jax.Array
    first: LatentWeights
    log_share: jax.Array | None


def fit_latent(config: FitConfig, data: SessionData, embedding: np.ndarray, folder: RunFolder) -> LatentParams:
    """Fits the users by Adam on the likelihood of whole users, stopped early on held-out ones.

    With `exposures=auto` what was shown is ignored first; then the fit goes on with it as evidence, and that counts if
    it predicts the answers of held-out users better.

    Args:
        config: Settings.
        embedding: [J, E] item embeddings.
        folder: Of the fit's metrics and checkpoints, from which it continues.
    """
    settings = config.simulator
    assert isinstance(settings, LatentConfig)
    world, held_out = _make_world(settings, data, embedding)
    if settings.exposures != AUTO:
        return LatentParams(_maximised(settings, data, world, held_out, folder).best, world.embedding)
    unknown = world.first.exposure
    ignored = dataclasses.replace(world, first=dataclasses.replace(world.first, exposure=None), log_share=None)
    found = _maximised(settings, data, ignored, held_out, folder)
    weights = dataclasses.replace(found.best, exposure=unknown)
    if world.log_share is not None:
        further = RunFolder(folder.path / FURTHER)
        make_folder(further.path)
        steps = -(-settings.train.steps // 2)
        shorter = dataclasses.replace(settings, train=dataclasses.replace(settings.train, steps=steps))
        going_on, loss = dataclasses.replace(world, first=weights), float(found.best_loss)
        evidence = _maximised(shorter, data, going_on, held_out, further, give_up_above=(1 + _HOPELESS) * loss)
        if float(evidence.best_loss) < (1 - _LEAST_GAIN) * loss:
            weights = evidence.best
    return LatentParams(weights, world.embedding)


def _maximised(
    settings: LatentConfig,
    data: SessionData,
    world: FitWorld,
    held_out: np.ndarray,
    folder: RunFolder,
    give_up_above: float = np.inf,
) -> FitState:
    """Returns the fit's last state.

    A step takes users of one half of the training users, and item embeddings that the other half tells of
    (`told_by_others`).

    Args:
        held_out: [h, 5] the pieces of held-out users.
        give_up_above: Held-out log-loss that half of the steps must have reached, or the fit ends.
    """
    schedule = optax.cosine_decay_schedule(settings.learning_rate, settings.train.steps)
    optimizer = optax.flatten(optax.adam(schedule, b2=0.99))
    users, events = world.of_user.shape[1], len(_stopping_rows(settings, data))
    per_user = float(np.mean(np.sum(np.asarray(world.of_user) >= 0, -1)))
    size = min(settings.batch_size, users)
    room = int(np.ceil(size * per_user * _ROOM))

    def log_likelihood(
        weights: LatentWeights, world: FitWorld, embedding: jax.Array, of_user: jax.Array, room: int, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the sums of log p(answers and what was shown) and log p(what was shown), of users with pieces [u, 5].

        The latter is 0 where what is shown is no evidence; embedding [J, E] is of the items.
        """
        # The pieces of all of them in one list.
        order = jnp.argsort(of_user.ravel() < 0, stable=True)[:room]
        piece = of_user.ravel()[order]
        sessions = jax.tree.map(lambda column: column[jnp.maximum(piece, 0)], world.sessions)
        sessions = sessions._replace(shown=sessions.shown & (piece >= 0)[:, None])
        # And back at their users' places, summed over draws.
        draws = draw_users(weights, key, settings.tastes, settings.interests)
        items, exposures = items_of(weights, embedding), None
        if world.log_share is not None:
            shown = shown_items(world.log_share, jax.random.fold_in(key, 1))
            told = jax.lax.stop_gradient((items, draws))  # by answers, and not by what was shown
            exposures = log_chances_of_shown(weights, *told, sessions, shown)
        place = jnp.full(of_user.size, -1).at[order].set(jnp.where(piece >= 0, jnp.arange(len(piece)), -1))
        place = place.reshape(of_user.shape)
        # Trust goes from one piece to the next.
        maps = jax.tree.map(lambda array: array[place], trust_maps(weights, items, draws, sessions))
        begins = trust_along(weights.trust, maps, sessions.follows[place], place >= 0)
        trust = begins.reshape(of_user.size, -1)[order]
        by_piece = log_likelihoods(weights, items, draws, sessions, trust, exposures)
        by_user = jax.tree.map(lambda array: array[place], by_piece)
        by_taste = log_likelihood_of_users(only_those(by_user, place >= 0))
        both = jnp.sum(jax.nn.logsumexp(by_taste + draws.log_taste, -1))
        if exposures is None:
            return both, jnp.float32(0)
        shown_alone = jax.nn.logsumexp(exposures + draws.log_interest, -1)
        by_taste = jnp.sum(jnp.where((place >= 0)[..., None], shown_alone[place], 0.0), -2)
        return both, jnp.sum(jax.nn.logsumexp(by_taste + draws.log_taste, -1))

    def init(key: jax.Array, world: FitWorld) -> FitState:
        return begun_with(world.first, optimizer.init(world.first), key)

    def train_step(state: FitState, world: FitWorld) -> tuple[FitState, dict[str, jax.Array]]:
        user_key, draw_key = jax.random.split(jax.random.fold_in(state.key, state.step))
        half = state.step % 2
        chosen = world.of_user[half, jax.random.choice(user_key, users, (size,), replace=False)]

        def loss(weights: LatentWeights) -> tuple[jax.Array, jax.Array]:
            value = -log_likelihood(weights, world, world.of_others[half], chosen, room, draw_key)[0] / size
            return value + _penalty(settings, weights) / (2 * users), value

        (_, value), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradient, state.opt_state)
        faster: dict[str, Any] = {name: settings.dynamics_rate * getattr(updates, name) for name in _DYNAMICS}
        if updates.exposure is not None:
            quick = {
                name: settings.dynamics_rate * getattr(updates.exposure, name)
                for name in ("sharpness", "memory", "uniform")
            }
            faster["exposure"] = dataclasses.replace(updates.exposure, **quick)
        updates = dataclasses.replace(updates, **faster)
        weights: Any = optax.apply_updates(state.params, updates)
        return dataclasses.replace(state, params=weights, opt_state=opt_state, step=state.step + 1), {"loss": value}

    evaluation_key = jax.random.key(0)  # the same draws, so that weights are compared
    likelihood_of = jax.jit(
        lambda weights, world, of_user: log_likelihood(
            weights, world, world.embedding, of_user, of_user.size, evaluation_key
        ),
        compiler_options=quick_compilation(),
    )

    def evaluate(state: FitState) -> dict[str, float]:
        total = 0.0
        for first in range(0, len(held_out), size):
            batch = held_out[first : first + size]
            padded = np.full((size, held_out.shape[1]), -1, np.int32)
            padded[: len(batch)] = batch
            both, shown = likelihood_of(state.params, world, jnp.asarray(padded))
            total += float(both) - float(shown)  # of the answers, given what was shown
        return {"held_out_log_loss": -total / events}

    def hopeless(state: FitState) -> bool:
        return 2 * int(state.step) >= settings.train.steps and float(state.best_loss) > give_up_above

    return run_fit(Fit(init, train_step, world, "loss", evaluate, hopeless, few_steps=True), settings, data.log, folder)


def _stopping_rows(settings: LatentConfig, data: SessionData) -> np.ndarray:
    return data.rows_of_some_users("held_out", ENOUGH_USERS, settings.seed)


def _make_world(settings: LatentConfig, data: SessionData, embedding: np.ndarray) -> tuple[FitWorld, np.ndarray]:
    """Returns what fitting reads, and [h, 5] the pieces of held-out users."""
    pieces = LoggedPieces(data.log)
    rows = {"train": data.rows("train"), "held_out": _stopping_rows(settings, data)}
    numbers = {part: pieces.by_user(rows[part], _PIECES) for part in rows}
    # Pieces that nobody here has are left out; numbers are then places among the others.
    needed = np.unique(np.concatenate([table[table >= 0] for table in numbers.values()]))
    place = {part: np.where(table >= 0, np.searchsorted(needed, table), -1) for part, table in numbers.items()}
    clicks = log_share = None
    if settings.exposures == EVIDENCE and data.log.synthetic_skips:
        raise UserError(
            f"the skips of {data.log.name} are sampled: nobody was shown them, and they are evidence of nothing",
            where="simulator.exposures=evidence",
            do="Set simulator.exposures=auto, or ignored.",
        )
    if settings.exposures != IGNORED and not data.log.synthetic_skips:
        clicks = pieces.clicks_before()
        log_share = jnp.asarray(log_shares(data.log.item[rows["train"]], data.log.num_items))
    sessions, _, _ = pieces.padded(needed, clicks)
    vectors = jnp.asarray(embedding)
    first = _begun_from(settings, data, first_weights(settings, vectors, jax.random.key(settings.seed)), embedding)
    # Two halves of the training users, of one size.
    users = np.random.default_rng(settings.seed).permutation(len(place["train"]))
    halves = users[: len(users) // 2 * 2].reshape(2, -1)
    of_user = jnp.asarray(place["train"][halves], jnp.int32)
    whose = pieces.user[numbers["train"][:, 0]][halves]
    of_others = told_by_others(settings.embedding, data.log, rows["train"], whose, embedding, settings.seed)
    return FitWorld(sessions, of_user, vectors, jnp.asarray(of_others), first, log_share), place["held_out"]


def first_weights(settings: LatentConfig, embedding: jax.Array, key: jax.Array) -> LatentWeights:
    """Returns weights of the right shapes, with the dynamics to begin with."""
    (items, size), latent = embedding.shape, settings.size
    return LatentWeights(
        # Items: nothing is known of them but a little chance, which makes them differ.
        to_interest=jnp.zeros((size, latent)),
        to_taste=jnp.zeros((size, latent)),
        to_order=jnp.zeros((size, latent)),
        own_interest=jnp.zeros((items, latent)),
        own_order=jnp.zeros((items, latent)),
        click_of_embedding=0.01 * jax.random.normal(key, (size,)),
        order_of_embedding=0.01 * jax.random.normal(jax.random.fold_in(key, 1), (size,)),
        click_appeal=jnp.zeros(items),
        order_appeal=jnp.zeros(items),
        bias=jnp.zeros(2),
        # Who people are.
        interest=jnp.zeros((settings.interests, latent + 1)),
        taste=jnp.zeros((settings.tastes, latent + 1)),
        interest_spread=jnp.full(latent + 1, -1.0),
        taste_spread=jnp.full(latent + 1, -0.5),
        interest_share=jnp.zeros(settings.interests),
        taste_share=jnp.zeros(settings.tastes),
        taste_in_clicks=jnp.float32(0),
        # How answers change them: weakly, and hardly anybody leaves.
        drift=jnp.asarray([-4.5, -2.5, -5.0]),
        drift_length=jnp.float32(0.5),
        boredom=jnp.asarray([-2.0, 2.2]),
        trust=jnp.asarray([0.3, 0.3, 3.0, 0.05, 0.1, 0.0, 1.0]),
        position=jnp.zeros(2),
        leaving=jnp.asarray([3.0, -3.0, 0.0, -1.75, 0.75]),
        exposure=None if settings.exposures == IGNORED else first_exposure_weights(size),
    )


def _begun_from(
    settings: LatentConfig, data: SessionData, weights: LatentWeights, embedding: np.ndarray
) -> LatentWeights:
    """Returns the weights with rates of the log, the principal directions of what was shown, and centres of clusters.

    Interests begin near clusters of items, tastes between two of them.
    """
    from sklearn.cluster import KMeans  # slow to import, needed by this computation only

    counts = np.bincount(data.log.item[data.rows("train")], minlength=len(embedding)).astype(np.float64)
    centred = embedding - counts @ embedding / counts.sum()
    _, directions = np.linalg.eigh((centred * counts[:, None]).T @ centred)
    directions = directions[:, ::-1][:, : settings.size]
    directions = np.pad(directions, ((0, 0), (0, settings.size - directions.shape[1])))
    placed = centred @ directions
    scale = 1 / np.sqrt(np.maximum(np.mean(np.sum(placed**2, 1)), 1e-12))
    clusters = min(settings.interests, len(np.unique(placed, axis=0)))
    means = KMeans(clusters, n_init=2, random_state=settings.seed).fit(placed * scale, sample_weight=counts + 1)
    centres = means.cluster_centers_
    random = np.random.default_rng(settings.seed)
    two = random.integers(clusters, size=(settings.tastes, 2))
    feedback = data.log.feedback[data.rows("train")]
    click = np.mean(feedback >= CLICK)
    order = np.sum(feedback >= ORDER) / np.sum(feedback >= CLICK)
    logit = [np.log(p / (1 - p)) for p in np.clip([click, order], 1e-4, 1 - 1e-4)]
    direction = jnp.asarray(directions * scale, jnp.float32)
    return dataclasses.replace(
        weights,
        to_interest=direction,
        to_taste=0.3 * direction,
        to_order=direction,
        bias=jnp.asarray(logit, jnp.float32) - 0.7,  # what interests add makes up for it
        interest=weights.interest.at[:, :-1].set(2.5 * np.resize(centres, (settings.interests, settings.size))),
        taste=weights.taste.at[:, :-1].set(1.5 * centres[two].sum(1)),
    )


def _penalty(settings: LatentConfig, weights: LatentWeights) -> jax.Array:
    """Returns minus the logarithm of the Gaussian prior of the weights."""

    def squares(*arrays: jax.Array) -> jax.Array:
        return sum((jnp.sum(array**2) for array in arrays), jnp.float32(0)) / 2

    own = squares(weights.own_interest, weights.own_order)
    appeal = squares(weights.click_appeal, weights.order_appeal)
    directions = squares(weights.to_interest, weights.to_taste, weights.to_order)
    others = squares(weights.click_of_embedding, weights.order_of_embedding, weights.interest, weights.taste)
    if weights.exposure is not None:
        others += squares(weights.exposure.turned - jnp.eye(len(weights.exposure.turned)))
    return settings.item_decay * own + settings.appeal_decay * appeal + settings.weight_decay * (directions + others)
