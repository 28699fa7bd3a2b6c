from dataclasses import dataclass, field
from typing import Annotated

import pytest
from omegaconf import OmegaConf

from harness.errors import UserError
from harness.settings import Between, Count, Finite, NotNegative, OneOf, Positive, ProperShare, Seed, read_settings


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


@dataclass(frozen=True)
class Ranges:
    name: Annotated[str, OneOf("red", "green", "blue")]
    count: Count | None
    seed: Seed
    rate: Positive
    noise: NotNegative
    level: Finite
    share: ProperShare
    half_open: Annotated[float, Between(above=0, most=1)]
    widths: list[Count]
    colours: dict[str, Annotated[str, OneOf("red", "green")]]


RANGES = {
    "name": "red",
    "count": None,
    "seed": 2**32 - 1,
    "rate": 1e-9,
    "noise": 0,
    "level": -1e9,
    "share": 0.5,
    "half_open": 1,
    "widths": [1, 2],
    "colours": {"sky": "red"},
}


def test_values_at_the_ends_of_their_ranges_are_taken():
    assert read_settings(Ranges, RANGES).widths == [1, 2]
    assert read_settings(Ranges, RANGES | {"count": 1, "widths": [], "colours": {}}).count == 1


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("name", "pink", r"^set\.name is 'pink'\n  Give red, green or blue\.$"),
        ("count", 0, r"^set\.count is 0\n  Give at least 1\.$"),
        ("seed", -1, r"^set\.seed is -1\n  Give at least 0 and less than 4,294,967,296\.$"),
        ("seed", 2**32, r"^set\.seed is 4294967296\n"),
        ("rate", 0, r"^set\.rate is 0\.0\n  Give a positive number\.$"),
        ("rate", float("inf"), r"^set\.rate is inf\n"),
        ("noise", -1, r"^set\.noise is -1\.0\n  Give at least 0\.$"),
        ("level", float("nan"), r"^set\.level is nan\n  Give a finite number\.$"),
        ("share", 1, r"^set\.share is 1\.0\n  Give more than 0 and less than 1\.$"),
        ("half_open", 0, r"^set\.half_open is 0\.0\n  Give more than 0 and at most 1\.$"),
        ("widths", [4, 0], r"^set\.widths is 0\n"),
        ("colours", {"sky": "red", "sea": "blue"}, r"^set\.colours\.sea is 'blue'\n  Give red or green\.$"),
    ],
)
def test_values_out_of_range_are_named_with_their_range(key, value, message):
    with pytest.raises(UserError, match=message):
        read_settings(Ranges, RANGES | {key: value}, "set")
