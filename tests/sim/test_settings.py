from dataclasses import dataclass

import pytest
from omegaconf import OmegaConf

from sim.errors import UserError
from sim.settings import read_settings


@dataclass(frozen=True)
class Inner:
    rate: float
    widths: list[int]

    def __post_init__(self):
        if self.rate < 0:
            raise UserError(f"inner.rate is {self.rate}")


@dataclass(frozen=True)
class Outer:
    inner: Inner
    label: str | None
    copies: int


GOOD = {"inner": {"rate": 1, "widths": [2]}, "label": None, "copies": 3}


@pytest.mark.parametrize("wrap", [dict, OmegaConf.create], ids=["mapping", "omegaconf"])
def test_builds_nested_settings(wrap):
    settings = read_settings(Outer, wrap(GOOD))
    assert settings == Outer(Inner(1.0, [2]), None, 3)
    assert isinstance(settings.inner.rate, float)


def test_interpolations_are_resolved():
    config = OmegaConf.create({**GOOD, "copies": "${inner.widths.0}"})
    assert read_settings(Outer, config).copies == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"copies": "three"}, "copies"),
        ({"copies": None}, "copies"),
        ({"copies": "???"}, "copies has no value"),
        ({"inner": {"rate": "fast", "widths": []}}, r"inner\.rate"),
        ({"inner": {"rate": -1, "widths": []}}, r"inner\.rate is -1"),
        ({"inner": {"rate": 1, "widths": ["x"]}}, r"inner\.widths"),
        ({"inner": {"rate": 1, "widths": 4}}, r"inner\.widths"),
        ({"inner": {"rate": 1}}, r"inner\.widths has no value"),
        ({"inner": {"rate": 1, "widths": [], "depth": 1}}, r"unknown key inner\.depth"),
        ({"inner": 5}, "inner"),
        ({"extra": 1}, "unknown key extra"),
        ({"label": "${nowhere}"}, "nowhere"),
    ],
)
def test_mistakes_name_their_key(changes, message):
    with pytest.raises(UserError, match=message):
        read_settings(Outer, OmegaConf.create({**GOOD, **changes}))
