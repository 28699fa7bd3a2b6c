from dataclasses import dataclass, field

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


@dataclass(frozen=True)
class Car:
    wheels: int
    doors: int = 4
    kind: str = field(default="car", metadata={"otherwise": "Take a car."})


def test_keys_with_a_default_may_be_absent():
    assert read_settings(Car, {"wheels": 4}) == Car(4, 4, "car")
    assert read_settings(Car, {"wheels": 4, "doors": 2, "kind": "car"}) == Car(4, 2, "car")
    with pytest.raises(UserError, match="wheels has no value"):
        read_settings(Car, {"doors": 2})
    with pytest.raises(UserError, match="doors"):
        read_settings(Car, {"wheels": 4, "doors": "many"})


def test_another_kind_is_reported_before_its_other_keys():
    with pytest.raises(UserError, match=r"^garage\.kind: is boat where car belongs\n  Take a car\.$"):
        read_settings(Car, {"sails": 2, "kind": "boat"}, "garage")
