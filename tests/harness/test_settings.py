import re
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from omegaconf import OmegaConf
from pydantic import Field

from harness.errors import UserError
from harness.settings import (
    PAIRS,
    ByName,
    Count,
    Finite,
    NotNegative,
    Otherwise,
    Positive,
    ProperShare,
    Seed,
    SettingError,
    read_settings,
)


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
    kind: Annotated[Literal["car"], Otherwise("Take a car.")] = "car"


def test_keys_with_a_default_may_be_absent():
    assert read_settings(Car, {"wheels": 4}) == Car(4, 4, "car")
    assert read_settings(Car, {"wheels": 4, "doors": 2, "kind": "car"}) == Car(4, 2, "car")
    with pytest.raises(UserError, match="wheels has no value"):
        read_settings(Car, {"doors": 2})
    with pytest.raises(UserError, match="doors"):
        read_settings(Car, {"wheels": 4, "doors": "many"})


def test_another_kind_is_reported_before_its_other_keys():
    with pytest.raises(UserError, match=r"^garage\.kind is 'boat'\n  Take a car\.$"):
        read_settings(Car, {"sails": 2, "kind": "boat"}, "garage")


@dataclass(frozen=True)
class Ranges:
    name: Literal["red", "green", "blue"]
    count: Count | None
    seed: Seed
    rate: Positive
    noise: NotNegative
    level: Finite
    share: ProperShare
    half_open: Annotated[Finite, Field(gt=0, le=1)]
    widths: list[Count]
    colours: dict[str, Literal["red", "green"]]


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
        ("name", "pink", r"^set\.name is 'pink'\n  It should be 'red', 'green' or 'blue'\.$"),
        ("count", 0, r"^set\.count is 0\n  It should be greater than or equal to 1\.$"),
        ("seed", -1, r"^set\.seed is -1\n  It should be greater than or equal to 0\.$"),
        ("seed", 2**32, r"^set\.seed is 4294967296\n  It should be less than 4294967296\.$"),
        ("rate", 0, r"^set\.rate is 0\n  It should be greater than 0\.$"),
        ("rate", float("inf"), r"^set\.rate is inf\n  It should be a finite number\.$"),
        ("noise", -1, r"^set\.noise is -1\n  It should be greater than or equal to 0\.$"),
        ("level", float("nan"), r"^set\.level is nan\n  It should be a finite number\.$"),
        ("share", 1, r"^set\.share is 1\n  It should be less than 1\.$"),
        ("half_open", 0, r"^set\.half_open is 0\n  It should be greater than 0\.$"),
        ("widths", [4, 0], r"^set\.widths\.1 is 0\n  It should be greater than or equal to 1\.$"),
        ("colours", {"sky": "red", "sea": "blue"}, r"^set\.colours\.sea is 'blue'\n  It should be 'red' or 'green'\.$"),
    ],
)
def test_values_out_of_range_are_named_with_their_range(key, value, message):
    with pytest.raises(UserError, match=message):
        read_settings(Ranges, RANGES | {key: value}, "set")


def test_numbers_may_be_written_as_text_and_text_as_numbers():
    read = read_settings(Ranges, RANGES | {"count": "3", "rate": "1e-3", "widths": ["4"]})
    assert (read.count, read.rate, read.widths) == (3, 0.001, [4])
    assert read_settings(Outer, GOOD | {"label": 2024}).label == "2024"


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("count", 3.0, "integer"),
        ("count", True, "integer"),
        ("rate", True, "number"),
        ("name", None, "'red', 'green' or 'blue'"),
        ("rate", None, "number"),
        ("widths", 4, "list like"),
        ("colours", [], "pairs like"),
    ],
)
def test_other_types_are_refused_and_not_converted(key, value, allowed):
    with pytest.raises(UserError, match=rf"^set\.{key} is {re.escape(repr(value))}\n  .*{allowed}.*\.$"):
        read_settings(Ranges, RANGES | {key: value}, "set")


def test_keys_of_an_interpolated_node_are_named_once():
    composed = OmegaConf.create({"garage": {"wheels": "${nowhere}"}})
    with pytest.raises(UserError, match=r"^garage\.wheels: .*nowhere"):
        read_settings(Car, composed.garage, "garage")
    with pytest.raises(UserError, match=r"^garage\.wheels: .*nowhere"):
        read_settings(Car, {"wheels": "${nowhere}"}, "garage")


@dataclass(frozen=True)
class Boat:
    name: str
    sails: Count


@dataclass(frozen=True)
class Plane:
    name: str
    wings: Count


VEHICLES: dict[str, type] = {"boat": Boat}


@dataclass(frozen=True)
class Trip:
    closed: Annotated[Boat | Plane, ByName(VEHICLES)]
    open: Annotated[Boat | Plane, ByName(VEHICLES, otherwise=Plane)] = Plane("any", 2)


def test_a_group_is_the_dataclass_of_its_name():
    boat = {"name": "boat", "sails": 1}
    read = read_settings(Trip, {"closed": boat, "open": {"name": "kite", "wings": 1}})
    assert read == Trip(Boat("boat", 1), Plane("kite", 1))
    assert read_settings(Trip, {"closed": boat}).open == Plane("any", 2)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"name": "boat", "sails": 0}, r"^trip\.closed\.sails is 0\n"),
        ({"name": "boat"}, r"^trip\.closed\.sails has no value\n"),
        ({"name": "boat", "sails": 1, "wings": 2}, r"^unknown key trip\.closed\.wings\n"),
        ({"name": "kite"}, r"^trip\.closed\.name is 'kite'\n  It should be 'boat'\.$"),
        ({}, r"^trip\.closed\.name is None\n  It should be 'boat'\.$"),
        (None, r"^trip\.closed is None, not a group of keys\n"),
        (5, r"^trip\.closed is 5, not a group of keys\n"),
    ],
)
def test_mistakes_in_a_group_chosen_by_name_are_named(group, message):
    with pytest.raises(UserError, match=message):
        read_settings(Trip, {"closed": group}, "trip")


def test_names_may_be_added_after_settings_have_been_read(monkeypatch):
    plane = {"closed": {"name": "plane", "wings": 2}}
    with pytest.raises(UserError, match="'plane'"):
        read_settings(Trip, plane)
    monkeypatch.setitem(VEHICLES, "plane", Plane)
    assert read_settings(Trip, plane).closed == Plane("plane", 2)


@dataclass(frozen=True)
class Named:
    weights: Annotated[dict[str, Finite], PAIRS]


@pytest.mark.parametrize(
    ("written", "weights"),
    [
        ({"view": 1, "buy": 5}, {"view": 1.0, "buy": 5.0}),
        (["page.view=1", "Add to cart=2", "a=b=3"], {"page.view": 1.0, "Add to cart": 2.0, "a=b": 3.0}),
        (None, {}),
        ([], {}),
    ],
)
def test_pairs_are_a_mapping_or_a_list_of_texts(written, weights):
    assert read_settings(Named, {"weights": written}).weights == weights


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (["view"], r'weights is \[\'view\'\]\n  .*\["page\.view=click"'),
        ([1], "weights is"),
        (["view=often"], r"weights\.view is 'often'"),
        ({True: 1}, r"write Yes, No, NaN, \.\.\. in quotes"),
        (5, "weights is 5"),
    ],
)
def test_wrong_pairs_are_named(written, message):
    with pytest.raises(UserError, match=message):
        read_settings(Named, {"weights": written})


@dataclass(frozen=True)
class Clock:
    minutes: int
    hours: int

    def __post_init__(self):
        if self.minutes > self.hours:
            raise SettingError(f".minutes is {self.minutes}, more than .hours; see a.b and 0.5", do="Set .hours.")


@dataclass(frozen=True)
class Station:
    clock: Clock
    tower: Annotated[Clock, ByName({}, otherwise=Clock)]


@pytest.mark.parametrize(("where", "before"), [("", ""), ("city.station", "city.station.")])
@pytest.mark.parametrize("key", ["clock", "tower"])
def test_settings_know_their_place(where, before, key):
    good, wrong = {"minutes": 1, "hours": 2}, {"minutes": 3, "hours": 2}
    with pytest.raises(UserError) as raised:
        read_settings(Station, {"clock": good, "tower": good, key: wrong}, where)
    place = f"{before}{key}"
    assert str(raised.value) == (
        f"{place}.minutes is 3, more than {place}.hours; see a.b and 0.5\n  Set {place}.hours."
    )


def test_settings_at_the_top_have_no_place():
    with pytest.raises(UserError, match=r"^minutes is 3, more than hours; .*\n  Set hours\.$"):
        read_settings(Clock, {"minutes": 3, "hours": 2})


def test_unknown_keys_come_with_those_nearest():
    with pytest.raises(UserError, match=r"^unknown key a\.cloc\n  Did you mean a\.clock\?"):
        read_settings(Station, {"clock": {"minutes": 1, "hours": 2}, "cloc": {}}, "a")
    with pytest.raises(UserError, match=r"^unknown key minutes\n  Did you mean clock\.minutes\?"):
        read_settings(Station, {"clock": {"minutes": 1, "hours": 2}, "minutes": 3})
