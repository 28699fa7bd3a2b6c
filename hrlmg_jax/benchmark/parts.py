"""What several sections measure: learner, tables and a log, with an untrained user model."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from harness.reports.benchmark import (
    composed_settings,
)
from harness.runs.composition import composed_values
from harness.settings import read_settings
from hrlmg_jax.agent import hrl_mg
from hrlmg_jax.agent.learner import Learner, World
from hrlmg_jax.baselines.fixed_lists import fixed_rankings
from hrlmg_jax.problem import Problem, load_data, make_env
from hrlmg_jax.settings import RunConfig
from hrlmg_jax.user_model.latent.fit import first_weights
from hrlmg_jax.user_model.latent.likelihood import LatentParams
from hrlmg_jax.user_model.latent.users import LatentUsers
from hrlmg_jax.user_model.network import FeedbackNetwork, FeedbackParams
from hrlmg_jax.user_model.paper import PaperUsers
from hrlmg_jax.user_model.settings import FitConfig, LatentConfig, PaperConfig
from hrlmg_jax.user_model.store import Simulator
from sim.envs.nearest_items import unit
from sim.envs.session_env import SessionParams

SHORT = (
    "simulator=paper",
    "env.episode_length=20",
    "evaluation.long=20",
    "evaluation.short=10",
    *(f"{part}.network.{size}=4" for part in ("agent", "simulator") for size in ("hidden_size", "state_size")),
    "agent.network.critic_width=8",
    "simulator.network.width=8",
    *(f"agent.learner.{size}=8" for size in ("sessions", "batch_size", "high_batch_size")),
    "agent.learner.replay_capacity=1000",
)
"""Settings of a run that only shows that it runs."""


@dataclass(frozen=True)
class Parts:
    """What is measured: a run's settings, those of its agent, its learner with tables, and its problem."""

    config: RunConfig
    agent: hrl_mg.Settings
    learner: Learner
    world: World
    problem: Problem


def agent_settings(*overrides: str) -> hrl_mg.Settings:
    """Returns the agent's part of the configuration of `python -m hrlmg_jax.train OVERRIDES`."""
    return read_settings(hrl_mg.Settings, composed_values("train_hrl_mg", overrides)["agent"], "agent")


def make_parts(smoke: bool) -> Parts:
    """Builds learner and tables over the generated log with the paper's users, untrained, who take as long to ask."""
    overrides = ["data.size=tiny", *SHORT] if smoke else ["simulator=paper", "data.size=small"]
    config, agent = composed_settings(RunConfig, "train_hrl_mg", *overrides), agent_settings(*overrides)
    data = load_data(config.fit(), config.longest_session)
    key, embedding_key = jax.random.split(jax.random.key(0))
    embedding = unit(jax.random.normal(embedding_key, (data.log.num_items, config.simulator.embedding.size)))
    assert isinstance(config.simulator, PaperConfig)
    model = PaperUsers(FeedbackNetwork(config.simulator.network))
    simulator = Simulator(model, FeedbackParams(model.init(key, embedding), embedding), {})
    rankings = fixed_rankings(config.env, data)
    problem = Problem(data, config.env, simulator, rankings, config.longest_session)
    env = make_env(config.env, problem.users, config.env.episode_length)
    learner = hrl_mg.make_learner(agent, env, config.simulator.embedding.size)
    return Parts(config, agent, learner, hrl_mg.make_world(problem, agent.retrieval), problem)


def latent_users(problem: Problem, rows: np.ndarray) -> tuple[LatentUsers, SessionParams]:
    """Returns untrained latent users, and the tables of sessions with them that begin at rows of the log."""
    settings = read_settings(FitConfig, composed_values("fit_simulator", ["simulator=latent"])).simulator
    assert isinstance(settings, LatentConfig)
    model, embedding = LatentUsers(settings), problem.simulator.params.embedding
    params = LatentParams(first_weights(settings, embedding, jax.random.key(0)), embedding)
    users = model.of_strangers(params, len(rows))
    return model, SessionParams(problem.data.table, jnp.asarray(rows, jnp.int32), None, users)
