"""What earlier versions wrote is read under the names of now."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from harness.commands import old_names
from harness.errors import UserError
from harness.runs.checkpoint import Checkpoints
from harness.runs.metric_writer import read_rows
from harness.runs.run_folder import RunFolder
from harness.settings import read_settings


@flax.struct.dataclass
class OldRows:
    """As an earlier version had them: two fields have other names now."""

    item: jax.Array
    first: jax.Array
    second: jax.Array | None


@flax.struct.dataclass
class Rows:
    """As they are now; `truncated` comes in another place, `second` has kept its name."""

    truncated: jax.Array
    item: jax.Array
    second: jax.Array | None
    width: int = flax.struct.field(pytree_node=False, default=3)


@flax.struct.dataclass
class State:
    """Whose `rows` are inside of it."""

    rows: Any
    steps: tuple[jax.Array, dict[str, jax.Array]]


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(old_names, "_OLD_FIELDS", {"truncated": "first", "second": "never"})
    monkeypatch.setitem(old_names.SETTINGS, "agent.old", "agent.new")
    monkeypatch.setitem(old_names.METRICS, "old_metric", "new_metric")


STEPS = (jnp.int32(5), {"first": jnp.arange(3.0)})


@pytest.mark.parametrize("second", [None, jnp.arange(2)])
def test_a_checkpoint_with_old_names_restores_into_the_fields_of_now(tmp_path: Path, second: jax.Array | None) -> None:
    old = State(OldRows(item=jnp.arange(4), first=jnp.array([True, False]), second=second), STEPS)
    like = State(Rows(jnp.zeros(2, bool), jnp.zeros(4, jnp.int32), None if second is None else 0 * second), STEPS)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, old, {})
        checkpoints.wait()
        _, restored, _ = checkpoints.restore(like)
    expected = State(Rows(old.rows.first, old.rows.item, second), STEPS)
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, restored, expected)


def test_a_checkpoint_with_the_names_of_now_is_restored_as_it_is(tmp_path: Path) -> None:
    state = State(Rows(jnp.array([True]), jnp.arange(3), jnp.arange(2)), STEPS)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        checkpoints.wait()
        _, restored, _ = checkpoints.restore(jax.tree.map(jnp.zeros_like, state))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_an_old_configuration_and_old_rows_get_the_names_of_now(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.config.write_text(yaml.safe_dump({"agent": {"old": 3, "goals": {"old": 1}}, "old": 2}))
    assert folder.read_config() == {"agent": {"new": 3, "goals": {"old": 1}}, "old": 2}
    folder.metrics.write_text('{"step": 1, "old_metric": 0.5, "reward": 2.0}\n')
    assert read_rows(folder.metrics) == [{"step": 1, "new_metric": 0.5, "reward": 2.0}]


def test_who_writes_an_old_key_is_told_the_new_one() -> None:
    @dataclasses.dataclass(frozen=True)
    class Agent:
        new: int

    with pytest.raises(UserError, match=r"unknown key agent\.old\n.*agent\.old is called agent\.new now"):
        read_settings(Agent, {"old": 3}, "agent")
    assert old_names.advice("Could not override 'agent.old'.") == "agent.old is called agent.new now."
    assert old_names.advice("agent.newer") is None


def test_settings_that_an_earlier_version_lacks_get_the_value_it_ran_with():
    stored = {"env": {"alpha": 0.1, "reward_scale": "half_open"}}
    assert old_names.current_settings(stored)["env"] == {**stored["env"], "counts_by": "sign"}
    chosen = {"env": {"reward_scale": "half_open", "counts_by": "rating"}}
    assert old_names.current_settings(chosen) == chosen
    assert old_names.current_settings({"env": {"attention": 0.8}}) == {"env": {"attention": 0.8}}


@flax.struct.dataclass
class LaterRows:
    """With a field that came later, and may hold nothing."""

    item: jax.Array
    extra: jax.Array | None = None


@flax.struct.dataclass
class EarlierRows:
    """Without it."""

    item: jax.Array


def test_a_field_that_came_later_and_holds_nothing_may_be_absent(tmp_path: Path) -> None:
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(1, State(EarlierRows(jnp.arange(3)), STEPS), {})
        checkpoints.wait()
        _, found, _ = checkpoints.restore(State(LaterRows(jnp.zeros(3, jnp.int32)), STEPS))
        assert isinstance(found.rows, LaterRows)
        assert found.rows.extra is None
        np.testing.assert_array_equal(found.rows.item, np.arange(3))
        with pytest.raises(UserError, match="no checkpoint can be read"):
            checkpoints.restore(State(LaterRows(jnp.zeros(3, jnp.int32), jnp.zeros(2)), STEPS))
