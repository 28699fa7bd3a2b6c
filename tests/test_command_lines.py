"""A command that the tests' server forks does what a new interpreter does."""

import pytest
from command_lines import run_module


@pytest.mark.parametrize(
    ("module", "arguments", "code"),
    [
        ("tpgr_jax.train", ["--cfg", "job", "agent=dqn_r"], 0),
        ("hrlmg_jax.train", ["env.users=everyone", "hydra.run.dir=run"], 2),
        ("tpgr_jax.nothing", [], 1),
    ],
)
def test_a_forked_command_writes_and_ends_like_a_new_interpreter(
    module, arguments, code, command_environment, tmp_path
):
    forked, fresh = (
        run_module(tmp_path, command_environment, module, *arguments, fresh=fresh) for fresh in (False, True)
    )
    assert (forked.returncode, forked.stdout) == (fresh.returncode, fresh.stdout)
    assert forked.returncode == code
    if code != 1:  # what an interpreter says of a module that does not exist names itself
        assert forked.stderr == fresh.stderr
    assert list(tmp_path.iterdir()) == []
