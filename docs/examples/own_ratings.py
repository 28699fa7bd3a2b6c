"""Own ratings: train on a table of your own.

The table below is made up; put the path of yours in its place, and the names of its columns.
"""

import csv
import json
import subprocess
import sys

import numpy as np

# %% A table of ratings
# One row per rating: a user, an item, and a number. Ids may be any text. Here 200 users like one of three genres.
random = np.random.default_rng(0)
with open("ratings.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["reader", "book", "stars"])
    for user in range(200):
        genre = user % 3
        for book in random.choice(90, 30, replace=False):
            liked = book % 3 == genre
            writer.writerow(
                [f"reader-{user}", f"book-{book}", int(random.integers(4, 6) if liked else random.integers(1, 4))]
            )

# %% Look at what is read
# The same `data.*` settings work for every command. A wrong line is reported with its number; nothing is dropped
# silently.
DATA = ["data=ratings_file", "data.path=ratings.csv"]
DATA += ["data.user_column=reader", "data.item_column=book", "data.rating_column=stars"]
subprocess.run([sys.executable, "-m", "sim.data", *DATA], check=True)

# %% Train
# `data.relevant_above` says what counts as a hit: here, four stars and more. TPGR+ fits a model of the users' ratings
# first, and needs few steps after that.
subprocess.run(
    [
        *[sys.executable, "-m", "tpgr_jax.train", *DATA, "data.relevant_above=3"],
        *["agent=tpgr_plus", "agent.policy.factors=8", "agent.policy.hidden=[32]"],
        *["env.episode_length=16", "train.steps=20", "train.episodes_per_step=256", "hydra.run.dir=outputs/books"],
    ],
    check=True,
)

# %% Compare
# A policy that recommends one list to everybody cannot tell genres apart.
with open("outputs/books/eval.json") as file:
    policies = json.load(file)["policies"]
for name in ("tpgr_plus", "best_fixed_list", "random"):
    print(f"{name:16} reward {policies[name]['reward']:.3f}, precision {policies[name]['precision']:.3f}")

# %% What a new reader gets
# The recommendations carry your own ids.
results = np.load("outputs/books/eval.npz")
print(results["user"][0], "is shown", *results["items"][0][:8])
