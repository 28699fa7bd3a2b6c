"""Exports of runs on a log give the recommender's lists: histories by kind, sessions, a memory that reaches far."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from exports import assert_same_lists

from harness.runs.composition import composed_values
from harness.runs.run_folder import RunFolder
from harness.serving.exported import Question
from harness.settings import read_settings
from hrlmg_jax.problem import Problem, load_data, make_problem
from hrlmg_jax.recommender import _history_table, system_of
from hrlmg_jax.registry import build_method
from hrlmg_jax.settings import RunConfig
from hrlmg_jax.user_model import store
from sim.recommend import export
from sim.recommend.export import write_export
from sim.recommend.recommender import Recommender

SMALL = [
    *("data.size=tiny", "data.num_users=20", "data.num_items=100", "env.episode_length=6", "env.history_length=3"),
    *("evaluation.long=6", "evaluation.short=3", "evaluation.validation_sessions=8", "evaluation.sessions_at_a_time=8"),
    *("simulator=paper", "simulator.held_out_fraction=0.3"),
    *("simulator.embedding.size=4", "simulator.network.hidden_size=4"),
    *("simulator.network.state_size=4", "simulator.network.width=8", "simulator.batch_size=16"),
    "simulator.trial_sessions=0",
    *(f"simulator.train.{key}=4" for key in ("steps", "log_every", "evaluate_every", "checkpoint_every")),
]
AGENT = [
    "agent.goals.period=2",
    "agent.network.hidden_size=4",
    "agent.network.state_size=4",
    "agent.network.critic_width=8",
]
AGENTS = {
    "hrl_mg_memory": [*AGENT, "agent.goals.memory=5"],
    "popularity": [],
    "hrl_mg": AGENT,
    "ddpg_critic": AGENT,
}


@pytest.fixture(scope="module")
def problem(tmp_path_factory) -> Problem:
    folder = tmp_path_factory.mktemp("problem")
    caches = [f"data.cache={folder / 'tables'}", f"simulator.root={folder / 'simulators'}"]
    values = composed_values("train_hrl_mg", [*SMALL, *AGENT, *caches])
    config = read_settings(RunConfig, values)
    run = RunFolder(folder / "run")
    run.path.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "plot_reliability", lambda *_: None)
        data = load_data(config.fit(), config.longest_session)
        return make_problem(config.fit(), values, data, run, config.longest_session)


def recommender_of(problem: Problem, agent: str) -> Recommender:
    config = read_settings(RunConfig, composed_values("train_hrl_mg", [*SMALL, f"agent={agent}", *AGENTS[agent]]))
    method = build_method(problem, config.agent)
    state: Any = None if method.agent is None else jax.jit(method.agent.init)(jax.random.key(0), method.agent.world)
    system: Any = system_of(problem, config, method.newest(state))
    return Recommender(system, system.item_ids.astype(str), "run")


@pytest.mark.parametrize(
    "agent",
    [name if name in ("hrl_mg", "popularity") else pytest.param(name, marks=pytest.mark.long) for name in AGENTS],
)
def test_an_agent_is_exported(agent, problem, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(export, "BATCHES", (1, 8))
    recommender = recommender_of(problem, agent)
    write_export(recommender, str(tmp_path / "export"), 5, True)
    model = assert_same_lists(recommender, tmp_path / "export", ["skip", "click", "order", 1])
    # Users of the log, whose answers may have come later than the items.
    users = recommender.system.user_ids[:8]
    known = recommender.recommend(list(users), model.k)
    given = model.recommend([Question(model.history_of(user)) for user in users])
    np.testing.assert_array_equal(known.scores, given.scores)


def test_histories_of_any_length_are_read_by_few_programs(problem):
    log = problem.data.log
    histories = recommender_of(problem, "popularity").system.histories_of(range(20))
    lengths = {tuple(map(len, jax.tree.leaves(_history_table([history], log)[0]))) for history in histories}
    assert len({len(history.items) for history in histories}) > 5
    assert len(lengths) <= 3
    assert all(len(set(of_columns)) == 1 for of_columns in lengths)
