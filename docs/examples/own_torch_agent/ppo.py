"""An agent in PyTorch: the masked PPO of sb3-contrib learns in our simulator and is evaluated beside our methods.

Stable-Baselines3 is no dependency of ours; give it an environment of its own:

    python3 -m venv sb3 && sb3/bin/python -m pip install -e '.[gym]' sb3-contrib
    sb3/bin/python docs/examples/own_torch_agent/ppo.py movielens_1m 8192  # data, environment steps; writes ppo.zip
    sb3/bin/python -m tpgr_jax.train data=movielens_1m agent=python agent.batched=true agent.label=ppo \
        agent.path=docs/examples/own_torch_agent/ppo.py:policy
"""

import functools
import sys
from pathlib import Path

import gymnasium
import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

MODEL, ITEMS = (Path(__file__).with_name(name) for name in ("ppo.zip", "ppo_items.npy"))  # wherever it is run from


class CompiledVecEnv(VecEnv):
    """A compiled vector environment as Stable-Baselines3 wants it: episodes start anew in the step that ends them."""

    def __init__(self, envs):
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self.envs = envs

    def reset(self):
        seeds = None if None in self._seeds else self._seeds
        self._reset_seeds()  # they count once: the next reset goes on
        return self.envs.reset(seed=seeds)[0]

    def step_async(self, actions):
        self.actions = actions

    def step_wait(self):
        observation, rewards, _, truncated, info = self.envs.step(self.actions)
        infos = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(truncated):
            infos[row] = {"terminal_observation": info["final_obs"][row], "TimeLimit.truncated": True}
        return observation, rewards.astype(np.float32), truncated, infos

    def env_method(self, method_name, *arguments, indices=None, **settings):
        values = getattr(self.envs, method_name)(*arguments, **settings)  # action_masks: one row for each environment
        return [values[row] for row in self._get_indices(indices)]

    def has_attr(self, name):
        return hasattr(self.envs, name)

    def get_attr(self, name, indices=None):
        return [getattr(self.envs, name) for _ in self._get_indices(indices)]

    def set_attr(self, name, value, indices=None):
        raise AttributeError("the environments are one program and share what they have")

    def env_is_wrapped(self, wrapper_class, indices=None):
        return [False for _ in self._get_indices(indices)]

    def close(self):
        self.envs.close()


class Answered(BaseFeaturesExtractor):
    """Learned item vectors, added up with the answers as weights, and without."""

    def __init__(self, space, size=32):
        super().__init__(space, 2 * size)
        self.vectors = torch.nn.Embedding(int(space["items"].high.max()) + 2, size)

    def forward(self, observation):
        items, answers = observation["items"].long(), observation["answers"].float()
        vectors = self.vectors(items + 1)  # 0: nothing yet
        weights = torch.stack([answers, (items >= 0).float()], 1)
        return (weights @ vectors).flatten(1)


def train(data: str, steps: int) -> None:
    """Trains, and writes the model and the ids of its actions."""
    envs = gymnasium.make_vec("sim.gym:TPGR/Ratings-v0", num_envs=64, data=data, autoreset_mode="SameStep", masks=False)
    ppo = MaskablePPO(
        "MultiInputPolicy",
        VecMonitor(CompiledVecEnv(envs)),
        n_steps=32,  # one episode
        batch_size=512,
        n_epochs=4,
        gamma=0.9,
        learning_rate=1e-3,
        policy_kwargs={"features_extractor_class": Answered, "net_arch": [64]},
        seed=0,
        verbose=1,
    )
    ppo.learn(steps)
    ppo.save(MODEL)
    np.save(ITEMS, envs.item_ids)


@functools.cache
def trained():
    """Returns the model, the ids of its actions, and their numbers by id."""
    ids = np.load(ITEMS)
    return MaskablePPO.load(MODEL, device="cpu"), ids, {item: number for number, item in enumerate(ids.tolist())}


def policy(histories):
    """Returns an item for each history; what `agent.path` names."""
    model, ids, number = trained()
    space = model.observation_space
    batch = {name: np.zeros((len(histories), *box.shape), box.dtype) for name, box in space.spaces.items()}
    batch["items"][:] = -1
    allowed = np.ones((len(histories), len(ids)), bool)
    for row, history in enumerate(histories):
        batch["step"][row] = len(history)
        for step, (item, answer) in enumerate(history):
            batch["items"][row, step], batch["answers"][row, step] = number[item], answer
            allowed[row, number[item]] = False
    return ids[model.predict(batch, action_masks=allowed, deterministic=True)[0]]


if __name__ == "__main__":
    train(sys.argv[1], int(sys.argv[2]))
