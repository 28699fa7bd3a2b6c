"""Damaged run folders, data and disks through real command lines; `tests/damage.py` shows what each case says."""

import damage
import pytest

IN_CI = (
    "newest checkpoint: every file cut in half",
    "checkpoints of another network",
    "the ratings have changed since",
    "no room for a checkpoint",
)


@pytest.fixture(scope="module")
def origin(command_environment, tmp_path_factory):
    return damage.make_run(tmp_path_factory.mktemp("damage"), command_environment)


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[] if case.name in IN_CI else [pytest.mark.long]) for case in damage.CASES],
    ids=lambda case: case.name.replace(" ", "_"),
)
def test_a_damage_gives_one_message_or_is_overcome(case, origin, command_environment):
    assert damage.try_case(case, origin, command_environment).problems == []
