"""The learned user: its scores by hand, its predictions row by row, and that a fit is kept, continued and found."""

import dataclasses
import io
import json
import math
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hydra
import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from impression_logs import kuairand_files, write_files
from omegaconf import OmegaConf
from sklearn.metrics import average_precision_score, roc_auc_score

from harness.errors import UserError
from harness.reports.tables import kind_of
from harness.runs.composition import composed_values
from harness.runs.metric_writer import read_rows
from harness.runs.run_folder import RunFolder, read_arrays, write_arrays
from harness.settings import read_settings
from hrlmg_jax.problem import make_problem
from hrlmg_jax.sessions import describe_log, row_labels
from hrlmg_jax.settings import RunConfig
from hrlmg_jax.user_model import store as module
from hrlmg_jax.user_model.fit import _make_world, fit_feedback, predict
from hrlmg_jax.user_model.item_embedding import told_by_others
from hrlmg_jax.user_model.quality import calibration, format_report, score, simulated_rates
from hrlmg_jax.user_model.settings import FitConfig
from hrlmg_jax.user_model.store import FILE, REPORT, Simulator, load_simulator, obtain_simulator, simulator_folder
from sim.datasets.sessions import SessionData, load_sessions
from sim.envs.histories import Histories
from sim.generators.funnel_truth import best_log_loss
from sim.tables.events import CLICK, ORDER, SKIP

SMALL = [
    "data.size=tiny",
    "env.history_length=4",
    "simulator.held_out_fraction=0.25",
    "simulator.embedding.size=8",
    "simulator=paper",
    "simulator.network.hidden_size=8",
    "simulator.network.state_size=8",
    "simulator.network.width=16",
    "simulator.batch_size=256",
    "simulator.learning_rate=0.03",
    "simulator.patience=1",
    "simulator.train.steps=5000",
    "simulator.train.log_every=50",
    "simulator.train.evaluate_every=50",
    "simulator.train.checkpoint_every=50",
    "simulator.train.max_to_keep=9",
]


# Scores


def test_scores_by_hand():
    predicted = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.9, 0.05, 0.05], [0.6, 0.3, 0.1]])
    feedback = np.array([SKIP, CLICK, SKIP, ORDER])
    found = score(predicted, feedback, np.array([0.8, 0.15, 0.05]), 0.5)
    loss = -math.log(0.7 * 0.5 * 0.9 * 0.1) / 4
    base = -math.log(0.8 * 0.15 * 0.8 * 0.05) / 4
    assert found["events"] == 4
    assert found["log_loss"] == pytest.approx(loss)
    assert found["base_log_loss"] == pytest.approx(base)
    assert found["best_log_loss"] == 0.5
    assert found["gap_closed"] == pytest.approx((base - loss) / (base - 0.5))
    assert (found["accuracy"], found["accuracy_of_always_skip"]) == (0.75, 0.5)
    # Clicks have 0.8 and 0.4 where others have 0.3 and 0.1. The order's 0.1 beats 0.05, ties with 0.1, loses to 0.3.
    click, order = found["click"], found["order"]
    assert (click["rate"], click["auc"], click["average_precision"]) == (0.5, 1.0, 1.0)
    assert click["predicted_rate"] == pytest.approx(0.4)
    assert (order["rate"], order["auc"], order["average_precision"]) == (0.25, 0.5, pytest.approx(1 / 3))
    assert order["predicted_rate"] == pytest.approx(0.55 / 4)
    # Every prediction a bin of its own, but for the two of 0.1, one of which was ordered.
    assert click["calibration_error"] == pytest.approx((0.1 + 0.3 + 0.6 + 0.2) / 4)
    assert order["calibration_error"] == pytest.approx((0.05 + 2 * 0.4 + 0.3) / 4)
    np.testing.assert_allclose(order["reliability"]["predicted"], [0.05, 0.1, 0.3])
    assert order["reliability"]["observed"] == [0, 0.5, 0]
    assert order["reliability"]["events"] == [1, 2, 1]


def test_areas_are_those_of_pairs_and_of_sklearn():
    generator = np.random.default_rng(0)
    predicted = np.round(generator.dirichlet([6, 2, 1], 300), 2)  # with ties
    feedback = generator.choice(3, 300, p=[0.7, 0.2, 0.1])
    found = score(predicted, feedback, np.array([0.7, 0.2, 0.1]), None)
    for name, least in (("click", CLICK), ("order", ORDER)):
        chance, happened = predicted[:, least:].sum(1), feedback >= least
        difference = chance[happened][:, None] - chance[~happened]
        pairs = np.mean((difference > 0) + 0.5 * (difference == 0))
        assert found[name]["auc"] == pytest.approx(pairs)
        assert found[name]["auc"] == pytest.approx(roc_auc_score(happened, chance))
        assert found[name]["average_precision"] == pytest.approx(average_precision_score(happened, chance))
    assert found["gap_closed"] is None
    assert found["best_log_loss"] is None


@pytest.mark.parametrize(
    ("feedback", "none_of"),
    [([SKIP, CLICK, SKIP], ["order"]), ([SKIP] * 3, ["click", "order"]), ([ORDER] * 3, ["click", "order"])],
)
def test_what_needs_both_answers_is_none_without_them(feedback, none_of):
    predicted = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.9, 0.05, 0.05]])
    found = score(predicted, np.array(feedback), np.array([0.8, 0.15, 0.05]), None)
    for name, least in (("click", CLICK), ("order", ORDER)):
        assert (found[name]["auc"] is None) == (found[name]["average_precision"] is None) == (name in none_of)
        assert found[name]["rate"] == np.mean(np.array(feedback) >= least)
    json.dumps(found, allow_nan=False)


def test_equal_predictions_rank_nothing_and_are_calibrated_if_their_rate_is_right():
    feedback = np.array([SKIP] * 60 + [CLICK] * 30 + [ORDER] * 10)  # in an order that means nothing
    base = np.array([0.6, 0.3, 0.1])
    found = score(np.tile(base, (100, 1)), feedback, base, 0.1)
    assert found["log_loss"] == pytest.approx(found["base_log_loss"])
    assert found["gap_closed"] == pytest.approx(0)
    for name, rate in (("click", 0.4), ("order", 0.1)):
        assert found[name]["auc"] == 0.5
        assert found[name]["average_precision"] == pytest.approx(rate)
        assert found[name]["calibration_error"] == pytest.approx(0, abs=1e-12)
        assert found[name]["reliability"]["events"] == [100]


def test_an_impossible_answer_costs_much_but_not_everything():
    found = score(np.array([[1.0, 0.0, 0.0]] * 2), np.array([SKIP, ORDER]), np.array([1.0, 0.0, 0.0]), None)
    assert 10 < found["log_loss"] < 20
    assert found["log_loss"] == found["base_log_loss"]


def test_calibration_by_hand():
    # 30 predictions 0.01, 0.02, ...: bins of two. The higher ones of each pair happened.
    chance = np.arange(1, 31) / 100
    shuffled = np.random.default_rng(0).permutation(30)
    found = calibration(chance[shuffled], (np.arange(30) % 2 == 1)[shuffled])
    assert found["reliability"]["events"] == [2] * 15
    np.testing.assert_allclose(found["reliability"]["predicted"], np.arange(15) / 50 + 0.015)
    assert found["reliability"]["observed"] == [0.5] * 15
    assert found["calibration_error"] == pytest.approx(0.5 - chance.mean())


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(data=st.data())
def test_bins_partition_the_predictions_whatever_their_order(data):
    count = data.draw(st.integers(1, 80))
    few = data.draw(st.booleans())
    tenths = st.integers(0, 4 if few else 1000).map(lambda number: number / (4 if few else 1000))
    chance = data.draw(hypothesis.extra.numpy.arrays(float, count, elements=tenths))
    happened = data.draw(hypothesis.extra.numpy.arrays(bool, count))
    found = calibration(chance, happened)
    events = np.array(found["reliability"]["events"])
    predicted, observed = (np.array(found["reliability"][name]) for name in ("predicted", "observed"))
    assert events.sum() == count
    assert events.min() >= 1
    assert len(events) <= 15
    assert (np.diff(predicted) > 0).all()  # equal predictions share a bin
    if len(np.unique(chance)) == count:
        assert events.max() - events.min() <= 1
    np.testing.assert_allclose((events * predicted).sum(), chance.sum(), atol=1e-9)
    np.testing.assert_allclose((events * observed).sum(), happened.sum(), atol=1e-9)
    error = found["calibration_error"]
    assert abs(chance.mean() - happened.mean()) - 1e-9 <= error <= np.abs(chance - happened).mean() + 1e-9
    order = np.random.default_rng(0).permutation(count)
    again = calibration(chance[order], happened[order])
    assert again["calibration_error"] == pytest.approx(error)
    assert again["reliability"]["events"] == found["reliability"]["events"]


# A small fit


def settings(root: Path, cache: Path, *changes: str) -> tuple[FitConfig, dict]:
    """The settings of a small fit, typed and plain."""
    with hydra.initialize_config_module("conf", version_base="1.3"):
        composed = hydra.compose("fit_simulator", [*SMALL, f"data.cache={cache}", f"simulator.root={root}", *changes])
    values = {key: OmegaConf.to_container(composed[key], resolve=True) for key in ("data", "env", "simulator")}
    return read_settings(FitConfig, values), values


@dataclass
class Fit:
    """A finished fit, to be copied but not changed."""

    root: Path
    cache: Path
    config: FitConfig
    values: dict
    data: SessionData
    simulator: Simulator

    @property
    def folder(self) -> RunFolder:
        return simulator_folder(self.config, self.data)

    def copied(self, root: Path) -> tuple[FitConfig, RunFolder]:
        """Copies it below another root."""
        shutil.copytree(self.root, root)
        config, _ = settings(root, self.cache)
        return config, simulator_folder(config, self.data)


@pytest.fixture(scope="module")
def fit(tmp_path_factory, tables) -> Iterator[Fit]:
    root = tmp_path_factory.mktemp("fit") / "simulators"
    config, values = settings(root, tables)
    data = load_sessions(config.data, config.simulator.held_out_fraction, config.simulator.seed)
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)  # networks this small take far longer to compile than run
    yield Fit(root, tables, config, values, data, obtain_simulator(config, values, data))
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def no_fit(monkeypatch):
    """Makes every attempt to fit an error."""

    def refuse(*arguments):
        raise AssertionError("fits again")

    monkeypatch.setattr("hrlmg_jax.user_model.paper.fit_feedback", refuse)


def predictions(fit: Fit, simulator: Simulator) -> np.ndarray:
    return predict(simulator.model, simulator.params, fit.data, fit.data.rows("test"), fit.config.env.history_length)


def test_a_small_fit_beats_the_base_rate_where_it_did_not_learn(fit):
    for part in ("held_out", "test"):
        found = fit.simulator.report[part]
        assert found["best_log_loss"] < found["log_loss"] < found["base_log_loss"] - 0.002
        assert 0.03 < found["gap_closed"] < 1
        assert found["events"] == len(fit.data.rows(part))
        assert found["click"]["auc"] > 0.58  # curiosity is new in every session
        assert found["click"]["calibration_error"] < 0.03
        for name in ("click", "order"):
            np.testing.assert_allclose(found[name]["predicted_rate"], found[name]["rate"], rtol=0.35, atol=0.004)
            np.testing.assert_allclose(found[name]["simulated_rate"], found[name]["rate"], rtol=0.4, atol=0.006)
    assert fit.simulator.report["data"]["synthetic"] is True
    text = format_report(fit.simulator.report)
    assert "synthetic_funnel (SYNTHETIC)" in text
    for figure in (found["log_loss"], found["base_log_loss"], found["best_log_loss"], found["order"]["auc"]):
        assert f"{figure:.4f}" in text


def test_orders_that_are_a_proxy_are_called_so_everywhere(fit, tmp_path):
    write_files(tmp_path / "KuaiRand-1K" / "data", kuairand_files(0, "1k"))
    config, _ = settings(tmp_path, tmp_path, "data=kuairand", f"data.root={tmp_path}", "data.order_proxy=[is_like]")
    data = load_sessions(config.data, config.simulator.held_out_fraction, config.simulator.seed)
    found = describe_log(data)
    assert (found["name"], found["synthetic"], found["order_proxy"]) == ("kuairand", False, "is_like")
    assert kind_of(found) == " (ORDERS ARE A PROXY: is_like)"
    assert kind_of({**found, "synthetic_skips": True}) == " (SAMPLED SKIPS, ORDERS ARE A PROXY: is_like)"
    text = format_report({**fit.simulator.report, "data": found})
    assert text.startswith("simulator of kuairand (ORDERS ARE A PROXY: is_like): ")
    assert row_labels(data.log) == {
        "data": "kuairand",
        "synthetic": False,
        "synthetic_skips": False,
        "order_proxy": "is_like",
        "feedback_proxy": "",
    }
    real = describe_log(fit.data)
    assert kind_of(real) == " (SYNTHETIC)"
    del real["order_proxy"]  # a record of before there were proxies
    assert kind_of(real) == " (SYNTHETIC)"


def test_the_fit_ends_when_held_out_users_gain_nothing_more_and_keeps_the_best_parameters(fit):
    losses = [row["held_out_log_loss"] for row in read_rows(fit.folder.metrics)]
    assert 2 <= len(losses) < 100
    assert (np.diff(losses[:-1]) < 0).all()
    assert losses[-1] >= losses[-2]  # patience 1: the first evaluation without a gain is the last
    assert fit.simulator.report["held_out"]["log_loss"] == pytest.approx(losses[-2], abs=1e-6)


def test_predictions_are_the_models_on_the_histories_of_each_row(fit, monkeypatch):
    monkeypatch.setattr("hrlmg_jax.user_model.fit._EVALUATION_ROWS", 300)  # three batches, the last not full
    log, rows = fit.data.log, np.random.default_rng(0).permutation(fit.data.log.num_events)[:800]
    found = predict(fit.simulator.model, fit.simulator.params, fit.data, rows, 4)
    assert found.shape == (800, 3)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    seen: dict[int, list] = {}
    histories = np.empty((3, log.num_events, 4), np.int32)
    for row, (user, item, feedback) in enumerate(zip(log.user.tolist(), log.item.tolist(), log.feedback, strict=True)):
        for least in (SKIP, CLICK, ORDER):
            items = [other for other, answer in seen.get(user, []) if answer >= least][-4:]
            histories[least, row] = [-1] * (4 - len(items)) + items
        seen.setdefault(user, []).append((item, feedback))
    histories, items = Histories(*jnp.asarray(histories[:, rows])), jnp.asarray(log.item[rows])
    expected = jax.nn.softmax(fit.simulator.model.logits(fit.simulator.params, histories, items))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    one = jax.tree.map(lambda array: array[7], histories)
    alone = fit.simulator.model.probabilities(fit.simulator.params, (), one, items[7])
    np.testing.assert_allclose(found[7], alone, atol=1e-5)


def test_the_truth_closes_the_gap_and_the_base_rate_nothing_of_it(fit):
    log, rows = fit.data.log, fit.data.rows("test")
    base = np.bincount(log.feedback[fit.data.rows("train")], minlength=3) / len(fit.data.rows("train"))
    best = best_log_loss(log, rows)
    truth = score(log.probabilities[rows].astype(np.float64), log.feedback[rows], base, best)
    assert truth["gap_closed"] == pytest.approx(1)
    assert truth["click"]["calibration_error"] < 0.02
    assert truth["click"]["auc"] > fit.simulator.report["test"]["click"]["auc"]
    constant = score(np.tile(base, (len(rows), 1)), log.feedback[rows], base, best)
    assert constant["gap_closed"] == 0
    assert constant["base_log_loss"] == pytest.approx(fit.simulator.report["test"]["base_log_loss"])
    assert truth["best_log_loss"] == pytest.approx(fit.simulator.report["test"]["best_log_loss"])


@dataclass(frozen=True)
class ClicksOnce:
    """Clicks, surely, on the first item that it sees without having clicked among its last items, and orders item 0."""

    def initial(self, params, start):
        return ()

    def probabilities(self, params, hidden, histories, item):
        click = jnp.all(histories.clicked < 0)
        return jax.nn.one_hot(jnp.where(item == 0, ORDER, jnp.where(click, CLICK, SKIP)), 3)

    def update(self, params, hidden, item, feedback):
        return ()

    def in_sessions(self, params, data, rows):
        return params


def test_simulated_rates_are_of_the_logged_items_after_simulated_answers(fit):
    log, starts = fit.data.log, fit.data.log.session_starts()
    clicks = orders = events = 0
    for first in fit.data.first_rows("test"):
        session = int(log.session[first])
        has_clicked = any(log.feedback[row] >= CLICK for row in range(first) if log.user[row] == log.user[first])
        for item in log.item[first : starts[session + 1]]:
            events += 1
            orders += item == 0
            clicks += item == 0 or not has_clicked
            has_clicked = True
    found = simulated_rates(ClicksOnce(), (), fit.data, "test", 4)
    assert found["click"] == pytest.approx(clicks / events)
    assert found["order"] == pytest.approx(orders / events)


# Kept, found, continued


def test_a_kept_simulator_predicts_the_same(fit, no_fit):
    again = obtain_simulator(fit.config, fit.values, fit.data)
    assert again.report == fit.simulator.report == json.loads((fit.folder.path / REPORT).read_text())
    np.testing.assert_array_equal(predictions(fit, again), predictions(fit, fit.simulator))
    loaded = load_simulator(fit.config.simulator, fit.folder, fit.data)
    np.testing.assert_array_equal(predictions(fit, loaded), predictions(fit, fit.simulator))


def test_a_run_folder_gets_a_copy_that_works_without_the_original(fit, no_fit, tmp_path):
    copy = RunFolder(tmp_path)
    obtain_simulator(fit.config, fit.values, fit.data, copy)
    loaded = load_simulator(fit.config.simulator, copy, fit.data)
    assert loaded.report == fit.simulator.report
    np.testing.assert_array_equal(predictions(fit, loaded), predictions(fit, fit.simulator))


def test_a_run_keeps_users_of_a_second_kind_beside_the_first(fit, no_fit, tmp_path):
    run = RunFolder(tmp_path)
    values = {**fit.values, "second_simulator": fit.values["simulator"]}
    made = make_problem(fit.config, values, fit.data, run, 10, second=fit.config)
    names = {FILE, REPORT, f"second_{FILE}", f"second_{REPORT}"}
    assert {path.name for path in tmp_path.iterdir()} == names
    # Found there, and nowhere else.
    elsewhere = dataclasses.replace(fit.config, simulator=dataclasses.replace(fit.config.simulator, root="nowhere"))
    again = make_problem(elsewhere, values, fit.data, run, 10, second=elsewhere)
    for one, other in ((again.simulator, made.simulator), (again.second, made.second)):
        np.testing.assert_array_equal(predictions(fit, one), predictions(fit, other))
    assert again.with_second().simulator is again.second
    assert make_problem(fit.config, values, fit.data, run, 10).second is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["second_simulator=latent"], "second_simulator is 'latent', as simulator is"),
        (["second_simulator=paper", "second_simulator.seed=3"], "second_simulator.seed differs from simulator.seed"),
    ],
)
def test_a_second_kind_is_another_kind_for_the_same_held_out_users(words, said):
    with pytest.raises(UserError, match=said):
        read_settings(RunConfig, composed_values("train_hrl_mg", words))
    fine = read_settings(RunConfig, composed_values("train_hrl_mg", ["second_simulator=paper", "simulator.seed=3"]))
    assert fine.second_fit().simulator.seed == 3
    assert fine.second_fit().simulator.name == "paper"


def test_the_paper_s_users_are_fitted_with_item_vectors_that_others_tell_of(fit):
    """Rows of two halves of the training users, and for each half the vectors of the other."""
    log, rows = fit.data.log, fit.data.rows("train")
    embedding = np.asarray(fit.simulator.params.embedding)
    world = _make_world(fit.config.simulator, fit.data, embedding)
    of_half = [np.asarray(one)[:number] for one, number in zip(world.rows, np.asarray(world.number), strict=True)]
    np.testing.assert_array_equal(np.sort(np.concatenate(of_half)), rows)
    users = [np.unique(log.user[half]) for half in of_half]
    assert not np.intersect1d(*users).size
    of_others = told_by_others(fit.config.simulator.embedding, log, rows, users, embedding, 0)
    np.testing.assert_array_equal(world.of_others, of_others)


def test_the_folder_depends_on_what_decides_the_simulator_only(fit, tmp_path):
    name = fit.folder.path.name
    assert name.startswith("synthetic_funnel-")
    without = "data.root=z", "env.episode_length=9", "env.order_reward=2", "simulator.trial_sessions=0"
    elsewhere, _ = settings(tmp_path / "x", tmp_path / "y", *without)
    assert simulator_folder(elsewhere, fit.data).path == tmp_path / "x" / name
    names = {name}
    for change in ("env.history_length=5", "simulator.seed=1", "simulator.network.width=8", "simulator.batch_size=8"):
        names.add(simulator_folder(settings(fit.root, fit.cache, change)[0], fit.data).path.name)
    names.add(simulator_folder(fit.config, dataclasses.replace(fit.data, log=other_log(fit.data))).path.name)
    assert len(names) == 6


def other_log(data: SessionData):
    return dataclasses.replace(data.log, table_hash="sha256:1")


def killed_after(folder: RunFolder, step: int) -> None:
    """Takes from a folder what came after a checkpoint, but for the metrics."""
    for name in (REPORT, FILE, "simulator.png"):
        (folder.path / name).unlink()
    steps = sorted(int(path.name) for path in folder.checkpoints.iterdir() if path.name.isdigit())
    assert step in steps
    for later in steps[steps.index(step) + 1 :]:
        shutil.rmtree(folder.checkpoints / str(later))


def test_a_fit_that_was_killed_continues_to_the_same_result(fit, tmp_path, monkeypatch):
    config, folder = fit.copied(tmp_path / "simulators")
    killed_after(folder, 50)
    # The same report: it is made of the parameters alone, which are compared.
    monkeypatch.setattr(module, "report_on", lambda *arguments: fit.simulator.report)
    again = obtain_simulator(config, fit.values, fit.data)
    jax.tree.map(np.testing.assert_array_equal, again.params, fit.simulator.params)
    assert again.report == fit.simulator.report
    one, other = ([row["held_out_log_loss"] for row in read_rows(f.metrics)] for f in (fit.folder, folder))
    assert one == other


def test_a_finished_fit_that_was_killed_before_its_report_is_not_repeated(fit, tmp_path):
    config, folder = fit.copied(tmp_path / "simulators")
    killed_after(folder, read_rows(folder.metrics)[-1]["step"])
    before = folder.metrics.read_text()
    params = fit_feedback(config, fit.data, np.asarray(fit.simulator.params.embedding), folder)
    jax.tree.map(np.testing.assert_array_equal, params, fit.simulator.params)
    assert folder.metrics.read_text() == before


def test_a_second_process_waits_for_the_first_and_takes_its_simulator(fit, no_fit, tmp_path, monkeypatch):
    config, folder = fit.copied(tmp_path / "simulators")
    (folder.path / REPORT).rename(tmp_path / REPORT)
    found = []
    said = io.StringIO()  # capfd may lose what a thread says while it is read
    monkeypatch.setattr("sys.stderr", said)
    second = threading.Thread(target=lambda: found.append(obtain_simulator(config, fit.values, fit.data)))
    with folder.locked():
        second.start()
        for _ in range(600):
            if "waiting for another process" in said.getvalue():
                break
            time.sleep(0.05)
        assert "waiting for another process" in said.getvalue()
        time.sleep(0.1)
        assert second.is_alive()
        (tmp_path / REPORT).rename(folder.path / REPORT)
    second.join(60)
    np.testing.assert_array_equal(predictions(fit, found[0]), predictions(fit, fit.simulator))


def damaged(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "text":
        path.write_text("not an archive")
    elif how == "changed":
        middle = len(content) // 2
        path.write_bytes(
            content[:middle] + bytes(255 - byte for byte in content[middle : middle + 400]) + content[middle + 400 :]
        )
    else:
        arrays = read_arrays(path, None)
        if how == "an array fewer":
            arrays.pop("network/output/bias")
        elif how == "another shape":
            arrays["network/output/bias"] = np.zeros(4, np.float32)
        elif how == "other items":
            arrays["item_ids"] = arrays["item_ids"][::-1]
        elif how == "fewer items":
            arrays["item_ids"], arrays["embedding"] = arrays["item_ids"][:-1], arrays["embedding"][:-1]
        elif how == "named items":
            arrays["item_ids"] = arrays["item_ids"].astype(str)
        write_arrays(path, arrays)


@pytest.mark.parametrize(
    "how",
    [
        *("missing", "empty", "cut", "text", "changed"),
        *("an array fewer", "another shape", "other items", "fewer items", "named items"),
    ],
)
def test_a_damaged_or_foreign_simulator_is_one_error_that_names_it(fit, no_fit, tmp_path, how):
    copy = RunFolder(tmp_path)
    for name in (FILE, REPORT):
        shutil.copy(fit.folder.path / name, tmp_path / name)
    damaged(tmp_path / FILE, how)
    with pytest.raises(UserError, match=r"simulator\.npz: (is missing|is damaged|was fitted to another log)"):
        load_simulator(fit.config.simulator, copy, fit.data)


def test_a_simulator_of_other_sizes_or_without_its_report_is_refused(fit, tmp_path):
    other, _ = settings(fit.root, fit.cache, "simulator.network.width=9")
    with pytest.raises(UserError, match="was fitted to another log or with other settings"):
        load_simulator(other.simulator, fit.folder, fit.data)
    shutil.copy(fit.folder.path / FILE, tmp_path / FILE)
    with pytest.raises(UserError, match=r"simulator\.json: is missing"):
        load_simulator(fit.config.simulator, RunFolder(tmp_path), fit.data)
