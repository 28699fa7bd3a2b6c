"""Generated logs in the exact formats of KuaiRand and Diginetica, and what plain Python reads in them."""

import csv
import datetime
import gzip
import io
import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np

Event = tuple[str, str, int, int]
"""User, item, milliseconds since 1970, and 0 skip, 1 click or 2 order."""
Row = tuple[str, int, int, str, int]
"""User, number of the session, seconds since 1970, item, and the same 0, 1 or 2."""

_BEIJING = datetime.timezone(datetime.timedelta(hours=8))
KUAIRAND_HEADER = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,long_view,"
    "play_time_ms,duration_ms,profile_stay_time,comment_stay_time,is_profile_enter,is_rand,tab"
)
KUAIRAND_PERIODS = {
    "log_standard_4_08_to_4_21": ("2022-04-08", 14),
    "log_standard_4_22_to_5_08": ("2022-04-22", 17),
    "log_random_4_22_to_5_08": ("2022-04-22", 17),
}
_CHANCES = {
    "is_click": 0.4,
    "is_like": 0.1,
    "is_follow": 0.03,
    "is_comment": 0.05,
    "is_forward": 0.04,
    "is_hate": 0.05,
    "long_view": 0.3,
    "is_profile_enter": 0.1,
}


def kuairand_files(seed: int, version: str, users: int = 12, visits: int = 5) -> dict[str, str]:
    """Texts of the log files of a version ("1k", "pure" or "27k", whose standard logs come in two parts) by name.

    Users swipe through several videos in a second, see some again, and the lines are in no order of time.
    """
    random = np.random.default_rng(seed)
    texts = {}
    for name, (first_day, days) in KUAIRAND_PERIODS.items():
        first = int(datetime.datetime.fromisoformat(first_day).replace(tzinfo=_BEIJING).timestamp() * 1000)
        lines = []
        for user, _ in itertools.product(range(users), range(visits)):
            time = first + int(random.integers(0, (days * 86_400 - 3600) * 1000))
            for _ in range(int(random.integers(1, 12))):
                time += int(random.exponential(800))
                lines.append(_kuairand_line(random, user, time, name.startswith("log_random")))
        lines = [lines[place] for place in random.permutation(len(lines))]
        parts = [lines] if version != "27k" or "random" in name else [lines[::2], lines[1::2]]
        for number, part in enumerate(parts, 1):
            ending = f"_part{number}" if len(parts) > 1 else ""
            texts[f"{name}_{version}{ending}.csv"] = "".join(f"{line}\n" for line in (KUAIRAND_HEADER, *part))
    return texts


def _kuairand_line(random: np.random.Generator, user: int, time: int, is_random: bool) -> str:
    moment = datetime.datetime.fromtimestamp(time / 1000, _BEIJING)
    flags = {name: int(random.random() < chance) for name, chance in _CHANCES.items()}
    numbers = {
        "user_id": user,
        "video_id": int(random.zipf(1.5)) % 60,
        "date": f"{moment:%Y%m%d}",
        "hourmin": moment.hour * 100,
        "time_ms": time,
        **flags,
        "play_time_ms": int(random.integers(0, 200_000)),
        "duration_ms": int(random.integers(3_000, 400_000)),
        "profile_stay_time": 0,
        "comment_stay_time": int(random.integers(0, 9_000)),
        "is_rand": int(is_random),
        "tab": int(random.integers(0, 15)),
    }
    return ",".join(str(numbers[name]) for name in KUAIRAND_HEADER.split(","))


def kuairand_events(texts: Iterable[str], proxies: Iterable[str]) -> list[Event]:
    """What the csv module reads in such files, in their order."""
    events = []
    for line in itertools.chain.from_iterable(csv.DictReader(io.StringIO(text)) for text in texts):
        answer = 2 if any(line[proxy] == "1" for proxy in proxies) else int(line["is_click"])
        events.append((line["user_id"], line["video_id"], int(line["time_ms"]), answer))
    return events


def sessions_of(events: Iterable[Event], gap: int) -> list[Row]:
    """The log that events make: users and sessions in order, each item of a session once, with its strongest answer."""
    rows: list[Row] = []
    session = -1
    by_user = sorted(events, key=lambda event: (int(event[0]), event[2]))
    for _, own in itertools.groupby(by_user, key=lambda event: event[0]):
        seen: dict[str, int] = {}
        before = None
        for user, item, milliseconds, answer in own:
            second = milliseconds // 1000
            if before is None or second - before > gap:
                session += 1
                seen = {}
            before = second
            if item in seen:
                known = rows[seen[item]]
                rows[seen[item]] = (*known[:4], max(known[4], answer))
            else:
                seen[item] = len(rows)
                rows.append((user, session, second, item, answer))
    return rows


DIGINETICA_HEADERS = {
    "train-queries.csv": "queryId;sessionId;userId;timeframe;duration;eventdate;searchstring.tokens;categoryId;items;"
    "is.test",
    "train-clicks.csv": "queryId;timeframe;itemId",
    "train-purchases.csv": "sessionId;userId;timeframe;eventdate;ordernumber;itemId",
    "train-item-views.csv": "sessionId;userId;itemId;timeframe;eventdate",
}


def diginetica_files(seed: int, sessions: int = 120) -> dict[str, str]:
    """Texts of the contest's training files by name; item views are not for the reader."""
    random = np.random.default_rng(seed)
    lines: dict[str, list[str]] = {name: [header] for name, header in DIGINETICA_HEADERS.items()}
    query = 0
    for session in range(1, sessions + 1):
        user = "NA" if random.random() < 0.6 else str(random.integers(1, 30))
        day = datetime.date(2016, 1, 1) + datetime.timedelta(int(random.integers(0, 150)))
        time = int(random.integers(0, 10**7))
        for _ in range(int(random.integers(1, 4))):
            query += 1
            time += int(random.integers(1, 600_000))
            shown = [str(item) for item in random.permutation(40)[: int(random.integers(0, 9))]]
            words = ",".join(map(str, random.integers(1, 9999, int(random.integers(0, 4)))))
            is_test = "TRUE" if random.random() < 0.1 else "FALSE"
            fields = [query, session, user, time, 300, day, words, random.integers(0, 999), ",".join(shown), is_test]
            lines["train-queries.csv"].append(";".join(map(str, fields)))
            for item in [*shown, "999"]:  # 999 was not shown
                if random.random() < 0.2:
                    lines["train-clicks.csv"].append(f"{query};{time + 5000};{item}")
                if random.random() < 0.05:
                    lines["train-purchases.csv"].append(f"{session};{user};{time + 9000};{day};{query};{item}")
        lines["train-item-views.csv"].append(f"{session};{user};{random.integers(0, 40)};{time};{day}")
    return {name: "".join(f"{line}\n" for line in found) for name, found in lines.items()}


def diginetica_rows(texts: dict[str, str]) -> list[Row]:
    """What the csv module reads in such files, sessions by user and beginning; users as the log names them."""

    def table(name: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(texts[name]), delimiter=";"))

    def moment(line: dict[str, str], day: str) -> int:
        midnight = datetime.datetime.fromisoformat(day).replace(tzinfo=datetime.UTC)
        return int(midnight.timestamp()) + int(line["timeframe"]) // 1000

    shown: dict[str, list[tuple[int, str, str, int]]] = {}
    for line in table("train-queries.csv"):
        if line["is.test"] == "TRUE":
            continue
        second = moment(line, line["eventdate"])
        session = line["sessionId"]
        user = f"session {session}" if line["userId"] == "NA" else line["userId"]
        for item in filter(None, line["items"].split(",")):
            events = shown.setdefault(session, [])
            events.append((second, user, item, 0))
            for click in table("train-clicks.csv"):
                if (click["queryId"], click["itemId"]) == (line["queryId"], item):
                    events.append((moment(click, line["eventdate"]), user, item, 1))
    for line in table("train-purchases.csv"):
        second, events = moment(line, line["eventdate"]), shown.get(line["sessionId"], [])
        if any(item == line["itemId"] and time <= second for time, _, item, _ in events):
            events.append((second, events[0][1], line["itemId"], 2))
    found: list[Row] = []
    in_order = sorted(shown.values(), key=lambda events: (events[0][1], events[0][0]))
    for number, events in enumerate(in_order):
        merged: dict[str, Row] = {}
        for second, user, item, answer in sorted(events, key=lambda event: event[0]):
            known = merged.get(item, (user, number, second, item, 0))
            merged[item] = (*known[:4], max(known[4], answer))
        found += merged.values()
    return found


def write_files(folder: Path, texts: dict[str, str], *, packed: Iterable[str] = ()) -> None:
    """Writes files; those whose names are in `packed` get a .gz."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        if name in packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / name).write_text(text)
