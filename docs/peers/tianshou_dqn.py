"""Double dueling DQN of tianshou, whose learners EasyRL4Rec uses: transitions trained a second.

States are given as numbers; nothing encodes a history.
"""

from __future__ import annotations

import numpy as np
from gymnasium.spaces import Box, Discrete
from tianshou.algorithm import DQN
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, ReplayBuffer
from tianshou.utils.net.common import Net
from tianshou.utils.torch_utils import policy_within_training_step
from timing import Sizes, median_seconds, report

STORED = 8_192  # transitions to sample from


def measure(sizes: Sizes) -> dict[str, float]:
    """Returns transitions a second."""
    # The agent.
    heads = {"hidden_sizes": []}
    network = Net(
        state_shape=(sizes.state,),
        action_shape=sizes.items,
        hidden_sizes=list(sizes.hidden),
        dueling_param=(heads, heads),
    )
    states = Box(-10, 10, (sizes.state,))
    policy = DiscreteQLearningPolicy(model=network, action_space=Discrete(sizes.items), observation_space=states)
    agent = DQN(policy=policy, optim=AdamOptimizerFactory(lr=1e-3), gamma=0.6, target_update_freq=50, is_double=True)
    # Transitions.
    generator = np.random.default_rng(0)
    buffer = ReplayBuffer(STORED)
    for number in range(STORED):
        state, following = generator.standard_normal((2, sizes.state)).astype(np.float32)
        ended = number % sizes.steps == sizes.steps - 1
        action, reward = int(generator.integers(sizes.items)), generator.uniform(-1, 1)
        buffer.add(
            Batch(obs=state, act=action, rew=reward, terminated=ended, truncated=False, obs_next=following, info={})
        )

    def updates() -> None:
        with policy_within_training_step(policy):
            for _ in range(sizes.updates):
                agent.update(buffer=buffer, sample_size=sizes.batch)

    return {"": sizes.updates * sizes.batch / median_seconds(updates, sizes.repeats)}


if __name__ == "__main__":
    report("tianshou", measure)
