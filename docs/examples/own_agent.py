"""Own agent: train it in our simulator by Gymnasium's interface, test it beside our methods.

The agent is a few lines of NumPy that know nothing of this package. One of PyTorch does the same
(`docs/examples/own_torch_agent`).
"""

import json
import subprocess
import sys

import gymnasium
import numpy as np

# %% The simulator
# 256 users at once, in one compiled program. An action is the number of an item; `info["action_mask"]` says which items
# have not been recommended yet. `autoreset_mode` says that another user takes the place of one whose episode has ended
# in the same step; `info` is then about the new episode, and `info["final_info"]` about the one that has ended.
SETTINGS = {"data.size": "tiny", "env.episode_length": 16}
envs = gymnasium.make_vec("sim.gym:TPGR/Ratings-v0", num_envs=256, autoreset_mode="SameStep", **SETTINGS)
observation, info = envs.reset(seed=0)
print({name: array.shape for name, array in observation.items()})

# %% Train
# A bandit: it shows the item with the highest mean answer so far, and one item in five at random.
random = np.random.default_rng(0)
number, total = np.ones(len(envs.item_ids)), np.ones(len(envs.item_ids))
earned = []
for step in range(400):
    drawn = random.random((envs.num_envs, len(number)))
    explore = random.random((envs.num_envs, 1)) < 0.2
    score = np.where(explore, drawn, total / number + 1e-6 * drawn)
    action = np.where(info["action_mask"], score, -np.inf).argmax(1)
    observation, reward, terminated, truncated, info = envs.step(action)
    np.add.at(number, action, 1)
    answer = np.where(truncated, info["final_info"]["answer"], info["answer"]) if truncated.any() else info["answer"]
    np.add.at(total, action, answer)
    earned.append(reward.mean())
    if step % 100 == 99:
        print(f"steps {step - 98} to {step + 1}: mean reward {np.mean(earned[-100:]):.3f}")

# %% Hand it over
# What is evaluated is a function: from the items of an episode so far, with the user's answers, to the next item. Items
# are named by their ids, which `item_ids` has in the order of the actions.
ranking = envs.item_ids[np.argsort(-total / number)].tolist()
with open("bandit.py", "w") as file:
    file.write(f"""
RANKING = {ranking}


def policy(history):
    seen = {{item for item, answer in history}}
    return next(item for item in RANKING if item not in seen)
""")

# %% Test
# The same test users, metrics and baselines as for every other agent.
AGENT = ["agent=python", "agent.path=bandit.py:policy", "agent.label=bandit", "hydra.run.dir=outputs/bandit"]
settings = [f"{key}={value}" for key, value in SETTINGS.items()]
subprocess.run([sys.executable, "-m", "tpgr_jax.train", *settings, *AGENT], check=True)
with open("outputs/bandit/eval.json") as file:
    evaluation = json.load(file)
for name, result in evaluation["policies"].items():
    print(f"{name:16} reward {result['reward']:.3f}, precision {result['precision']:.3f}")
