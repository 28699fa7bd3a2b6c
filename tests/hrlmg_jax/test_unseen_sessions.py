"""Nothing learned sees the test part: with its items and answers replaced, all that is learned is equal, bit for bit.

The same for held-out users, who only choose among networks. A new agent or preset is guarded as soon as its yaml is in
`conf/agent`.
"""

import dataclasses
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import hrlmg_jax
from harness.runs.composition import composed_values
from harness.runs.run_folder import RunFolder
from harness.settings import read_settings
from hrlmg_jax.evaluation.online import make_validation
from hrlmg_jax.problem import Problem, load_data, make_env, make_problem
from hrlmg_jax.registry import build_method
from hrlmg_jax.settings import RunConfig
from hrlmg_jax.user_model import store
from sim.datasets.sessions import SessionData
from sim.envs.session_env import SessionEnv, SessionParams
from sim.generators import funnel
from sim.tables.events import CLICK, NEVER, ORDER, SKIP, EventLog
from tpgr_jax.registry import AGENTS as OTHERS

CONF = Path(hrlmg_jax.__file__).parents[1] / "conf"
SMALL = [
    *("data.size=tiny", "data.num_users=30", "data.num_items=100", "env.episode_length=6", "env.history_length=3"),
    *("evaluation.long=6", "evaluation.short=3", "evaluation.validation_sessions=8", "evaluation.sessions_at_a_time=8"),
    *("simulator=paper", "simulator.held_out_fraction=0.3"),
    *("simulator.embedding.size=4", "simulator.network.hidden_size=4"),
    *("simulator.network.state_size=4", "simulator.network.width=8", "simulator.batch_size=16"),
    "simulator.trial_sessions=0",
    *(f"simulator.train.{key}=4" for key in ("steps", "log_every", "evaluate_every", "checkpoint_every")),
]
SMALL_AGENT = [
    *("agent.network.hidden_size=4", "agent.network.state_size=4", "agent.network.critic_width=8"),
    *("agent.learner.sessions=8", "agent.learner.batch_size=8", "agent.learner.high_batch_size=8"),
    *("agent.learner.warm_up_steps=1", "agent.learner.replay_capacity=64", "agent.learner.high_replay_capacity=16"),
    "agent.goals.period=2",
]
UNTRAINED: dict[str, list[str]] = {
    "popularity": [],
    "greedy_oracle": [],
    "planner": ["agent.trust_weight=0"],  # learned users have none
}


def agent_name(preset: str) -> str:
    """The agent that a file of conf/agent is about, which it may have from the file that it starts from."""
    text = (CONF / "agent" / f"{preset}.yaml").read_text()
    name = re.search(r"^name: (\w+)", text, re.MULTILINE)
    return name[1] if name else agent_name(re.search(r"^  - (?!_self_)(\w+)", text, re.MULTILINE)[1])


PRESETS = sorted(
    path.stem
    for path in (CONF / "agent").glob("*.yaml")
    # Random items learn nothing, and what a user's function knows is the user's affair.
    if agent_name(path.stem) not in {*OTHERS, "random"} - {"popularity"}
)


@functools.cache
def values_of(preset: str) -> dict[str, Any]:
    small = UNTRAINED.get(agent_name(preset), SMALL_AGENT)
    return composed_values("train_hrl_mg", [*SMALL, f"agent={preset}", *small])


def with_other_rows(log: EventLog, rows: np.ndarray) -> EventLog:
    """The log with other items and answers at some rows: the items renamed, the answers shuffled."""
    random = np.random.default_rng(1)
    item, feedback = log.item.copy(), log.feedback.copy()
    item[rows] = random.permutation(log.num_items)[item[rows]]
    feedback[rows] = random.permutation(feedback[rows])
    assert (feedback != log.feedback).any()
    places = {
        name: np.where(feedback >= least, log.shown_at, NEVER).astype(np.int32)
        for name, least in (("clicked_at", CLICK), ("ordered_at", ORDER))
    }
    return dataclasses.replace(log, item=item, feedback=feedback, checksum=f"without {len(rows)} rows", **places)


@dataclasses.dataclass(frozen=True)
class Variant:
    """A log, and everything that was made of it before agents came."""

    values: dict[str, Any]
    config: RunConfig
    problem: Problem

    @property
    def data(self) -> SessionData:
        return self.problem.data

    def config_of(self, preset: str) -> RunConfig:
        return read_settings(RunConfig, {**values_of(preset), "data": self.values["data"]})


_generated = functools.cache(funnel.generate_log)


def variant(folder: Path, values: dict[str, Any], change: Callable[[EventLog], EventLog] = lambda log: log) -> Variant:
    """Makes the problem of a log, generated ones after a change, in a folder of its own: nothing comes from a cache."""
    values = {
        **values,
        "data": {**values["data"], "cache": str(folder / "tables")},
        "simulator": {**values["simulator"], "root": str(folder / "simulators")},
    }
    config = read_settings(RunConfig, values)
    run = RunFolder(folder / "run")
    run.path.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(funnel, "generate_log", lambda **named: change(_generated(**named)))
        patch.setattr(store, "plot_reliability", lambda *_: None)
        data = load_data(config.fit(), config.longest_session)
        problem = make_problem(config.fit(), values, data, run, config.longest_session)
    return Variant(values, config, problem)


def rows_of_part(log: EventLog, test: bool, held_out: np.ndarray) -> np.ndarray:
    """The rows of a log as it was generated: the test part (the last day), or what held-out users did before."""
    starts = log.time[log.session_starts()[:-1]] // 86_400
    in_test_part = (starts == starts.max())[log.session]
    return np.flatnonzero(in_test_part if test else ~in_test_part & held_out[log.user])


@pytest.fixture(scope="module")
def variants(tmp_path_factory) -> dict[str, Variant]:
    """The log as it is, and with another test part, and with other sessions of held-out users."""
    folder, values = tmp_path_factory.mktemp("variants"), values_of("hrl_mg")
    first = variant(folder / "as it is", values)

    def perturbed(test: bool) -> Variant:
        def change(log: EventLog) -> EventLog:
            return with_other_rows(log, rows_of_part(log, test, first.data.held_out))

        return variant(folder / f"test {test}", values, change)

    return {"as it is": first, "test": perturbed(True), "held-out": perturbed(False)}


def leaves(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a pytree by place, without the table of histories, which has those of all rows."""
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        is_key = isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        if ".table" not in jax.tree_util.keystr(path):
            found[jax.tree_util.keystr(path)] = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
    return found


def assert_equal(first: Any, second: Any, without: str = "(nothing)") -> None:
    one, other = leaves(first), leaves(second)
    assert one.keys() == other.keys()
    assert one
    for place, array in one.items():
        if without not in place:
            np.testing.assert_array_equal(array, other[place], err_msg=place)


def learned_before_agents(made: Variant) -> dict[str, Any]:
    """Catalogue, item embedding, the kept fit of the simulator, and the fixed lists."""
    problem, data = made.problem, made.data
    items = np.arange(data.num_items)
    params, counts = problem.simulator.params, data.training_counts()
    return {
        "items": np.char.encode(data.log.item_ids[items].astype(str)),
        "simulator": dataclasses.replace(params, embedding=params.embedding[: data.num_items]),
        "lists": problem.rankings,
        "counts": counts,
    }


@pytest.mark.parametrize("part", ["test", "held-out"])
def test_embedding_simulator_and_lists_know_training_users_alone(variants, part):
    assert_equal(*map(learned_before_agents, (variants["as it is"], variants[part])))


LATENT = [
    *("simulator=latent", "simulator.size=3", "simulator.interests=3", "simulator.tastes=2", "simulator.batch_size=8"),
]


@pytest.mark.parametrize(
    "users",
    # What a fit of latent users reads is guarded beside its other tests.
    [pytest.param(["simulator=rates"], id="rates"), pytest.param(LATENT, id="latent", marks=pytest.mark.long)],
)
def test_other_kinds_of_users_know_training_users_alone(users, variants, tmp_path):
    words = [one for one in SMALL if not re.match(r"simulator(=|\.network|\.batch_size)", one)]
    if users != LATENT:
        words = [one for one in words if "simulator.train" not in one]
    values = composed_values("train_hrl_mg", [*words, *users, "agent=popularity"])
    held_out = variants["as it is"].data.held_out
    learned = []
    for part in (None, "test", "held-out"):

        def change(log: EventLog, part: str | None = part) -> EventLog:
            return log if part is None else with_other_rows(log, rows_of_part(log, part == "test", held_out))

        learned.append(learned_before_agents(variant(tmp_path / str(part), values, change)))
    assert_equal(learned[0], learned[1])
    # A fit stops by held-out users, and learns nothing else of them; so short a one cannot stop early.
    assert_equal(learned[0], learned[2])


@functools.partial(jax.jit, static_argnums=0)
def beginnings(env: SessionEnv, env_params: SessionParams) -> Any:
    """What agents see where training sessions may begin, and the state of these sessions."""
    starts = jax.numpy.arange(env_params.rows.shape[0])
    return jax.vmap(env.reset_at, in_axes=(0, None))(starts, env_params)


def before_training(made: Variant, preset: str) -> tuple[Any, Any]:
    """The learner, and all that it reads, sessions to begin from included; what a method without training acts on."""
    config = made.config_of(preset)
    method = build_method(made.problem, config.agent)
    if method.agent is None:
        return None, method.best(None).params(made.problem.simulator.params)
    agent, env_params = method.agent, method.agent.world.env
    # Sessions begin where training users' did, in the training part.
    rows = np.asarray(env_params.rows)
    assert not np.isin(rows, made.data.rows("test")).any()
    assert not made.data.held_out[made.data.log.user[rows]].any()
    env = make_env(config.env, made.problem.users, config.env.episode_length)
    return agent.train_step.__self__, (agent.world, beginnings(env, env_params))


@pytest.mark.parametrize("preset", PRESETS)
def test_training_begins_and_reads_the_same(preset, variants):
    """The first state and a training step are functions of learner and world, so that equal ones say all of it."""
    learner, first = before_training(variants["as it is"], preset)
    for part in ("test", "held-out"):
        other_learner, other = before_training(variants[part], preset)
        assert learner == other_learner
        assert_equal(first, other)


def validated(made: Variant, config: RunConfig) -> Callable[[Any], dict[str, float]]:
    """The validation of a run, which plays with held-out users and never in the test part."""
    played = []
    right = Problem.env_params

    def recording(self: Problem, rows: np.ndarray) -> SessionParams:
        played.append(rows)
        return right(self, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Problem, "env_params", recording)
        validate = make_validation(config, made.problem)
    (rows,) = played
    assert made.data.held_out[made.data.log.user[rows]].all()
    assert not np.isin(rows, made.data.rows("test")).any()
    return validate


def trained(made: Variant, preset: str, step: Any = None) -> tuple[Any, Any, dict[str, float]]:
    """The compiled step, the state after a few of them and a validation that has chosen, and its metrics."""
    config = made.config_of(preset)
    method = build_method(made.problem, config.agent)
    step = step or jax.jit(method.agent.train_step)
    state = jax.jit(method.agent.init)(jax.random.key(0), method.agent.world)
    for _ in range(3):
        state, _ = step(state, method.agent.world)
    metrics = validated(made, config)(method.newest(state))
    return step, method.agent.after_evaluation(state, metrics), metrics


AFTER_TRAINING = ("dnn", "ddpg", "hrl_mg_memory")
"""One of each kind of learner; the others take the same steps, and all of them compile for seconds."""


@pytest.mark.parametrize(
    "preset",
    [
        pytest.param(preset, marks=() if preset in AFTER_TRAINING else pytest.mark.long)
        for preset in PRESETS
        if agent_name(preset) not in UNTRAINED
    ],
)
def test_networks_and_the_choice_among_them_know_nothing_of_the_test_part(preset, variants):
    step, first, metrics = trained(variants["as it is"], preset)
    _, other, of_other = trained(variants["test"], preset, step)
    assert_equal(first, other)
    assert metrics == of_other
    # Held-out users decide which networks are kept, and nothing else.
    _, other, of_other = trained(variants["held-out"], preset, step)
    assert_equal(first, other, without=".best.reward")
    assert metrics != of_other


def clicks(folder: Path, other_last_day: bool) -> Variant:
    """A log of clicks alone, whose skips are sampled, with one or another last day, in which some sessions end."""
    random = np.random.default_rng(0)
    lines = ["user,item,time,event"]
    for day in (0, 1):
        for user in range(30):
            items = random.choice(60, 4, replace=False) + 20 * day
            if day == 1 and other_last_day:
                items = (items * 7 + 3) % 60 + 1
            event = "buy" if day == 1 and other_last_day and user % 2 else "click"
            start = 86_400 * day + 900 * user
            lines += [f"{user},{item},{start + 30 * place},{event}" for place, item in enumerate(items)]
    for user in range(10, 20):
        before, after = random.choice(60, 2, replace=False)
        event, after = ("buy", before) if other_last_day else ("click", after)
        lines += [f"{user},{before},{86_400 - 20},click", f"{user},{after},{86_400 + 20},{event}"]
    folder.mkdir()
    (folder / "log.csv").write_text("\n".join([*lines, ""]))
    columns = [f"data.{name}_column={name}" for name in ("user", "item", "time")]
    log = [f"data.path={folder / 'log.csv'}", *columns, "data.feedback_column=event", "data.split=day"]
    small = [one for one in SMALL if not one.startswith("data.")]
    values = composed_values("train_hrl_mg", ["data=events_csv", *log, *small, "agent=hrl_mg", *SMALL_AGENT])
    events = {"feedback_of_event": {"click": "click", "buy": "order"}}
    return variant(folder, {**values, "data": {**values["data"], **events}})


def test_sampled_skips_know_nothing_of_the_test_part(tmp_path):
    both = [clicks(tmp_path / str(other), other) for other in (False, True)]
    shown = [made.data.log.item_ids[made.data.log.item[made.data.rows("test")]] for made in both]
    assert not np.array_equal(*map(np.sort, shown))
    assert (both[0].data.log.feedback == SKIP).any()
    assert both[0].data.log.cut_sessions == 10
    assert_equal(*map(learned_before_agents, both))
    # The embedding goes on with the items of the test part, of which there are other ones.
    assert_equal(*(before_training(made, "ddpg")[1] for made in both), without=".embedding")


def another_part(method: str, wanted: str, got: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A mistake: whoever asks for a part of the log gets another."""
    right = getattr(SessionData, method)
    return lambda patch: patch.setattr(
        SessionData, method, lambda self, part: right(self, got if part == wanted else part)
    )


@pytest.mark.parametrize("part", ["test", "held_out"])
def test_the_guard_notices_where_training_sessions_begin(variants, monkeypatch, part):
    another_part("first_rows", "train", part)(monkeypatch)
    with pytest.raises(AssertionError):
        before_training(variants["as it is"], "ddpg")


@pytest.mark.parametrize("part", ["test", "train"])
def test_the_guard_notices_who_validates(variants, monkeypatch, part):
    another_part("first_rows", "held_out", part)(monkeypatch)
    made = variants["as it is"]
    with pytest.raises(AssertionError):
        validated(made, made.config_of("ddpg"))


class Stop(Exception):
    """Ends the fit of a simulator before it takes time; its argument is what would be fitted to."""


@pytest.mark.parametrize("part", ["test", "held_out"])
def test_the_guard_notices_what_the_simulator_is_fitted_to(variants, monkeypatch, tmp_path, part):
    def stop(config: Any, data: SessionData, embedding: np.ndarray, folder: RunFolder) -> None:
        raise Stop(embedding, data.log.feedback[data.rows("train")])

    another_part("rows", "train", part)(monkeypatch)
    monkeypatch.setattr("hrlmg_jax.user_model.paper.fit_feedback", stop)
    held_out, found = variants["as it is"].data.held_out, []

    def changed(log: EventLog) -> EventLog:
        return with_other_rows(log, rows_of_part(log, part == "test", held_out))

    for number, change in enumerate((lambda log: log, changed)):
        with pytest.raises(Stop) as caught:
            variant(tmp_path / str(number), values_of("hrl_mg"), change)
        found.append(caught.value.args)
    for one, other in zip(*found, strict=True):
        assert not np.array_equal(one, other)
