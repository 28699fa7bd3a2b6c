import jax
import jax.numpy as jnp
import numpy as np
import pytest

from harness.errors import UserError
from harness.runs.checkpoint import Checkpoints


def state_of(seed):
    key = jax.random.key(seed)
    return {"weights": jax.random.normal(key, (3, 2)), "step": jnp.int32(seed), "key": key}


def leaves_equal(first, second):
    def numbers(leaf):
        return jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf

    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(np.array_equal(numbers(one), numbers(other)) for one, other in pairs)


def saved(folder, steps, max_to_keep=None):
    with Checkpoints(folder, max_to_keep) as checkpoints:
        for step in steps:
            checkpoints.save(step, state_of(step), {"seconds": step / 2})


def damage(folder, step):
    for file in (folder / str(step) / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:3])


def test_restores_state_keys_and_loop_numbers(tmp_path):
    saved(tmp_path / "c", [1, 2])
    with Checkpoints(tmp_path / "c", read_only=True) as checkpoints:
        step, state, loop = checkpoints.restore(state_of(0))
        assert (step, loop) == (2, {"seconds": 1.0})
        assert leaves_equal(state, state_of(2))
        assert leaves_equal(checkpoints.restore(state_of(0), 1)[1], state_of(1))


def test_every_save_counts_although_they_run_in_the_background(tmp_path):
    saved(tmp_path / "c", range(1, 9))
    assert Checkpoints(tmp_path / "c").steps == list(range(1, 9))


def test_keeps_the_newest(tmp_path):
    saved(tmp_path / "c", range(1, 6), max_to_keep=2)
    assert Checkpoints(tmp_path / "c").steps == [4, 5]


def test_damaged_newest_falls_back_to_the_one_before_and_says_so(tmp_path, capsys):
    saved(tmp_path / "c", [1, 2])
    damage(tmp_path / "c", 2)
    with Checkpoints(tmp_path / "c", read_only=True) as checkpoints:
        step, state, _ = checkpoints.restore(state_of(0))
    assert step == 1
    assert leaves_equal(state, state_of(1))
    assert "step 2" in capsys.readouterr().err


def test_all_damaged_is_one_error(tmp_path):
    saved(tmp_path / "c", [1, 2])
    damage(tmp_path / "c", 1)
    damage(tmp_path / "c", 2)
    with (
        Checkpoints(tmp_path / "c", read_only=True) as checkpoints,
        pytest.raises(UserError, match="no checkpoint can be read"),
    ):
        checkpoints.restore(state_of(0))


def test_unfinished_save_is_not_a_checkpoint(tmp_path):
    saved(tmp_path / "c", [1])
    (tmp_path / "c" / "2.orbax-checkpoint-tmp-1" / "state").mkdir(parents=True)
    with Checkpoints(tmp_path / "c", read_only=True) as checkpoints:
        assert checkpoints.restore(state_of(0))[0] == 1


@pytest.mark.parametrize(
    "like",
    [
        {"weights": jnp.zeros((3, 3)), "step": jnp.int32(0), "key": jax.random.key(0)},
        {"other": jnp.zeros((3, 2)), "step": jnp.int32(0), "key": jax.random.key(0)},
    ],
    ids=["shape", "name"],
)
def test_checkpoint_of_another_configuration_is_refused(tmp_path, like):
    saved(tmp_path / "c", [1])
    with (
        Checkpoints(tmp_path / "c", read_only=True) as checkpoints,
        pytest.raises(UserError, match="no checkpoint can be read"),
    ):
        checkpoints.restore(like)


def test_missing_checkpoints_are_user_errors(tmp_path):
    with (
        Checkpoints(tmp_path / "none", read_only=True) as checkpoints,
        pytest.raises(UserError, match="has no checkpoint"),
    ):
        checkpoints.restore(state_of(0))
    assert not (tmp_path / "none").exists()
    saved(tmp_path / "c", [4])
    with (
        Checkpoints(tmp_path / "c", read_only=True) as checkpoints,
        pytest.raises(UserError, match=r"no checkpoint of step 3\n.*Available: 4"),
    ):
        checkpoints.restore(state_of(0), 3)


def test_a_folder_name_that_orbax_cannot_finish_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"\['"):
        Checkpoints(tmp_path / "x[1]" / "checkpoints")
    assert list(tmp_path.iterdir()) == []
