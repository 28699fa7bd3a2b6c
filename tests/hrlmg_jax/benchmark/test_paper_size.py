"""What the benchmark says of a run at the paper's size."""

import pytest

from hrlmg_jax.benchmark.paper_size import paper_size_lines


def test_lines_of_a_run():
    record = {
        "data": {"events": 8_600_000, "items": 553_156, "users": 1000},
        "seconds": {"data": 100.0, "training": 50.0, "total": 160.0},
    }
    online = {
        "policies": {
            "hrl_mg_memory": {"long_reward": 30.0, "short_reward": 4.0},
            "popularity": {"long_reward": 20.0, "short_reward": 5.0},
        },
        "protocol": {"long": 300, "short": 50},
    }
    better = {**online, "policies": {**online["policies"], "popularity": {"long_reward": 60.0, "short_reward": 2.0}}}
    lines = {line.name: line for line in paper_size_lines(record, {"learned": online, "true": better}, 10800.0, 2.0)}
    rewards = [
        f"hrl_mg_memory / popularity, {length} sessions, {users} users"
        for users in ("learned", "true")
        for length in ("long", "short")
    ]
    assert list(lines) == ["the whole command", "largest resident size", "data", "training", *rewards]
    assert lines["the whole command"].verdict == "short"
    assert lines["the whole command"].value == pytest.approx(180)
    assert lines["largest resident size"].verdict == "pass"
    assert [lines[name].value for name in rewards] == pytest.approx([1.5, 0.8, 0.5, 2.0])
    assert [lines[name].verdict for name in rewards] == ["pass", "short", "short", "pass"]
