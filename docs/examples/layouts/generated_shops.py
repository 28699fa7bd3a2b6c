"""Writes the generated log in the layouts of RetailRocket and Diginetica: generated_shops.py FOLDER [SIZE].

What `data=retailrocket` and `data=diginetica` make of it can then be compared with the truth. RetailRocket's layout has
no impressions (what was shown and left alone is lost), Diginetica's has them: a session is one query here.
"""

import csv
import itertools
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from sim.generators.funnel import generate_log
from sim.tables.events import CLICK, ORDER

folder, size = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "small"
log = generate_log(size=size, seed=0)
for name in ("retailrocket", "diginetica"):
    (folder / name).mkdir(parents=True, exist_ok=True)


def write(name: str, delimiter: str, head: str, rows: Iterable[list[object]]) -> None:
    """Writes a table below the folder."""
    with (folder / name).open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(head.split(","))
        writer.writerows(rows)


# %% RetailRocket: a row per event. A click is a view, an order a view and a transaction.
clicked = np.flatnonzero(log.feedback >= CLICK)
events = [(int(log.time[row]), "view", row) for row in clicked]
events += [(int(log.time[row]) + 5, "transaction", row) for row in clicked if log.feedback[row] == ORDER]
write(
    "retailrocket/events.csv",
    ",",
    "timestamp,visitorid,event,itemid,transactionid",
    (
        [1000 * time, log.user[row], event, log.item[row], row if event == "transaction" else ""]
        for time, event, row in sorted(events)
    ),
)

# %% Diginetica: queries with what they showed; clicks and purchases in files of their own. Times are in milliseconds
# since the session began, dates are days.
queries, clicks, purchases = [], [], []
starts = log.session_starts()
for session, (first, end) in enumerate(itertools.pairwise(starts)):
    day = str(np.datetime64(int(log.time[first]), "s").astype("datetime64[D]"))
    user, shown = int(log.user[first]), log.item[first:end]
    listed = ",".join(map(str, shown))
    queries.append([session, session, user, 0, 100, day, "", 0, listed, "FALSE"])
    for row in range(first, end):
        after = 1000 * (int(log.time[row] - log.time[first]) + 1)
        if log.feedback[row] >= CLICK:
            clicks.append([session, after, int(log.item[row])])
        if log.feedback[row] == ORDER:
            purchases.append([session, user, after + 5000, day, row, int(log.item[row])])
head = "queryId,sessionId,userId,timeframe,duration,eventdate,searchstring.tokens,categoryId,items,is.test"
write("diginetica/train-queries.csv", ";", head, queries)
write("diginetica/train-clicks.csv", ";", "queryId,timeframe,itemId", clicks)
write("diginetica/train-purchases.csv", ";", "sessionId,userId,timeframe,eventdate,ordernumber,itemId", purchases)
print(f"{len(events):,} events in {folder}/retailrocket, {len(queries):,} queries in {folder}/diginetica")
