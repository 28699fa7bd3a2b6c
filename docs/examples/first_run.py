"""First run: train TPGR, test it, look at what it recommends.

Everything here is small so that it ends within a minute; it needs no data and no network. The ratings are generated,
and say nothing about real users.
"""

import json
import subprocess
import sys

import numpy as np

# %% Train
# The commands are the interface. This one generates ratings, builds the item tree, trains the policy and tests it on
# users that it has never seen. `train.steps` counts updates; each plays `train.episodes_per_step` episodes of 32
# recommendations.
TRAIN = [sys.executable, "-m", "tpgr_jax.train"]
SMALL = ["data.size=tiny", "train.steps=40", "train.episodes_per_step=256", "train.evaluate_every=20"]
subprocess.run([*TRAIN, *SMALL, "hydra.run.dir=outputs/first_run"], check=True)

# %% What a run leaves
# `metrics.jsonl` has a row per log point; `test_reward` is there where the policy was tested.
with open("outputs/first_run/metrics.jsonl") as file:
    rows = [json.loads(line) for line in file]
for row in rows:
    if "test_reward" in row:
        print(f"after {row['episodes']:,} episodes: reward {row['test_reward']:.3f} on the test users")

# %% How good it is
# `eval.json` has the four metrics of the paper with 95 % intervals, beside three simple policies on the same users.
with open("outputs/first_run/eval.json") as file:
    evaluation = json.load(file)
for name, result in evaluation["policies"].items():
    low, high = result["reward_ci95"]
    print(f"{name:16} reward {result['reward']:.3f} ({low:.3f} to {high:.3f}), precision {result['precision']:.3f}")

# %% Recommendations
# `eval.npz` has one row per test user: what was recommended, in order, and what it earned.
results = np.load("outputs/first_run/eval.npz")
for user, items, reward in list(zip(results["user"], results["items"], results["reward"], strict=True))[:3]:
    print(f"user {user}: items {items[:6].tolist()} ..., reward {reward:.3f}")

# %% Evaluate again, continue
# `evaluate` repeats the numbers above from the newest checkpoint; `resume` trains a finished run further.
subprocess.run([sys.executable, "-m", "tpgr_jax.evaluate", "run=outputs/first_run"], check=True)
subprocess.run([*TRAIN, "resume=outputs/first_run", "train.steps=60"], check=True)
