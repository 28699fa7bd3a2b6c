"""Sessions that a small catalogue has room for."""

from typing import Any

from hrlmg_jax.problem import shortened_sessions


def values(length: int = 300, short: int = 50, long: int = 300) -> dict[str, Any]:
    return {"env": {"episode_length": length}, "evaluation": {"short": short, "long": long}}


def test_sessions_take_at_most_half_of_a_small_catalogue():
    assert shortened_sessions(values(), 600) == {}
    assert shortened_sessions(values(), 200) == {"env.episode_length": 100, "evaluation.long": 100}
    every = {"env.episode_length": 20, "evaluation.short": 20, "evaluation.long": 20}
    assert shortened_sessions(values(), 40) == every


def test_lengths_that_were_chosen_are_kept():
    assert shortened_sessions(values(length=250, long=301), 200) == {}
    assert shortened_sessions(values(length=250), 200) == {"evaluation.long": 100}
