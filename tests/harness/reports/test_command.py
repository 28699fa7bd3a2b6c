"""Command lines of report commands, with reports of the test's own."""

from dataclasses import dataclass

import pytest
from omegaconf import OmegaConf

from harness.errors import UserError
from harness.reports.command import Report, hydra_arguments, make_report


@dataclass(frozen=True)
class Settings:
    report: str
    level: int


def test_words_and_folders_become_overrides():
    reports = {"one": Report(Settings, print), "two": Report(Settings, print)}

    def translated(*arguments):
        return hydra_arguments("mine.report", reports, arguments)

    assert translated("two", "a", "b,c", "level=1") == ["report=two", 'runs=[a,"b,c"]', "level=1"]
    assert translated("one", "runs=a,b", "--cfg", "job") == ["report=one", "runs=[a,b]", "--cfg", "job"]
    assert translated("--help") == ["--help"]
    for wrong in ((), ("three",), ("report=one",)):
        with pytest.raises(UserError, match=r"Name one: python -m mine\.report one\|two \[KEY=VALUE"):
            translated(*wrong)


def test_a_report_gets_its_checked_settings():
    made = []
    reports = {"one": Report(Settings, made.append)}

    def make(**values):
        make_report("mine.report", reports, OmegaConf.create(values))

    make(report="one", level=3)
    assert made == [Settings("one", 3)]
    with pytest.raises(UserError, match="there is no report 'table2'"):
        make(report="table2", level=3)
    with pytest.raises(UserError, match="unknown key more"):
        make(report="one", level=3, more=1)
