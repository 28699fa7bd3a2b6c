"""The adapter of the PyTorch example, with stand-ins for the packages that this one does not depend on."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from small_worlds import LENGTH, rating_world

from harness.user_function import load_function
from sim.gym.vector_environment import RecommendationVectorEnv

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "own_torch_agent" / "ppo.py"


class StandIn:
    """What Stable-Baselines3's VecEnv (2.x) gives to its subclasses."""

    def __init__(self, num_envs, observation_space, action_space):
        self.num_envs = num_envs
        self._reset_seeds()

    def seed(self, seed):
        self._seeds = [seed + row for row in range(self.num_envs)]

    def _reset_seeds(self):
        self._seeds = [None] * self.num_envs

    def _get_indices(self, indices):
        return range(self.num_envs) if indices is None else [indices] if isinstance(indices, int) else indices


@pytest.fixture
def script(monkeypatch):
    parts = {
        "torch": {"nn": SimpleNamespace()},
        "sb3_contrib": {"MaskablePPO": None},
        "stable_baselines3": {},
        "stable_baselines3.common": {},
        "stable_baselines3.common.torch_layers": {"BaseFeaturesExtractor": object},
        "stable_baselines3.common.vec_env": {"VecEnv": StandIn, "VecMonitor": None},
    }
    for name, attributes in parts.items():
        module = ModuleType(name)
        module.__dict__.update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    function = load_function(f"{SCRIPT}:policy", "agent.path")
    return function.function.__globals__


def test_files_are_beside_the_script(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert script["MODEL"] == SCRIPT.with_name("ppo.zip")
    assert script["ITEMS"] == SCRIPT.with_name("ppo_items.npy")


def test_seeds_count_once_and_indices_choose_environments(script):
    envs = RecommendationVectorEnv(rating_world(), 3, autoreset_mode="SameStep")
    adapted, again = script["CompiledVecEnv"](envs), RecommendationVectorEnv(rating_world(), 3)
    adapted.seed(5)
    for seed in (5, None, None):
        adapted.reset()
        again.reset(seed=seed)
        assert envs._episodes.users().tolist() == again._episodes.users().tolist()
    adapted.step_async(np.array([1, 2, 3]))
    adapted.step_wait()
    masks = adapted.env_method("action_masks", indices=[2, 0])
    assert [np.flatnonzero(~mask).tolist() for mask in masks] == [[3], [1]]
    assert len(adapted.env_method("action_masks")) == 3
    assert len(adapted.get_attr("item_ids", 1)) == len(adapted.env_is_wrapped(None, 1)) == 1


def test_the_last_observation_of_an_episode_is_handed_on(script):
    adapted = script["CompiledVecEnv"](RecommendationVectorEnv(rating_world(), 2, autoreset_mode="SameStep"))
    adapted.reset()
    for item in range(LENGTH):
        adapted.step_async(np.array([item, item + 1]))
        observation, rewards, ended, infos = adapted.step_wait()
    assert ended.all()
    assert rewards.dtype == np.float32
    assert observation["step"].ravel().tolist() == [0, 0]
    assert [info["terminal_observation"]["step"].item() for info in infos] == [LENGTH, LENGTH]
    assert infos[1]["terminal_observation"]["items"].tolist() == [1, 2, 3, 4]
    assert all(info["TimeLimit.truncated"] for info in infos)
