"""Fits the user-feedback simulator to a log, says how good it is, and keeps it (Section 4.1)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.metrics import average_precision_score, roc_auc_score

from harness import provenance
from harness.agent import Agent
from harness.loop import run_training
from harness.members import Member
from harness.plots import plot_reliability
from harness.run_folder import RunFolder, make_folder, read_arrays, read_json, write_arrays, write_json
from hrlmg_jax.feedback import FeedbackNetwork, FeedbackParams, LearnedFeedback
from hrlmg_jax.item_embedding import embed_items
from hrlmg_jax.session_data import SessionData
from hrlmg_jax.settings import FitConfig, SimulatorConfig
from sim.errors import UserError
from sim.events import CLICK, FEEDBACK_NAMES, NUM_FEEDBACK, ORDER, EventLog, kind_of
from sim.fixed_policies import scripted_policy
from sim.funnel import best_log_loss
from sim.histories import HistoryTable
from sim.rollout import rollout
from sim.session_env import SessionEnv, SessionParams

_EVALUATION_ROWS = 8192
_CALIBRATION_BINS = 15
_SIMULATED_SESSIONS = 1024
_SHOWN = FEEDBACK_NAMES[CLICK:]
FILE = "simulator.npz"
REPORT = "simulator.json"


@dataclass(frozen=True)
class Simulator:
    """A learned user.

    Attributes:
        model: Its network.
        params: The network's parameters and the item embedding.
        report: How good it is.
    """

    model: LearnedFeedback
    params: FeedbackParams
    report: dict[str, Any]


@flax.struct.dataclass
class FitWorld:
    """What fitting reads on the device: the log and its training rows."""

    table: HistoryTable
    feedback: jax.Array
    rows: jax.Array
    embedding: jax.Array


@flax.struct.dataclass
class FitState:
    """What fitting changes.

    Attributes:
        params: Network parameters.
        opt_state: Of Adam.
        best: Parameters with the lowest held-out log-loss so far.
        best_loss: That log-loss.
        stale: int32 evaluations since.
        step: int32 updates done.
        key: Of the run.
    """

    params: Any
    opt_state: Any
    best: Any
    best_loss: jax.Array
    stale: jax.Array
    step: jax.Array
    key: jax.Array


def simulator_folder(config: FitConfig, data: SessionData) -> RunFolder:
    """Returns where the simulator of these settings and this log is kept."""
    decisive = {
        "data": data.log.checksum,
        "events": data.log.num_events,
        "split": [data.num_items, int(data.is_test.sum()), data.log.num_users],
        "settings": {key: value for key, value in dataclasses.asdict(config.data).items() if key not in _PLACES},
        "history_length": config.env.history_length,
        "simulator": {key: value for key, value in dataclasses.asdict(config.simulator).items() if key != "root"},
    }
    key = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:10]
    return RunFolder(Path(config.simulator.root).expanduser() / f"{data.log.name}-{key}")


_PLACES = ("root", "cache", "path", "max_unpacked_gib", "obtain")


def obtain_simulator(
    config: FitConfig, values: dict[str, Any], data: SessionData, copy_to: RunFolder | None = None
) -> Simulator:
    """Returns the simulator of these settings: the one that is kept, or else it is fitted (or its fit continued) now.

    Args:
        config: Settings.
        values: The same as plain values, for the folder's record.
        data: The log.
        copy_to: A run folder that shall hold a copy, so that the run does not need the original any more.

    Raises:
        UserError: The folder is damaged or cannot be written.
    """
    folder = simulator_folder(config, data)
    if not (folder.path / REPORT).exists():
        if jax.process_count() > 1:
            raise UserError(
                "the simulator has not been fitted yet",
                where=str(folder.path),
                do="Fit it in a single process first: python -m hrlmg_jax.fit_simulator with the same data, env and "
                "simulator settings.",
            )
        make_folder(folder.path)
        with folder.locked(wait=True):
            if not (folder.path / REPORT).exists():  # else another process has been quicker
                print(f"fitting the user-feedback simulator in {folder.path}", file=sys.stderr)
                _fit_in_folder(config, values, data, folder)
    simulator = load_simulator(config.simulator, folder, data)
    if copy_to is not None:
        write_json(copy_to.path / REPORT, simulator.report)
        write_arrays(copy_to.path / FILE, read_arrays(folder.path / FILE, None))  # last: its presence counts
    return simulator


def _fit_in_folder(config: FitConfig, values: dict[str, Any], data: SessionData, folder: RunFolder) -> None:
    if not folder.config.exists():
        folder.write_config(values)
    provenance.record_versions(folder, describe_log(data))
    embedding = embed_items(config.simulator.embedding, data.log, data.rows("train"), config.simulator.seed)
    params = fit_feedback(config, data, embedding, folder)
    model = LearnedFeedback(FeedbackNetwork(config.simulator.network))
    report = report_on(model, params, data, config.env.history_length)
    flat = {f"network/{key}": np.asarray(value) for key, value in _flat(params.network).items()}
    write_arrays(folder.path / FILE, {"embedding": embedding, "item_ids": np.asarray(data.log.item_ids), **flat})
    curves = {f"{name}, {part}": report[part][name]["reliability"] for part in ("held_out", "test") for name in _SHOWN}
    title = f"simulator of {data.log.name}{kind_of(report['data'])}"
    plot_reliability(folder.path / "simulator.png", curves, title)
    # Last, because its presence says that the simulator is complete.
    write_json(folder.path / REPORT, report)


def load_simulator(config: SimulatorConfig, folder: RunFolder, data: SessionData) -> Simulator:
    """Reads a simulator from a folder (of its fit, or of a run that used it).

    Raises:
        UserError: Files missing or damaged, or of other items or sizes.
    """
    network = FeedbackNetwork(config.network)
    history, item = jnp.zeros((1, 1), jnp.int32), jnp.zeros((1,), jnp.int32)
    embedding_shape = (data.log.num_items, config.embedding.size)
    shapes = jax.eval_shape(
        lambda: network.init(jax.random.key(0), history, history, item, jnp.zeros(embedding_shape))["params"]
    )
    wanted = {f"network/{key}": shape for key, shape in _flat(shapes).items()}
    path = folder.path / FILE
    arrays = read_arrays(path, ("embedding", "item_ids", *wanted))
    found = {name: arrays[name].shape for name in ("embedding", *wanted)}
    expected = {"embedding": embedding_shape} | {name: tuple(shape.shape) for name, shape in wanted.items()}
    if found != expected or not np.array_equal(arrays["item_ids"], data.log.item_ids):
        raise UserError(
            "is of another log or of other settings", where=str(path), do="Restore the file, or fit again elsewhere."
        )
    tree = flax.traverse_util.unflatten_dict({tuple(name.split("/")[1:]): jnp.asarray(arrays[name]) for name in wanted})
    params = FeedbackParams(network=tree, embedding=jnp.asarray(arrays["embedding"]))
    return Simulator(LearnedFeedback(network), params, read_json(folder.path / REPORT))


def _flat(tree: Any) -> dict[str, Any]:
    return {"/".join(path): leaf for path, leaf in flax.traverse_util.flatten_dict(tree).items()}


def describe_log(data: SessionData) -> dict[str, Any]:
    """Returns the log's name, checksum and sizes, whether it or its skips are synthetic, and what its orders are."""
    log = data.log
    return {
        "name": log.name,
        "synthetic": log.synthetic,
        "synthetic_skips": log.synthetic_skips,
        "order_proxy": log.order_proxy,
        "checksum": log.checksum,
        "users": log.num_users,
        "items": log.num_items,
        "catalogue": data.num_items,
        "events": log.num_events,
        "sessions": log.num_sessions,
        "test_sessions": int(data.is_test.sum()),
    }


def row_labels(log: EventLog) -> dict[str, Any]:
    """Returns what every row of metrics.jsonl says about the log."""
    return {
        "data": log.name,
        "synthetic": log.synthetic,
        "synthetic_skips": log.synthetic_skips,
        "order_proxy": log.order_proxy,
    }


# Fitting


def fit_feedback(config: FitConfig, data: SessionData, embedding: np.ndarray, folder: RunFolder) -> FeedbackParams:
    """Trains the network by cross-entropy on training users, early-stopped on held-out users.

    Args:
        config: Settings.
        data: The log.
        embedding: [J, E] item embeddings.
        folder: Where the fit keeps its metrics and checkpoints; it goes on from there.

    Returns:
        The parameters with the lowest held-out log-loss.
    """
    network = FeedbackNetwork(config.simulator.network)
    model = LearnedFeedback(network)
    world = FitWorld(
        table=data.table,
        feedback=jnp.asarray(data.log.feedback),
        rows=jnp.asarray(data.rows("train"), jnp.int32),
        embedding=jnp.asarray(embedding),
    )
    length, held_out = config.env.history_length, data.rows("held_out")
    optimizer = optax.adamw(config.simulator.learning_rate, weight_decay=config.simulator.weight_decay)
    rates = np.bincount(data.log.feedback[data.rows("train")], minlength=NUM_FEEDBACK) / len(world.rows)

    def init(key: jax.Array, world: FitWorld) -> FitState:
        init_key, run_key = jax.random.split(key)
        history, item = jnp.zeros((1, 1), jnp.int32), jnp.zeros((1,), jnp.int32)
        params = network.init(init_key, history, history, item, world.embedding)["params"]
        # The first guess is the base rate.
        params["output"]["bias"] = jnp.asarray(np.log(np.maximum(rates, 1e-6)), jnp.float32)
        best = jax.tree.map(jnp.copy, params)
        return FitState(
            params=params,
            opt_state=optimizer.init(params),
            best=best,
            best_loss=jnp.float32(jnp.inf),
            stale=jnp.int32(0),
            step=jnp.int32(0),
            key=run_key,
        )

    def train_step(state: FitState, world: FitWorld) -> tuple[FitState, dict[str, jax.Array]]:
        key = jax.random.fold_in(state.key, state.step)
        rows = jax.random.choice(key, world.rows, (config.simulator.batch_size,))

        def loss(params: Any) -> jax.Array:
            logits = _logits(model, FeedbackParams(params, world.embedding), world.table, rows, length)
            return jnp.mean(_cross_entropy(logits, world.feedback[rows]))

        value, gradient = jax.value_and_grad(loss)(state.params)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        following = dataclasses.replace(state, params=params, opt_state=opt_state, step=state.step + 1)
        return following, {"log_loss": value}

    def evaluate(state: FitState) -> dict[str, float]:
        params = FeedbackParams(state.params, world.embedding)
        probabilities = predict(model, params, data, held_out, length)
        return {"held_out_log_loss": _log_loss(probabilities, data.log.feedback[held_out])}

    def keep_best(state: FitState, found: dict[str, float]) -> FitState:
        if found["held_out_log_loss"] >= float(state.best_loss):
            return dataclasses.replace(state, stale=state.stale + 1)
        best = jax.tree.map(jnp.copy, state.params)
        loss = jnp.float32(found["held_out_log_loss"])
        return dataclasses.replace(state, best=best, best_loss=loss, stale=jnp.int32(0))

    agent = Agent(
        init=init,
        pretrain=lambda state: state,
        train_step=train_step,
        world=world,
        episodes_per_step=0,
        headline="log_loss",
        after_evaluation=keep_best,
        finished=lambda state: int(state.stale) >= config.simulator.patience,
    )
    key = jax.random.key(config.simulator.seed)
    [state] = run_training([Member(agent, folder, key, evaluate)], config.simulator.train, row_labels(data.log))
    return FeedbackParams(state.best, world.embedding)


def _logits(
    model: LearnedFeedback, params: FeedbackParams, table: HistoryTable, rows: jax.Array, length: int
) -> jax.Array:
    histories = jax.vmap(lambda row: table.before(row, length))(rows)
    return model.logits(params, histories, table.item[rows])


def _cross_entropy(logits: jax.Array, feedback: jax.Array) -> jax.Array:
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), feedback.astype(jnp.int32)[:, None], 1)[:, 0]


_predict_batch: Callable[..., jax.Array] = jax.jit(
    lambda model, params, table, rows, length: jax.nn.softmax(_logits(model, params, table, rows, length)),
    static_argnums=(0, 4),
)


def predict(
    model: LearnedFeedback, params: FeedbackParams, data: SessionData, rows: np.ndarray, length: int
) -> np.ndarray:
    """Returns [r, 3] float64 probabilities of skip, click and order at rows of the log, given what came before."""
    size = min(_EVALUATION_ROWS, len(rows))
    parts = []
    for first in range(0, len(rows), size):
        batch = rows[first : first + size]
        padded = jnp.asarray(np.resize(batch, size), jnp.int32)
        parts.append(np.asarray(_predict_batch(model, params, data.table, padded, length))[: len(batch)])
    return np.concatenate(parts).astype(np.float64)


# The report


def report_on(model: LearnedFeedback, params: FeedbackParams, data: SessionData, history_length: int) -> dict[str, Any]:
    """Returns how well the simulator predicts what it has not seen: held-out users, and the test part.

    Returns:
        `data`, and under "held_out" and "test": see `score`.
    """
    log = data.log
    base = np.bincount(log.feedback[data.rows("train")], minlength=NUM_FEEDBACK) / len(data.rows("train"))
    parts: dict[str, Any] = {"data": describe_log(data)}
    for part in ("held_out", "test"):
        rows = data.rows(part)
        predicted = predict(model, params, data, rows, history_length)
        parts[part] = score(predicted, log.feedback[rows], base, best_log_loss(log, rows))
        for name, rate in simulated_rates(model, params, data, part, history_length).items():
            parts[part][name]["simulated_rate"] = rate
    return parts


def simulated_rates(
    model: LearnedFeedback, params: FeedbackParams, data: SessionData, part: str, history_length: int
) -> dict[str, float]:
    """Returns the rates of "click" (click or order) and "order" when the simulator answers to logged sessions itself.

    The items are the log's, the answers and so the later histories are sampled: errors that add up show here.
    """
    starts = data.log.session_starts()
    lengths = np.diff(starts)
    session = np.searchsorted(starts, data.first_rows(part)[:_SIMULATED_SESSIONS])
    steps = int(lengths[session].max())
    shown = np.arange(steps) < lengths[session][:, None]
    rows = np.where(shown, starts[session][:, None] + np.arange(steps), 0)
    env = SessionEnv(model, steps, history_length)
    world = SessionParams(data.table, jnp.asarray(starts[session], jnp.int32), None, params)
    script = jnp.asarray(data.log.item[rows], jnp.int32)
    sessions = jnp.arange(len(session), dtype=jnp.int32)
    play = jax.jit(
        lambda world, script: rollout(env, world, scripted_policy(), script, sessions, jax.random.key(0), True)
    )
    feedback = np.asarray(play(world, script).feedback).T[shown]
    return {FEEDBACK_NAMES[least]: float(np.mean(feedback >= least)) for least in (CLICK, ORDER)}


def score(predicted: np.ndarray, feedback: np.ndarray, base: np.ndarray, best: float | None) -> dict[str, Any]:
    """Scores predicted probabilities.

    Args:
        predicted: [r, 3] probabilities of skip, click and order.
        feedback: [r] answers.
        base: [3] rates in the training rows, the constant prediction to beat.
        best: Log-loss of the truth, where it is known.

    Returns:
        log_loss (nats); base_log_loss; best_log_loss and gap_closed, the fraction of the way from base to best (or
        None); expected calibration errors, areas under the ROC curve (auc) and average precisions of "click" (click or
        order) and "order", beside their rates, logged and predicted; accuracy of the most likely answer; reliability
        curves. A figure that needs both answers to occur is None where one does not.
    """
    loss, base_loss = _log_loss(predicted, feedback), _log_loss(np.tile(base, (len(feedback), 1)), feedback)
    found: dict[str, Any] = {
        "events": len(feedback),
        "log_loss": loss,
        "base_log_loss": base_loss,
        "best_log_loss": best,
        "gap_closed": None if best is None or best == base_loss else (base_loss - loss) / (base_loss - best),
        "accuracy": float(np.mean(np.argmax(predicted, 1) == feedback)),
        "accuracy_of_always_skip": float(np.mean(feedback < CLICK)),
    }
    for name, least in ((FEEDBACK_NAMES[CLICK], CLICK), (FEEDBACK_NAMES[ORDER], ORDER)):
        happened, chance = feedback >= least, predicted[:, least:].sum(1)
        both = happened.any() and not happened.all()
        found[name] = {
            "rate": float(happened.mean()),
            "predicted_rate": float(chance.mean()),
            "auc": float(roc_auc_score(happened, chance)) if both else None,
            "average_precision": float(average_precision_score(happened, chance)) if both else None,
            **calibration(chance, happened),
        }
    return found


def calibration(chance: np.ndarray, happened: np.ndarray) -> dict[str, Any]:
    """Returns the expected calibration error over bins of predictions, and each bin's means.

    The bins hold equally many predictions, but for equal ones, which share a bin.

    Args:
        chance: [r] predicted probabilities.
        happened: [r] bool.
    """
    parts = np.array_split(np.sort(chance), _CALIBRATION_BINS)
    number = np.searchsorted(np.unique([part[0] for part in parts[1:] if len(part)]), chance, side="right")
    bins = [np.flatnonzero(number == bin_number) for bin_number in np.unique(number)]
    predicted, observed = ([float(values[part].mean()) for part in bins] for values in (chance, happened))
    gaps = [len(part) * abs(p - o) for part, p, o in zip(bins, predicted, observed, strict=True)]
    return {
        "calibration_error": math.fsum(gaps) / len(chance),
        "reliability": {"predicted": predicted, "observed": observed, "events": [len(part) for part in bins]},
    }


def _log_loss(probabilities: np.ndarray, feedback: np.ndarray) -> float:
    given = probabilities[np.arange(len(feedback)), feedback]
    return float(-np.mean(np.log(np.maximum(given, 1e-12))))


def format_report(report: dict[str, Any]) -> str:
    """Returns the report as a table for people."""
    data = report["data"]
    lines = [
        f"simulator of {data['name']}{kind_of(data)}: {data['events']:,} events, {data['users']:,} users, "
        f"{data['catalogue']:,} items",
        f"{'':<28}{'held-out users':>16}{'test part':>16}",
    ]

    def line(label: str, group: str | None, key: str, form: str) -> None:
        values = [(report[part] if group is None else report[part][group])[key] for part in ("held_out", "test")]
        cells = ["-" if value is None else format(value, form) for value in values]
        lines.append(f"{label:<28}" + "".join(cell.rjust(16) for cell in cells))

    line("log-loss", None, "log_loss", ".4f")
    line("  of the base rate", None, "base_log_loss", ".4f")
    line("  of the truth", None, "best_log_loss", ".4f")
    line("  gap closed", None, "gap_closed", ".1%")
    for name in _SHOWN:
        line(f"{name}: AUC", name, "auc", ".4f")
        line("  average precision", name, "average_precision", ".4f")
        line("  calibration error", name, "calibration_error", ".4f")
        line("  rate in the log", name, "rate", ".3%")
        line("  rate predicted", name, "predicted_rate", ".3%")
        line("  rate in simulation", name, "simulated_rate", ".3%")
    return "\n".join(lines)
