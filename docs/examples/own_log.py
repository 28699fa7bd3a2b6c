"""Own log: HRL-MG on a log of clicks and orders.

The log below is made up; put the path of yours in its place, and the names of its columns and events.
"""

import csv
import json
import subprocess
import sys

import numpy as np

# %% A log
# One row per event: who was shown what, when, and the answer. `skip` says that an item was shown and left alone.
random = np.random.default_rng(0)
with open("events.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["visitor", "product", "when", "what"])
    for user in range(200):
        taste = user % 4
        for session in range(3):
            began = 1_700_000_000 + session * 100_000 + user * 60
            for place, product in enumerate(random.choice(80, 20, replace=False)):
                click, order = (0.5, 0.1) if product % 4 == taste else (0.03, 0.003)
                draw = random.random()
                answer = "buy" if draw < order else "click" if draw < click else "shown"
                writer.writerow([f"v{user}", f"p{product}", began + place * 20, answer])

# %% Look at what is read
# Event names are mapped to skip, click and order. Sessions are cut where a user pauses for half an hour; the latest
# fifth of them is the test part.
DATA = ["data=events_csv", "data.path=events.csv"]
DATA += ["data.user_column=visitor", "data.item_column=product", "data.time_column=when", "data.feedback_column=what"]
DATA += ["+data.feedback_of_event.shown=skip", "+data.feedback_of_event.buy=order"]
subprocess.run([sys.executable, "-m", "sim.data", *DATA], check=True)

# %% Learn the users
# The report says how well the learned users predict people they have not seen. Read it before anything else: if the
# log-loss is not below that of the base rate, nothing that follows means much.
SIMULATOR = ["env.episode_length=20", "simulator.train.steps=100"]
subprocess.run([sys.executable, "-m", "hrlmg_jax.fit_simulator", *DATA, *SIMULATOR], check=True)

# %% Train and test
# A session never repeats an item, so it must be shorter than the catalogue. The simulator fitted above is found again.
subprocess.run(
    [
        *[sys.executable, "-m", "hrlmg_jax.train", *DATA, *SIMULATOR, "evaluation.short=10", "evaluation.long=20"],
        *["evaluation.sessions=128", "evaluation.validation_sessions=64", "train.steps=100", "agent.goals.period=5"],
        *["agent.learner.warm_up_steps=20", "hydra.run.dir=outputs/shop"],
    ],
    check=True,
)

# %% Compare
# The online test plays with the learned users.
with open("outputs/shop/online.json") as file:
    online = json.load(file)
for name, result in online["policies"].items():
    print(f"{name:12} {result['long_clicks']:.2f} clicks, {result['long_orders']:.2f} orders in 20 recommendations")

# %% What a visitor gets
results = np.load("outputs/shop/online.npz")
print(results["user"][0], "is shown", *results["items"][0][:8])
