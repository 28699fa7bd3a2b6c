"""What the peers are compared with: `python docs/peers/ours.py TASK [--smoke]` prints rates as JSON."""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version

import jax
import jax.numpy as jnp
from timing import SMOKE, Measure, Sizes

from harness.compute.devices import AUTOMATIC, cores_as_devices
from harness.compute.vector_width import choose_vector_width
from harness.reports.benchmark import seconds_of
from sim.envs.rollout import rollout
from sim.gym.speed import scanned_rate, single_rate, vector_rate
from sim.gym.worlds import RATINGS, make_world
from tpgr_jax.benchmark.parts import catalogue_problem, method_runs, settings
from tpgr_jax.benchmark.recommending import recommend_point
from tpgr_jax.methods import RunContext
from tpgr_jax.registry import build_method
from tpgr_jax.tree.item_tree import ItemTree

_SCAN_STEPS = 64


def tpgr_step(sizes: Sizes) -> dict[str, float]:
    """Returns episodes trained a second: with one update of the whole batch, and with one for each step of episodes."""
    episodes = sizes.tpgr_users * sizes.tpgr_episodes

    def rate(update: str) -> float:
        config = settings(
            f"train.episodes_per_step={episodes}",
            f"agent.learner.episodes_per_user={sizes.tpgr_episodes}",
            f"agent.learner.update={update}",
            f"agent.policy.hidden={list(sizes.hidden)}",
            "agent.policy.embedding=random",
            f"env.episode_length={sizes.steps}",
        )
        step = method_runs(config, catalogue_problem(config, sizes.items))["step"]
        return episodes / seconds_of(step, sizes.repeats)

    return {"one update of the batch": rate("batch"), "an update for each step of the episodes": rate("per_timestep")}


def linear_ucb(sizes: Sizes) -> dict[str, float]:
    """Returns decisions with updates a second."""
    config = settings(
        "agent=linear_ucb",
        f"agent.policy.feature_size={sizes.features - 1}",
        f"env.episode_length={sizes.steps}",
    )
    problem = catalogue_problem(config, sizes.items)
    method = build_method(problem, config.agent, RunContext(0, sizes.bandit_users, _no_tree))
    users = jnp.resize(problem.env_params.users, (sizes.bandit_users,))

    @jax.jit
    def play() -> jax.Array:
        params = method.policy_params(None)
        played = rollout(problem.env, problem.env_params, method.policy, params, users, jax.random.key(0), explore=True)
        return played.reward

    return {"": sizes.bandit_users * sizes.steps / seconds_of(play, sizes.repeats)}


def _no_tree() -> ItemTree:
    raise LookupError("LinearUCB has no tree")


def q_learning(sizes: Sizes) -> dict[str, float]:
    """Returns transitions trained a second by DQN-R, its encoder included; few episodes are played in between."""
    config = settings(
        "agent=dqn_r",
        "train.episodes_per_step=8",
        f"agent.learner.updates_per_step={sizes.updates}",
        f"agent.learner.batch_episodes={sizes.batch // sizes.steps}",
        f"agent.policy.hidden={list(sizes.hidden)}",
        "agent.policy.embedding=random",
        f"env.episode_length={sizes.steps}",
    )
    step = method_runs(config, catalogue_problem(config, sizes.items))["step"]
    return {"": sizes.updates * sizes.batch / seconds_of(step, sizes.repeats)}


def environment(sizes: Sizes) -> dict[str, float]:
    """Returns environment steps a second with random actions: one environment, many, and many in one program."""
    world = make_world(RATINGS, {"data.size": "movielens_1m" if sizes == Sizes() else "tiny"})
    return {
        "one": single_rate(world, sizes.seconds),
        "vector": vector_rate(world, sizes.vector, sizes.seconds),
        "in one program": scanned_rate(world, sizes.vector, _SCAN_STEPS, sizes.repeats),
    }


def top_10(sizes: Sizes) -> dict[str, float]:
    """Returns lists a second, computed from the users' histories; 1,024 users at once."""
    users = 1_024 if sizes == Sizes() else 8
    asked = {"items": 0, "depth": 2, "users": users, "repeats": 10 * (sizes.repeats - 2) if sizes == Sizes() else 1}
    return {name: 1 / recommend_point(agent, **asked)["many_known"] for name, agent in _RECOMMENDERS.items()}


_RECOMMENDERS = {"TPGR": "tpgr", "LinearUCB": "linear_ucb"}
TASKS: dict[str, Measure] = {
    measure.__name__: measure for measure in (tpgr_step, linear_ucb, q_learning, environment, top_10)
}


def main() -> None:
    """Measures one task, on each core as the commands do."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    choose_vector_width()
    cores_as_devices(AUTOMATIC)
    rates = TASKS[options.task](SMOKE if options.smoke else Sizes())
    print(json.dumps({"version": f"{version('tpgr-jax')}, jax {version('jax')}", "rates": rates}))


if __name__ == "__main__":
    main()
