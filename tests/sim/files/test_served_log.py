"""Logs of a server, read as events with probabilities and as ratings."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import UserError
from harness.runs.composition import composed_values
from harness.runs.run_folder import RunFolder
from harness.serving import decision_log
from harness.serving.decision_log import DecisionLog
from harness.settings import read_settings
from sim.datasets.events import load_log
from sim.datasets.log_settings import LogConfig
from sim.datasets.ratings import load_dataset
from sim.files.log_parts import log_parts
from sim.files.served_log import read_served
from sim.formats.sources import Source
from sim.tables.events import CLICK, ORDER, SKIP
from sim.tables.ratings import RatingData
from tpgr_jax.settings import RunConfig


def write(folder: Path, *answers: tuple[str | None, Any, Any, Any]) -> None:
    """Two lists for ann, one for bob and one for nobody; then answers: (decision, item, answer, user)."""
    log = DecisionLog(folder)
    for decision, user, items, chances in (
        ("a", "ann", [7, 3], [0.8, 0.1]),
        ("b", "bob", [7, 5], [1.0, 1.0]),
        ("c", "ann", [9, 5], [0.5, 0.5]),
        ("d", None, [9], [1.0]),
    ):
        log.decision(decision, "model", "tpgr", user, items, [0.0] * len(items), chances)
    for answer in answers:
        log.answer(*answer)
    log.close()


def load(folder: Path, *overrides: str) -> Any:
    paths = [f"data.path={folder}/*.jsonl", f"data.cache={folder / 'tables'}", "data.split=none"]
    values = composed_values("data_statistics", ["data=served_log", *paths, *overrides])["data"]
    return load_log(read_settings(LogConfig, values, "data"))


def test_lists_are_impressions_with_their_probabilities(tmp_path):
    write(
        tmp_path, ("a", 3, "order", "ann"), ("b", 7, "click", None), ("c", 5, "skip", None), (None, 7, "click", "ann")
    )
    log = load(tmp_path)
    rows = {
        (str(log.user_ids[user]), int(log.item_ids[item])): (int(feedback), round(float(chance), 6))
        for user, item, feedback, chance in zip(log.user, log.item, log.feedback, log.shown_probability, strict=True)
    }
    assert rows == {
        ("ann", 7): (SKIP, 0.8),
        ("ann", 3): (ORDER, 0.1),
        ("bob", 7): (CLICK, 1.0),
        ("bob", 5): (SKIP, 1.0),
        ("ann", 9): (SKIP, 0.5),
        ("ann", 5): (SKIP, 0.5),
    }
    assert not log.synthetic_skips
    notes = " ".join(log.notes)
    assert "1 rows are left out: of nobody" in notes
    assert "1 rows are left out: answers to what was not shown" in notes


def test_who_answered_may_be_told_by_the_answer(tmp_path):
    write(tmp_path, ("d", 9, "click", "eve"))
    log = load(tmp_path)
    own = log.user_ids[log.user] == "eve"
    assert log.feedback[own].tolist() == [CLICK]


def test_ratings_count_as_the_settings_say(tmp_path):
    write(tmp_path, ("a", 7, 5.0, None), ("b", 7, 4, None), ("b", 5, 2.0, None), ("a", 3, None, None))
    with pytest.raises(UserError, match=r"(?s)the answer 5 is a rating.*least_rating"):
        load(tmp_path)
    log = load(tmp_path, "+data.least_rating={click: 4, order: 5}")
    assert sorted(log.feedback.tolist()) == [SKIP] * 4 + [CLICK, ORDER]


def test_answers_are_ratings_to_learn_from(tmp_path):
    write(
        tmp_path,
        ("a", 7, 2.0, None),
        ("a", 7, 5.0, "ann"),
        (None, 4, 3.0, "bob"),
        ("a", 3, None, None),
        ("b", 5, 1.0, None),
    )
    values = composed_values("train", ["data=served_ratings", f"data.path={tmp_path}/*.jsonl", "data.rating_max=5"])
    data = load_dataset(read_settings(RunConfig, values).data)
    ratings = {
        (str(data.user_ids[user]), int(data.item_ids[item])): float(data.rating_values[code])
        for user in range(data.num_users)
        for item, code in zip(
            *(part[data.indptr[user] : data.indptr[user + 1]] for part in (data.items, data.codes)), strict=True
        )
    }
    assert ratings == {("ann", 7): 5.0, ("bob", 4): 3.0, ("bob", 5): 1.0}
    assert (data.rating_min, data.rating_max) == (1.0, 5.0)
    assert data.timestamps is not None
    assert not data.synthetic


def test_ratings_are_added_to_those_of_a_run(tmp_path):
    """Ids of a table are numbers, a client wrote them as text; the later rating counts, whatever the table's times."""
    (tmp_path / "table.csv").write_text("user,item,rating,time\n1,7,2,3000000000\n1,8,4,5\n2,7,3,5\n")
    columns = [f"data.{name}_column={name}" for name in ("user", "item", "rating")]
    run = composed_values("train", ["data=ratings_file", f"data.path={tmp_path}/table.csv", *columns])
    (tmp_path / "run").mkdir()
    RunFolder(tmp_path / "run").write_config(run)
    write(tmp_path, (None, 7, 5.0, "1"), (None, 9, 1.0, "3"))
    words = ["data=served_ratings", f"data.path={tmp_path}/*.jsonl", f"data.added_to={tmp_path}/run"]

    def load_ratings() -> RatingData:
        return load_dataset(read_settings(RunConfig, composed_values("train", words)).data)

    data = load_ratings()
    users = np.repeat(data.user_ids, np.diff(data.indptr)).tolist()
    rated = zip(users, data.item_ids[data.items].tolist(), np.asarray(data.rating_values)[data.codes], strict=True)
    assert sorted(rated) == [(1, 7, 5.0), (1, 8, 4.0), (2, 7, 3.0), (3, 9, 1.0)]
    # Other ratings of the run make another table.
    checksum = data.checksum
    (tmp_path / "table.csv").write_text("user,item,rating\n1,7,2\n1,8,4\n2,7,4\n")
    assert load_ratings().checksum != checksum
    words[-1] = "data.added_to=nowhere"
    with pytest.raises(UserError, match="nowhere"):
        load_ratings()


def test_no_ratings_and_no_path(tmp_path):
    write(tmp_path, ("a", 7, "click", None))
    for path, match in ((f"{tmp_path}/*.jsonl", "holds no ratings"), ("null", "data.path: is not set")):
        values = composed_values("train", ["data=served_ratings", f"data.path={path}"])
        with pytest.raises(UserError, match=match):
            load_dataset(read_settings(RunConfig, values).data)


def test_a_line_that_was_cut_at_the_end_is_left_out_and_others_are_named(tmp_path):
    write(tmp_path, ("a", 7, "click", None))
    file = next(tmp_path.glob("*.jsonl"))
    whole = file.read_text()
    file.write_text(whole[:-20])
    assert (load(tmp_path).feedback == SKIP).all()
    for damage in (
        whole.replace('"item":7', '"item":[7]'),
        whole.replace('"items":[7,3]', '"items":[7,{}]'),
        whole.replace("0.8", "null"),
        "x" + whole,
        whole.replace('"probabilities":[0.8,0.1]', '"probabilities":[0.8]'),
        whole + "{}\n",
    ):
        file.write_text(damage)
        with pytest.raises(UserError, match=r"line \d+: is damaged"):
            load(tmp_path)
    file.write_text(json.dumps({"decision": "a", "user": None, "time": 1.0, "items": [1], "probabilities": [1.0]}))
    with pytest.raises(UserError, match="named user"):
        load(tmp_path)


def test_numbers_stay_numbers(tmp_path):
    log = DecisionLog(tmp_path)
    log.decision("a", "model", "tpgr", 5, [1, 2], [0, 0], [1.0, 1.0])
    log.decision("b", "model", "tpgr", 6, [2], [0], [1.0])
    log.decision("c", "model", "tpgr", 6, [3], [0], [4.0])
    log.decision("d", "model", "tpgr", 6, [4], [0], [1.0])
    log.close()
    loaded = load(tmp_path)
    assert loaded.user_ids.dtype.kind == loaded.item_ids.dtype.kind == "i"
    np.testing.assert_array_equal(loaded.user_ids, [5, 6])


def test_numbers_of_more_than_64_bits_are_text(tmp_path):
    log = DecisionLog(tmp_path)
    for user in (2**70, 5):
        log.decision(str(user), "model", "tpgr", user, [1], [0], [1.0])
        log.answer(str(user), 1, 4.0, None)
    log.close()
    loaded = load(tmp_path, "+data.least_rating={click: 4}")
    assert loaded.user_ids.tolist() == [str(2**70), "5"]
    values = composed_values("train", ["data=served_ratings", f"data.path={tmp_path}/*.jsonl", "data.rating_max=5"])
    assert load_dataset(read_settings(RunConfig, values).data).user_ids.tolist() == [str(2**70), "5"]


def test_a_late_answer_belongs_to_the_session_in_which_its_item_was_shown(tmp_path, monkeypatch):
    log = DecisionLog(tmp_path)
    hour = 3600.0
    clock = [0.0]
    monkeypatch.setattr(decision_log.time, "time", lambda: clock[0])

    def at(seconds: float, decision: str, answer_to: int | None = None) -> None:
        clock[0] = float(seconds)
        if answer_to is None:
            log.decision(decision, "model", "tpgr", "ann", [7, 3], [0, 0], [0.8, 0.2])
        else:
            log.answer(decision, answer_to, "order", None)

    # Places in ann's order of time:
    at(0, "a")  # 0: 7, 1: 3
    at(60, "a", 3)  # 2
    at(9 * hour, "b")  # 3: 7, 4: 3
    at(9 * hour + 10, "a", 7)  # 5: nine hours late, in another session
    at(20 * hour, "b", 7)  # 6: in no session
    log.close()
    loaded = load(tmp_path)
    rows = zip(
        loaded.session,
        loaded.item_ids[loaded.item],
        loaded.time,
        loaded.feedback,
        loaded.shown_at,
        loaded.clicked_at,
        loaded.ordered_at,
        strict=True,
    )
    assert sorted(tuple(map(int, row)) for row in rows) == [
        (0, 3, 0, ORDER, 1, 2, 2),
        (0, 7, 0, ORDER, 0, 5, 5),
        (1, 3, 9 * 3600, SKIP, 4, -1, -1),
        (1, 7, 9 * 3600, ORDER, 3, 6, 6),
    ]
    np.testing.assert_allclose(loaded.shown_probability[loaded.item_ids[loaded.item] == 7], 0.8)


def test_clocks_of_two_servers_may_differ(tmp_path):
    lines = [
        {"answer_to": "a", "time": 5.0, "item": 7, "answer": "click", "user": None},
        {"decision": "a", "time": 9.0, "user": "ann", "items": [7], "probabilities": [1.0]},
    ]
    (tmp_path / "served-1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    loaded = load(tmp_path)
    assert (loaded.time.tolist(), loaded.shown_at.tolist(), loaded.clicked_at.tolist()) == ([9], [0], [1])


def test_reading_a_log_takes_about_its_size_in_memory(tmp_path):
    path = tmp_path / "served-1.jsonl"
    line = {"time": 1.5, "model": "0123456789abcdef", "policy": "tpgr", "user": 5, "scores": [0.123456789] * 10}
    line |= {"items": list(range(1000, 1010)), "probabilities": [1.0] * 10}
    path.write_text("".join(json.dumps({"decision": f"{number:016x}"} | line) + "\n" for number in range(3_000)))
    parts = log_parts([Source(path)])
    tracemalloc.start()
    log = read_served(parts)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(log.shown) == 3_000
    assert most < 2 * path.stat().st_size  # 7 times, where lines or items are kept one by one
