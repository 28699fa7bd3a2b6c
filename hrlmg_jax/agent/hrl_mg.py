"""HRL-MG, its ablations (`hrl`: one goal, ...) and the baselines that are parts of it (`ddpg`, `dnn`, ...)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from harness.errors import UserError
from harness.settings import SettingError
from harness.training.agent import Agent
from hrlmg_jax.agent.goals import GoalConfig
from hrlmg_jax.agent.high_levels import HighLevel, LearnedGoals, MemoryGoals
from hrlmg_jax.agent.learner import HrlState, Learner, LearnerConfig, OneLevelLearner, TwoLevelLearner, World, levels_of
from hrlmg_jax.agent.low_levels import DdpgByCritic, DdpgLevel, DnnLevel, LowLevel
from hrlmg_jax.agent.memory import REMEMBERED, Memory
from hrlmg_jax.agent.memory_critic import MemoryActorCritic
from hrlmg_jax.agent.networks import ActorCritic, NetworkConfig
from hrlmg_jax.agent.policy import OneLevelPolicy, TwoLevelPolicy
from hrlmg_jax.baselines.fixed_lists import POPULARITY
from hrlmg_jax.evaluation.policies import learned
from hrlmg_jax.methods import AgentSettings, Method
from hrlmg_jax.problem import Problem, make_env
from hrlmg_jax.retrieval.index import RetrievalConfig, make_item_index
from sim.envs.session_env import SessionConfig, SessionEnv


@dataclass(frozen=True, kw_only=True)
class Settings(AgentSettings):
    """An agent and its parts (`conf/agent/hrl_mg.yaml`)."""

    network: NetworkConfig
    goals: GoalConfig
    learner: LearnerConfig
    retrieval: RetrievalConfig
    decides: Literal["actor", "critic"] = "actor"

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the keys."""
        super().__post_init__()
        if self.decides == "critic" and (self.goals.enabled or self.goals.memory):
            raise SettingError(
                ".decides=critic takes the item that LCritic values most: it knows no goals and no memory",
                do="Set .goals.enabled=false and .goals.memory=0, as agent=ddpg_critic and agent=dnn do.",
            )

    @property
    def parallel_sessions(self) -> tuple[int, str]:
        """Training sessions side by side."""
        return self.learner.sessions, "agent.learner.sessions"

    @property
    def warm_up(self) -> tuple[int, str]:
        """Training steps that recommend as the log did."""
        return self.learner.warm_up_steps, "agent.learner.warm_up_steps"

    def check(self, env: SessionConfig) -> None:
        """Checks that a session has room for a window; raises UserError naming the keys."""
        if self.goals.enabled and env.episode_length < self.goals.period:
            raise UserError(
                f"env.episode_length is {env.episode_length}, less than a window of goals "
                f"(agent.goals.period={self.goals.period})",
                do="Lengthen the session or shorten the period.",
            )


def build(problem: Problem, settings: Settings) -> Method:
    """Builds the learner, its tables on the device, and what tests make of its states."""
    # Learner, its tables, and what acts.
    size = int(problem.simulator.params.embedding.shape[1])
    env = make_env(problem.env, problem.training_users, problem.env.episode_length)
    learner, world = make_learner(settings, env, size), make_world(problem, settings.retrieval)
    policy = learner.policy.as_policy()

    def describe(state: HrlState) -> str:
        replays = f"{state.low_replay.bytes_per_row} bytes per transition"
        if state.high_replay is not None:
            replays += f", {state.high_replay.bytes_per_row} per window"
        return f"{settings.name}: {settings.learner.sessions} sessions side by side, replay {replays}"

    def pretrain(state: HrlState) -> HrlState:
        earlier = problem.earlier
        return state if earlier is None else learner.with_levels(state, earlier.carry_over(levels_of(state)))

    # What the outer loop trains, and what is tested of it.
    agent = Agent(
        init=learner.init,
        pretrain=pretrain,
        train_step=learner.train_step,
        world=world,
        episodes_per_step=settings.learner.sessions / problem.env.episode_length,
        after_evaluation=lambda state, metrics: learner.keep_best(state, metrics["validation_reward"]),
    )
    return Method(
        agent,
        lambda state: learned(problem, policy, learner.acting_params(state, world)),
        lambda state: learned(problem, policy, learner.current_params(state, world)),
        lambda state: int(state.best.step),
        describe,
    )


def make_learner(settings: Settings, env: SessionEnv, embedding_size: int) -> Learner:
    """Builds the learner that the settings ask for: which levels there are, and what the low level sees.

    Args:
        env: The simulator that it is trained in.
        embedding_size: E.
    """
    goals, config = settings.goals, settings.learner
    memory = Memory(goals.memory) if goals.memory else None
    # What the low level sees besides the histories: the goal in force, or without goals what is remembered.
    remembered = len(REMEMBERED) if memory else 0
    directions = int(goals.conditioned) if goals.enabled else remembered
    networks = ActorCritic(settings.network, 1, embedding_size, directions)
    low: LowLevel
    if settings.decides == "critic" and not config.gamma:
        low = DnnLevel(networks, config.level)
    else:
        kind = DdpgByCritic if settings.decides == "critic" else DdpgLevel
        low = kind(networks, config.level, config.action_noise, config.target_action == "item")
    if not goals.enabled:
        return OneLevelLearner(env, OneLevelPolicy(low, config.epsilon, memory), config, goals.period)

    # What sets goals.
    high: HighLevel[Any]
    if memory:
        with_memory = MemoryActorCritic(settings.network, goals.count, embedding_size)
        high = MemoryGoals(with_memory, config.level, goals, memory)
    else:
        high = LearnedGoals(ActorCritic(settings.network, goals.count, embedding_size), config.level, goals)
    policy = TwoLevelPolicy(low, high, goals, env.history_length, embedding_size, config.epsilon)
    return TwoLevelLearner(env, policy, config, goals.period)


def make_world(problem: Problem, retrieval: RetrievalConfig) -> World:
    """Returns the tables that training and acting read on the device."""
    data, embedding = problem.data, np.asarray(problem.simulator.params.embedding)
    ranking, longest = problem.rankings[POPULARITY], problem.longest_session
    index = make_item_index(retrieval, embedding, data.num_items, ranking, longest)
    shown = np.cumsum(data.training_counts()["shown"], dtype=np.float64)
    return World(problem.env_params(data.first_rows("train")), index, jnp.asarray(shown / shown[-1], jnp.float32))
