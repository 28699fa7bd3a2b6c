"""Words that name no setting or choice of the command."""

import pytest

from harness.commands.command_words import as_hydra, configuration_of
from harness.commands.mistaken_words import check_choices, check_keys
from harness.errors import UserError


def check(name, *words):
    configuration = configuration_of(name, words)
    translated = as_hydra(configuration, words)
    check_choices(configuration, translated)
    check_keys(configuration, translated)


@pytest.mark.parametrize(
    ("command", "word", "message"),
    [
        ("train", "train.step=10", r"^unknown key train\.step\n  Did you mean train\.steps\?"),
        ("train", "steps=10", r"^unknown key steps\n  Did you mean train\.steps\?"),
        ("train", "env.alfa=0", r"Did you mean env\.alpha\?"),
        ("train", "env.alpha.x=0", r"unknown key env\.alpha\.x\n"),
        ("train", "agent.policy.k=3", r"no setting of the agent chosen\n  It is one of agent=ddpg_knn"),
        ("train", "data.time_column=t", r"no setting of the data chosen\n  Here it is data\.timestamp_column\."),
        ("train_hrl_mg", "data.timestamp_column=t", r"Here it is data\.time_column\."),
        ("train_hrl_mg", "data.rating_column=r", r"Here it is data\.feedback_column\."),
        ("train_hrl_mg", "data.missing_ratings=[99]", r"Here it is data\.missing_values\."),
        ("train", "simulator.train.steps=3", r"It is a setting of python -m hrlmg_jax\.train\."),
        ("train_hrl_mg", "tree.depth=3", r"It is a setting of python -m tpgr_jax\.train\."),
        ("evaluate", "train.steps=3", r"It is a setting of python -m tpgr_jax\.train\."),
        ("train", "xyzzy=3", r"^unknown key xyzzy\n  --cfg job"),
        ("train", "agent=tpgrr", r"^there is no agent=tpgrr\n  Did you mean tpgr\? There are: .*dqn_r"),
        ("train", "data=movielens_1n", r"Did you mean movielens_1m"),
        ("train", "experiment=movilens", r"there is no experiment=movilens\n  Did you mean movielens\?"),
        (
            "train",
            "agent=hrl_mg",
            r"^agent=hrl_mg is no choice of .*tpgr_jax\.train\n  It is one of python -m hrlmg_jax\.train",
        ),
        ("train_hrl_mg", "agent=tpgr", r"It is one of python -m tpgr_jax\.train"),
        ("tune_hrl_mg", "agent=tpgr", r"It is one of python -m tpgr_jax\.tune"),
        ("train", "+experiment=figure8", r"It is one of python -m hrlmg_jax\.train"),
        ("train_hrl_mg", "+experiment=table2", r"It is one of python -m tpgr_jax\.train"),
        ("train_hrl_mg", "data=movielens_1m", r"It is one of python -m tpgr_jax\.train"),
        ("report", "data=jdata", r"It is one of python -m hrlmg_jax\.train"),
        ("train", "data=jdata", r"It is one of python -m hrlmg_jax\.train"),
        ("train_hrl_mg", "tree=pca", r"It is one of python -m tpgr_jax\.train"),
        (
            "fit_simulator",
            "agent=ddpg",
            r"has no choice of agent\n  python -m tpgr_jax\.train and python -m hrlmg_jax\.train has",
        ),
        ("train", "agent=tpgr,dqn_r", r"several values\n  Add -m for a run of each"),
        ("train", "train steps=1", "cannot be read as KEY=VALUE"),
    ],
)
def test_the_message_names_what_is_nearest_or_who_has_it(command, word, message):
    with pytest.raises(UserError, match=message) as raised:
        check(command, word)
    assert "append" not in str(raised.value)
    assert "struct" not in str(raised.value)


def test_right_words_pass(tmp_path):
    check(
        "train",
        "train.steps=3",
        "+experiment=movielens",
        "agent=dqn_r",
        "hydra.run.dir=x",
        "tree.depth=3",
        "+agent.module=x",
    )
    check("train", "-m", "agent=tpgr,dqn_r", "seed=range(3)", "env.alpha=0,0.1")
    check("train", "-m", "seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    check("data_statistics", "data=jdata", "data.max_unpacked_gib=3")
    check("train_hrl_mg", "retrieval=null", "retrieval=exact", "data=events_csv", "+data.feedback_of_event.buy=order")


def test_choices_of_a_users_own_folder_count(tmp_path):
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "mine.yaml").write_text("defaults:\n  - tpgr\n  - _self_\nname: mine\n")
    folder = f"--config-dir={tmp_path}"
    check("train", folder, "agent=mine", "agent.name=x")
    with pytest.raises(UserError, match="Did you mean mine"):
        check("train", folder, "agent=minee")
    with pytest.raises(UserError, match="tpgr_jax"):  # it starts from an agent of the other system
        check("train_hrl_mg", folder, "agent=mine")
