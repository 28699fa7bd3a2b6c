"""Words of a command line, as people type them."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from harness.commands.command_words import as_hydra, configuration_of
from harness.errors import UserError


def hydra_words(words, name="train"):
    return as_hydra(configuration_of(name, words), words)


def read_by_hydra(word):
    return OverridesParser.create().parse_override(word).value()


@pytest.mark.parametrize(
    "name",
    [
        *("x.csv", "a b.csv", "a(1).csv", "a=b.csv", "a,b.csv", "é.csv", "数据.csv", "[x].csv", "{x}.csv"),
        *("a'b.csv", 'a"b.csv', "a;b.csv", "a#b.csv", "a&b.csv", "a!b.csv", "-1.csv", "1.csv", "007", "1e5"),
        *("True", "x y ", "C:\\x\\", "a%b@c:d"),
    ],
)
def test_names_of_files_are_taken_literally(name):
    if name[0] in "[":
        name = f"./{name}"  # a list at the beginning stays one
    for key in (
        "user",
        "history",
        "data.path",
        "data.root",
        "data.cache",
        "tree.path",
        "resume",
        "hydra.run.dir",
        "items.path",
    ):
        (word,) = hydra_words([f"{key}={name}"])
        assert word.startswith(f"{key}=")
        assert read_by_hydra(word) == name


def test_a_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert read_by_hydra(hydra_words(["data.path=~/x.csv"])[0]) == "/home/somebody/x.csv"
    assert hydra_words(["~/runs/a b"], "evaluate") == ['run="/home/somebody/runs/a b"']


def test_what_hydra_reads_stays_as_it_is():
    words = ["seed=1", "data.files=[a*,b]", "env.alpha=0.1", "data.path=null", "data.path=${data.root}/x", "~space.x"]
    words += ["data.path='a,b'", 'data.separator=";"', "data.column_names=[]"]
    assert hydra_words(words) == words


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("data.separator=;", ";"),
        ("data.user_column=User-ID (1)", "User-ID (1)"),
        ("data.user_column=ユーザ", "ユーザ"),
        ("data.column_names=[user;id,b(1),c]", ["user;id", "b(1)", "c"]),
        ("data.missing_values=[N/A,é]", ["N/A", "é"]),
    ],
)
def test_text_that_the_grammar_refuses_is_taken_literally(typed, value):
    (word,) = hydra_words([typed])
    assert read_by_hydra(word) == value


def test_a_sweep_over_files_and_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = hydra_words(["-m", "data.path=a.csv,b(1).csv", "data.user_column=é,b", "seed=0,1", "agent=choice(a,b)"])
    assert words == ["-m", 'data.path=a.csv,"b(1).csv"', 'data.user_column="é",b', "seed=0,1", "agent=choice(a,b)"]
    Path("a,b.csv").touch()
    assert hydra_words(["-m", "data.path=a,b.csv"]) == ["-m", 'data.path="a,b.csv"']


def test_signs_before_keys(tmp_path):
    assert hydra_words(["experiment=movielens"]) == ["+experiment=movielens"]
    assert hydra_words(["+experiment=movielens", "+train.steps=3"]) == ["+experiment=movielens", "++train.steps=3"]
    events = ["data.feedback_of_event.buy=order", "data.feedback_of_event={page.view: click}"]  # names of the user's
    assert hydra_words([*events, "+" + events[0]]) == [f"++{one}" for one in (*events, events[0])]
    own = ["--config-dir=" + str(tmp_path), "+best=one"]
    (tmp_path / "best").mkdir()
    assert hydra_words(own) == own  # a group of the user's
    assert hydra_words(["++train.steps=3", "~tree"]) == ["++train.steps=3", "~tree"]


@pytest.mark.parametrize(
    ("command", "word", "meant"),
    [
        ("data_statistics", "movielens_1m", ["data=movielens_1m"]),
        ("data_statistics", "jdata", ["data=jdata"]),
        ("train", "movielens_1m", ["data=movielens_1m"]),  # its table of items follows
        ("train", "movielens", ["+experiment=movielens"]),
        ("train", "dqn_r", ["agent=dqn_r"]),
        ("train_hrl_mg", "jdata", None),  # a log and an experiment
        ("evaluate", "outputs/2026-01-01/12-00-00", ["run=outputs/2026-01-01/12-00-00"]),
        ("evaluate_hrl_mg", "seed=1.csv", None),
    ],
)
def test_bare_words_are_what_they_obviously_are(command, word, meant):
    if meant is None and "=" not in word:
        with pytest.raises(UserError, match="data=jdata or experiment=jdata"):
            hydra_words([word], command)
    elif meant is not None:
        assert hydra_words([word], command) == meant


def test_other_bare_words_are_refused_with_the_form(tmp_path):
    with pytest.raises(UserError, match=r"'movielens_1n' is not a setting\n  Did you mean data=movielens_1m"):
        hydra_words(["movielens_1n"])
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match=f"resume={tmp_path} continues the run"):
        hydra_words([str(tmp_path)])
    with pytest.raises(UserError, match=r"data=ratings_file data\.path="):
        hydra_words([str(tmp_path / "config.yaml")])


def test_words_for_commands_that_read_a_run_folder():
    words = ["run=x", "data.path=~/a", "data.root=b", "devices.count=2"]
    assert [word.partition("=")[0] for word in hydra_words(words, "evaluate")] == [
        *("run", "data_path", "data_root", "devices_count")
    ]
    assert hydra_words(["data.path=b"], "evaluate_hrl_mg") == ["data_path=b"]


@pytest.mark.parametrize(
    ("words", "form"),
    [
        (["--steps", "4"], r"there is no option --steps\n  .*train\.steps=4\."),
        (["--train.steps=4"], r"--train\.steps\n  .*write train\.steps=4\."),
        (["--agent", "dqn_r"], r"write agent=dqn_r\."),
        (["--learning-rate", "0.1"], r"write agent\.learner\.learning_rate=0\.1\."),
        (["--xyzzy"], r"write KEY=VALUE\."),
    ],
)
def test_options_of_other_programs_get_the_right_form(words, form):
    with pytest.raises(UserError, match=form):
        hydra_words(words)


def test_options_of_hydra_pass():
    words = ["--cfg", "job", "-m", "--config-dir", "/tmp/x", "--config-dir=/tmp/y", "hydra.searchpath=[file:///tmp/z]"]
    assert hydra_words(words) == words
    assert configuration_of("train", words).folders[1:] == ("/tmp/x", "/tmp/y", "/tmp/z")


def test_braces_that_cannot_be_read_say_how():
    with pytest.raises(UserError, match=r'(?s)cannot be read.*data\.rating_of_event=\["a;b=VALUE",c=VALUE\]'):
        hydra_words(["data.rating_of_event={a;b: 1}"])


def test_a_command_without_words_has_its_own_configuration():
    assert configuration_of("train", []).name == "train"
    assert hydra_words([]) == []
