"""Nothing learned sees test users: with all their ratings replaced, everything learned is the same, bit for bit.

A new agent or preset is guarded as soon as its yaml is in `conf/agent`, `conf/tree` or `conf/ablation`.
"""

import dataclasses
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import tpgr_jax.evaluation
import tpgr_jax.problem
import tpgr_jax.settings
from hand_made import hand_made_ratings
from harness.runs.composition import composed_values
from harness.runs.run_folder import RunFolder
from harness.settings import read_settings
from sim.evaluation.protocol import Evaluation
from sim.tables.ratings import RatingData
from tpgr_jax.baselines import item_ddpg
from tpgr_jax.evaluation import evaluate_method
from tpgr_jax.methods import Method
from tpgr_jax.networks import encoder
from tpgr_jax.problem import Problem, make_problem
from tpgr_jax.registry import AGENTS
from tpgr_jax.settings import RunConfig, make_method
from tpgr_jax.tree import item_vectors
from tpgr_jax.tree.item_vectors import TREE_FILE, build_item_tree

USERS, ITEMS, STEPS = 40, 36, 2
CONF = Path(tpgr_jax.__file__).parents[1] / "conf"
SMALL = ["data=synthetic", "env.episode_length=4", "env.rating_layout=dense", "train.episodes_per_step=16"]
TREES = sorted(path.stem for path in (CONF / "tree").glob("*.yaml") if path.stem != "base")
SMALL_VECTORS = ["tree.vector_size=4", "tree.vector_epochs=2"]
ENCODER = ["agent.policy.embedding_size=4", "agent.policy.embedding_epochs=2", "agent.policy.state_hidden=4"]
REPLAY = ["agent.learner.updates_per_step=1", "agent.learner.batch_episodes=4", "agent.learner.replay_episodes=16"]
DDPG = [*ENCODER, *REPLAY, "agent.policy.hidden=[4]", "agent.policy.vector_size=4", "agent.policy.vector_epochs=2"]
FEATURES = ["agent.policy.feature_size=4", "agent.policy.feature_epochs=2"]
SMALL_AGENTS = {
    "tpgr": [*ENCODER, "agent.policy.hidden=[4]", "agent.learner.episodes_per_user=2"],
    "tpgr_plus": ["agent.policy.hidden=[4]", "agent.learner.fit_episodes=2"],
    "dqn_r": [*ENCODER, *REPLAY],
    "ddpg_knn": DDPG,
    "ddpg_r": DDPG,
    "greedy_svd": ["agent.policy.factors=3", "agent.policy.epochs=2"],
    "linear_ucb": FEATURES,
    "hlinear_ucb": [*FEATURES, "agent.policy.rounds=1", "agent.policy.users_per_round=8"],
}


def agent_name(preset: str) -> str:
    """The agent that a file of conf/agent is about, which it may have from the file that it starts from."""
    text = (CONF / "agent" / f"{preset}.yaml").read_text()
    name = re.search(r"^name: (\w+)", text, re.MULTILINE)
    return name[1] if name else agent_name(re.search(r"^  - (?!_self_)(\w+)", text, re.MULTILINE)[1])


OURS = {*AGENTS} - {"python"}  # what a user's function knows is the user's affair
AGENT_PRESETS = [preset for path in sorted((CONF / "agent").glob("*.yaml")) if agent_name(preset := path.stem) in OURS]
ABLATIONS = sorted(path.stem for path in (CONF / "ablation").glob("*.yaml"))
PRESETS = {
    **{preset: [f"agent={preset}", *SMALL_AGENTS.get(agent_name(preset), [])] for preset in AGENT_PRESETS},
    **{
        f"tpgr_plus, {name}": ["agent=tpgr_plus", *SMALL_AGENTS["tpgr_plus"], f"+ablation={name}"] for name in ABLATIONS
    },
    "tpgr, pre-trained encoder": ["agent=tpgr", *SMALL_AGENTS["tpgr"], "agent.policy.encoder_pretrain_steps=2"],
    "ddpg_r, mf": ["agent=ddpg_r", *DDPG, "agent.policy.vectors=mf"],
    "linear_ucb, mf": ["agent=linear_ucb", *FEATURES, "agent.policy.features=mf"],
    "greedy_svd, reward": ["agent=greedy_svd", *SMALL_AGENTS["greedy_svd"], "agent.policy.target=reward"],
    "popularity, reward": ["agent=popularity", "agent.policy.by=reward"],
}


OF_THE_SAME = {
    *("ddpg_knn_1", "ddpg_knn_all"),
    *(f"tpgr_plus, {name}" for name in ("beam_paths", "few_factors", "greedy_descent", "no_streak")),
}
"""These differ from ddpg_knn or tpgr_plus in a size or in how they search, not in what they read; all compile long."""


@functools.cache
def config_of(*overrides: str) -> RunConfig:
    return read_settings(RunConfig, composed_values("train", [*SMALL, *overrides]))


def tables(unseen: np.ndarray) -> tuple[RatingData, RatingData]:
    """Ratings, and the same with all those of some users replaced: other items and values, no fewer and no more.

    Each table has ratings that nobody else gives, of some of these users, and no scale is given.
    """
    generator = np.random.default_rng(0)
    table = generator.integers(1, 6, (USERS, ITEMS)) * (generator.random((USERS, ITEMS)) < 0.6)
    seen = np.setdiff1d(np.arange(USERS), unseen)
    table[seen[:2]] = np.arange(ITEMS) % 5 + 1  # all items and values occur among the others
    table[unseen, 0] = 6
    other = table.copy()
    for user in unseen:
        number = np.count_nonzero(table[user])
        other[user] = 0
        other[user, generator.permutation(ITEMS)[:number]] = np.append(generator.integers(1, 6, number - 1), 9)
    assert not np.array_equal(other[unseen], table[unseen])
    found = []
    for name, one in (("as it is", table), ("perturbed", other)):
        users, items = np.nonzero(one)
        data = hand_made_ratings(users, items, one[users, items], low=None, high=None)
        # Nothing of one table is taken from a cache for the other; a generator would tell the scale.
        found.append(dataclasses.replace(data, checksum=name, synthetic=False))
    return found[0], found[1]


def problem_of(data: RatingData, *overrides: str) -> Problem:
    config = config_of(*overrides)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tpgr_jax.problem, "load_dataset", lambda settings: data)
        return make_problem(config.data, config.env)


def unseen_users(*overrides: str) -> np.ndarray:
    """Who tests: it depends on the number of users, the seed and the settings alone."""
    data = config_of(*overrides).data
    return data.split(USERS)[1]


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    os_cache = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TPGR_JAX_CACHE", str(os_cache))
        yield [problem_of(data) for data in tables(unseen_users())]


_steps: list[tuple[Any, Any]] = []


def train(method: Method) -> tuple[Any, Any]:
    """The state after a few steps, and their metrics. Equal learners share a program: no table is built into it."""
    agent = method.agent
    learner = agent.train_step.__self__
    known = [step for other, step in _steps if type(other) is type(learner) and other == learner]
    if not known:
        known = [jax.jit(agent.train_step)]
        _steps.append((learner, known[0]))
    state = agent.pretrain(jax.jit(agent.init)(jax.random.key(0), agent.world))
    for _ in range(STEPS):
        state, metrics = known[0](state, agent.world)
    return state, metrics


def learned(preset: str, problem: Problem, folder: Path) -> dict[str, np.ndarray]:
    """Everything that a preset learns, by its place: tree, state, metrics, and what its policy acts on."""
    method = make_method(config_of(*PRESETS[preset]), problem, RunFolder(folder))
    state, metrics = (None, None) if method.agent is None else train(method)
    world = None if method.agent is None else method.agent.world
    found = leaves((state, metrics, method.policy_params(state), world))
    tree = folder / TREE_FILE
    return found | ({f"tree {key}": one for key, one in np.load(tree).items()} if tree.exists() else {})


def leaves(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a pytree by place, without the table from which the simulator answers."""
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        is_key = isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        if ".ratings" not in jax.tree_util.keystr(path):
            found[jax.tree_util.keystr(path)] = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
    return found


def assert_equal(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert first.keys() == second.keys()
    assert first
    for place, one in first.items():
        np.testing.assert_array_equal(one, second[place], err_msg=place)


@pytest.mark.parametrize(
    "preset", [pytest.param(preset, marks=pytest.mark.long if preset in OF_THE_SAME else ()) for preset in PRESETS]
)
def test_agents_learn_nothing_of_test_users(preset, problems, tmp_path):
    assert_equal(*(learned(preset, problem, tmp_path / str(n)) for n, problem in enumerate(problems)))


def trees(preset: str, problems: list[Problem]) -> list[dict[str, np.ndarray]]:
    config = config_of(f"tree={preset}", *SMALL_VECTORS).tree
    return [vars(build_item_tree(config, problem.data, problem.train_users)) for problem in problems]


@pytest.mark.parametrize("preset", TREES)
def test_trees_know_nothing_of_test_users(preset, problems):
    assert_equal(*trees(preset, problems))


def baselines(problem: Problem) -> dict[str, Evaluation]:
    """The results of the fixed lists that every result is compared with."""
    method = make_method(config_of("agent=popularity", "agent.policy.by=count"), problem, RunFolder(Path("unused")))
    played = evaluate_method(problem, method, None, 0)
    return {name: played[name] for name in ("popularity", "best_fixed_list")}


def lists(problem: Problem) -> dict[str, np.ndarray]:
    """What those lists recommend."""
    return {name: one.items for name, one in baselines(problem).items()}


def test_fixed_lists_know_nothing_of_test_users(problems):
    assert_equal(*map(lists, problems))


def test_validation_neither_learns_from_its_users_nor_looks_at_test_users(tmp_path):
    tuning, training = "data.validation=true", config_of().data.split(USERS)[0]
    first = problem_of(tables(unseen_users())[0], tuning)
    validated = first.test_users
    np.testing.assert_array_equal(np.sort(np.concatenate([validated, first.train_users])), training)
    for unseen, differs in ((unseen_users(), False), (validated, True)):
        both = [problem_of(data, tuning) for data in tables(unseen)]
        assert_equal(*of_preset("gaussian_posterior")(both, tmp_path))
        rewards = [baselines(one)["best_fixed_list"].metrics.reward for one in both]
        assert np.array_equal(*rewards) is not differs


def with_everybody(place: Any, name: str, users: int) -> Callable[[pytest.MonkeyPatch], None]:
    """A mistake: a function gets all users where it should get the training users, its argument number `users`."""

    def make(patch: pytest.MonkeyPatch) -> None:
        right = getattr(place, name)

        def wrong(*arguments: Any, **named: Any) -> Any:
            return right(*arguments[:users], np.arange(USERS), *arguments[users + 1 :], **named)

        patch.setattr(place, name, wrong)

    return make


def training_ratings_of_everybody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        Problem, "training_ratings", property(lambda self: (self.data, np.arange(USERS), self.reward_of_code))
    )


def of_preset(preset: str) -> Callable[[list[Problem], Path], Any]:
    return lambda problems, folder: [learned(preset, one, folder / str(n)) for n, one in enumerate(problems)]


MISTAKES = {
    "tree": (with_everybody(tpgr_jax.settings, "stored_item_tree", 2), of_preset("tpgr")),
    "tree's vectors": (
        with_everybody(item_vectors, "factor_vectors", 1),
        lambda problems, _: trees("pca_mf", problems),
    ),
    "item embedding": (with_everybody(encoder, "stored_factor_vectors", 2), of_preset("dqn_r")),
    "items as actions": (with_everybody(item_ddpg, "action_vectors", 2), of_preset("ddpg_r, mf")),
    "model of tpgr_plus": (training_ratings_of_everybody, of_preset("tpgr_plus")),
    "fitted method": (training_ratings_of_everybody, of_preset("gaussian_posterior")),
    "best list": (
        with_everybody(tpgr_jax.evaluation, "rank_items", 1),
        lambda problems, _: [lists(one) for one in problems],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_guard_notices_what_is_learned_from_everybody(mistake, problems, tmp_path, monkeypatch):
    make, learn = MISTAKES[mistake]
    make(monkeypatch)
    with pytest.raises(AssertionError):
        assert_equal(*learn(problems, tmp_path))


def test_the_guard_notices_episodes_with_everybody(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        with_everybody(tpgr_jax.problem, "make_simulator", 2)(patch)
        wrong = [problem_of(data) for data in tables(unseen_users())]
    with pytest.raises(AssertionError):
        assert_equal(*of_preset("dqn_r")(wrong, tmp_path))
