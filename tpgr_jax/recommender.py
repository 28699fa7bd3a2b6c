"""A run on ratings as a recommender: `tpgr_jax.load`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from harness.compute.compilation_cache import keep_compiled_programs
from harness.compute.vector_width import choose_vector_width
from harness.errors import UserError
from harness.serving.episodes import last_of_each
from harness.training.stored_run import StoredRunConfig
from sim.envs.policy import Policy
from sim.envs.python_policy import refuse_to_recommend
from sim.envs.rating_env import Answer, EnvConfig, EnvState, RatingEnv, answers_of_ratings
from sim.recommend.recommender import Recommender, recommender_of
from sim.recommend.system import Answers, History, Replay
from tpgr_jax.agents.tree_ops import TreeTables, next_node, step_to_leaf
from tpgr_jax.methods import Method
from tpgr_jax.problem import Problem
from tpgr_jax.settings import make_method, stored_problem

_MANY = 20
"""A share of all ratings above one in so many is asked for faster when all of them are sorted once."""


@dataclass(frozen=True, eq=False)
class RatingSystem:
    """A method with what it has learned; see `sim.recommend.system.System`. Answers are ratings, or None.

    Attributes:
        problem: Data and simulator of the run.
        method: The method.
        params: Parameters of its policy.
        env: The simulator that tells the policy the answers.
    """

    problem: Problem
    method: Method
    params: Any
    env: RatingEnv

    @property
    def name(self) -> str:
        """Of the method."""
        return self.method.name

    @property
    def policy(self) -> Policy:
        """The method's, without the random first item that a simulator may ask for."""
        return self.method.policy

    @property
    def user_ids(self) -> np.ndarray:
        """[U]."""
        return self.problem.data.user_ids

    @property
    def item_ids(self) -> np.ndarray:
        """[I]."""
        return self.problem.data.item_ids

    @property
    def num_items(self) -> int:
        """I."""
        return self.problem.data.num_items

    @property
    def answer_kind(self) -> str:
        """What an answer is."""
        low, high = self.problem.data.rating_min, self.problem.data.rating_max
        return f"a rating from {low:g} to {high:g}, or None (null in JSON)"

    def read_answers(self, answers: Sequence[Any]) -> np.ndarray:
        """Returns [n] float64 ratings; NaN where an item was not rated (None, or empty text)."""
        try:
            ratings = np.array([np.nan if answer in (None, "") else float(answer) for answer in answers], np.float64)
        except (TypeError, ValueError):
            raise UserError(f"not every answer is {self.answer_kind}: {list(answers)[:5]}") from None
        low, high = self.problem.data.rating_min, self.problem.data.rating_max
        if (bad := ratings[(ratings < low) | (ratings > high)]).size:
            raise UserError(f"the answer {bad[0]:g} is none", do=f"An answer is {self.answer_kind}.")
        return ratings

    def histories_of(self, users: Sequence[int]) -> list[History]:
        """Returns users' ratings in order of time; without times in the order of the items."""
        begin, items, codes, *times = self._columns
        rows: list[Any] = [slice(int(begin[user]), int(begin[user + 1])) for user in users]
        if times and sum(part.stop - part.start for part in rows) > len(items) // _MANY:
            rows = [self._in_time[part] for part in rows]
        elif times:
            rows = [part.start + np.lexsort([column[part] for column in times]) for part in rows]
        values = np.asarray(self.problem.data.rating_values)
        return [History(items[part].astype(np.int32), values[codes[part]], distinct=True) for part in rows]

    @cached_property
    def _in_time(self) -> np.ndarray:
        return self.problem.data.rows_by_time()

    @cached_property
    def _columns(self) -> list[np.ndarray]:
        """Ratings, and what orders them in time, as plain arrays: of a memory map every slice is one."""
        data = self.problem.data
        ties = [] if data.source_rows is None else [data.source_rows]
        times = [] if data.timestamps is None else [*ties, data.timestamps]
        return [np.asarray(column) for column in (data.indptr, data.items, data.codes, *times)]

    def replay(
        self, histories: Sequence[History], sessions: Sequence[History], length: int
    ) -> tuple[Replay, list[np.ndarray]]:
        """Returns episodes of the last answers; of an item that was answered twice the last one counts."""
        together = zip(histories, sessions, strict=True)
        own = [one if one.distinct and not len(since.items) else _last_of_each(one, since) for one, since in together]
        first = [max(len(one.items) - length, 0) for one in own]
        rest = [one.items[:place] for one, place in zip(own, first, strict=True)]
        # All answers behind one another, then each in its place.
        lasting = [(one.items[place:], one.answers[place:]) for one, place in zip(own, first, strict=True)]
        steps = np.array([len(some) for some, _ in lasting], np.int32)
        filled = np.arange(length) < steps[:, None]
        items, ratings = np.full(filled.shape, -1, np.int32), np.full(filled.shape, np.nan)
        items[filled] = np.concatenate([some for some, _ in lasting])
        ratings[filled] = np.concatenate([some for _, some in lasting])
        given = self._answers(ratings.ravel())
        answers = Answer(*(np.asarray(part).reshape(items.shape) for part in given))
        return Replay(self.problem.env_params, self.params, items, answers, steps), rest

    history_width: ClassVar[int] = 0

    @property
    def answers(self) -> Answers:
        """The ratings of the scale; code 0 is none."""
        ratings = self.problem.data.rating_values[1:].tolist()
        rewards = self._answers(self.problem.data.rating_values).empirical
        return Answers([None, *ratings], np.asarray(rewards).tolist(), float(self.problem.env_params.alpha))

    @property
    def program_params(self) -> tuple[Any, Any, Answer]:
        """Of environment and policy, and [V + 1] answers by code."""
        return self.problem.env_params, self.params, self._answers(self.problem.data.rating_values)

    def replay_of(self, params: tuple[Any, Any, Answer], question: Mapping[str, jax.Array]) -> Replay:
        """Returns the episodes of a question."""
        env_params, policy_params, by_code = params
        answers = jax.tree.map(lambda answer: jnp.asarray(answer)[question["answers"]], by_code)
        return Replay(env_params, policy_params, question["items"], answers, question["length"])

    @property
    def nodes_per_level(self) -> list[int]:
        """Inner nodes below those of each level but the last."""
        tables: TreeTables = self.params.tables
        return [sizes.shape[-2] for sizes in tables.sizes[1:]]

    def codes_of(self, answers: np.ndarray) -> np.ndarray:
        """Returns the codes of ratings."""
        found = np.searchsorted(self.problem.data.rating_values[1:], answers) + 1
        return np.where(np.isnan(answers), 0, found).astype(np.int32)

    def kinds_of(self, history: History) -> tuple[np.ndarray, ...]:
        """Returns nothing: an episode is all that a policy sees."""
        return ()

    def _answers(self, ratings: np.ndarray) -> Answer:
        settings = self.problem.env_settings
        assert isinstance(settings, EnvConfig)
        return answers_of_ratings(settings, self.problem.data, ratings, self.problem.data_settings.hits_above)

    @cached_property
    def likely_params(self) -> Answer:
        """[I] the rating that training users gave each item most often, of several the highest; none for no rating."""
        data, users, _ = self.problem.training_ratings
        ratings = data.matrix(np.arange(len(data.rating_values)), users)
        best, most = np.zeros(data.num_items, np.int64), np.zeros(data.num_items, np.int64)
        for code in range(1, len(data.rating_values)):
            count = np.bincount(ratings.indices[ratings.data == code], minlength=data.num_items)
            better = (count >= most) & (count > 0)
            best[better], most[better] = code, count[better]
        return jax.tree.map(jnp.asarray, self._answers(data.rating_values[best]))

    @staticmethod
    def likely_answer(params: Answer, env_params: Any, state: EnvState, item: jax.Array) -> Answer:
        """Returns what training users answered most often, whatever the user."""
        return jax.tree.map(lambda answer: answer[item], params)

    @cached_property
    def _frequency(self) -> np.ndarray:
        return np.bincount(self.problem.data.items, minlength=self.num_items)

    def items_below(self, level: int, child: int) -> np.ndarray:
        """Returns the items below a node of the tree, the most rated first."""
        tables: TreeTables = self.params.tables
        leaves = jnp.arange(len(tables.leaf_items))
        reached = np.asarray(next_node(tables, level, *step_to_leaf(tables, level, leaves)))
        items = np.asarray(tables.leaf_items)[reached == child]
        items = items[items >= 0]
        return items[np.argsort(-self._frequency[items], kind="stable")]


def _last_of_each(history: History, session: History) -> History:
    """Puts a session after a history and keeps the last answer to each item."""
    items = np.concatenate([history.items, session.items])
    answers = np.concatenate([history.answers, session.answers])
    kept = last_of_each(items)
    return History(items[kept], answers[kept])


@dataclass(frozen=True, kw_only=True)
class StoredRatingRun(StoredRunConfig):
    """Which run recommends."""

    system: ClassVar[str] = "tpgr_jax"


def load(stored: StoredRunConfig) -> Recommender:
    """Restores a run; see `tpgr_jax.load`.

    Raises:
        UserError: No run folder, or a damaged one; other data; a simulator that takes no answers; or a function of
            the user's.
    """
    keep_compiled_programs()
    choose_vector_width(stored.folder)
    folder = stored.folder
    config, problem = stored_problem(stored)
    refuse_to_recommend(config.agent, str(folder.path))
    if not isinstance(problem.env, RatingEnv):
        raise UserError(
            f"the run was trained in the simulator {config.env.module}, which takes no answers of real users",
            where=str(folder.path),
            do="Recommend from a run with env=rating.",
        )
    method = make_method(config, problem, folder)
    step, state = (0, None) if method.agent is None else stored.restore(method.agent, config.seed)[:2]
    system = RatingSystem(problem, method, method.policy_params(method.finished(state)), problem.env)
    return recommender_of(system, folder.path, step)
