"""A run on a log as a recommender: `hrlmg_jax.load`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from harness.compilation_cache import keep_compiled_programs
from harness.errors import UserError
from harness.settings import read_settings
from harness.training.stored_run import StoredRunConfig
from harness.vector_width import choose_vector_width
from hrlmg_jax.agent.policy import ActingParams
from hrlmg_jax.problem import Problem, load_data, make_env, make_problem, origin_of
from hrlmg_jax.registry import build_method
from hrlmg_jax.sessions import refuse_old_log
from hrlmg_jax.settings import RunConfig
from hrlmg_jax.user_model.store import FILE
from sim.datasets.sessions import SessionData
from sim.envs.histories import HistoryTable, make_history_table
from sim.envs.policy import Policy
from sim.envs.python_policy import refuse_to_recommend
from sim.envs.session_env import SessionEnv, SessionParams, SessionState
from sim.recommend.recommender import Recommender, recommender_of
from sim.recommend.system import History, Replay
from sim.tables.events import CLICK, FEEDBACK_NAMES, NEVER, ORDER, EventLog


@dataclass(frozen=True, eq=False)
class LoggedHistory(History):
    """What a user was shown, in order, with the places of the answers as in `EventLog`.

    Attributes:
        shown_at: [n] int32 ascending.
        clicked_at: [n] int32, -1 without a click.
        ordered_at: [n] int32, likewise.
    """

    shown_at: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
    clicked_at: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
    ordered_at: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))


@dataclass(frozen=True, eq=False)
class SessionSystem:
    """A policy with what it has learned; see `sim.recommend.system.System`. Answers are skip, click or order.

    A history is what was before the session, and the policy sees its last N items of each kind, as in training. What
    came since the session began is replayed; where that fills the session, its oldest steps become history.

    Attributes:
        problem: Log and learned users of the run.
        name: Of the method.
        policy: Recommends.
        params: Its parameters.
        env: Tells the policy the answers.
    """

    problem: Problem
    name: str
    policy: Policy
    params: Any
    env: SessionEnv

    @property
    def _data(self) -> SessionData:
        return self.problem.data

    @property
    def user_ids(self) -> np.ndarray:
        """[U]."""
        return self._data.log.user_ids

    @property
    def item_ids(self) -> np.ndarray:
        """[J], the catalogue first."""
        return self._data.log.item_ids

    @property
    def num_items(self) -> int:
        """I."""
        return self._data.num_items

    @property
    def answer_kind(self) -> str:
        """What an answer is."""
        return "skip, click or order (0, 1 or 2)"

    def read_answers(self, answers: Sequence[Any]) -> np.ndarray:
        """Returns [n] int32 feedback."""
        number_of: dict[str, int] = {name: number for number, name in enumerate(FEEDBACK_NAMES)}
        number_of |= {str(number): number for number in range(len(FEEDBACK_NAMES))}
        try:
            return np.array([number_of[str(answer).strip().lower()] for answer in answers], np.int32)
        except KeyError as error:
            raise UserError(f"the answer {error} is none", do=f"An answer is {self.answer_kind}.") from None

    def history_of(self, user: int) -> LoggedHistory:
        """Returns all that the log knows of a user, its test part included."""
        return self._logged(self._rows_of(user))

    def history_before(self, row: int) -> LoggedHistory:
        """Returns what the log knows of a user just before a row: as the session that begins there was simulated."""
        log, in_test_part = self._data.log, self._data.log.in_test_part
        rows = self._rows_of(int(log.user[row]))
        if not in_test_part()[row]:
            rows = rows[~in_test_part()[rows]]
        now = log.shown_at[row]
        return self._logged(rows[log.shown_at[rows] < now], now)

    def _rows_of(self, user: int) -> np.ndarray:
        order, begin = self._by_user
        return order[begin[user] : begin[user + 1]]

    @cached_property
    def _by_user(self) -> tuple[np.ndarray, np.ndarray]:
        user = self._data.log.user
        return np.argsort(user, kind="stable"), np.searchsorted(np.sort(user), np.arange(len(self.user_ids) + 1))

    def _logged(self, rows: np.ndarray, now: int | None = None) -> LoggedHistory:
        """Returns rows of the log in order; answers that were given at `now` or later are not known yet."""
        log = self._data.log
        rows = rows[np.argsort(log.shown_at[rows], kind="stable")]
        answered = [log.clicked_at[rows], log.ordered_at[rows]]
        if now is not None:
            answered = [np.where(places < now, places, NEVER) for places in answered]
        return LoggedHistory(log.item[rows], log.feedback[rows], False, log.shown_at[rows], *answered)

    def replay(
        self, histories: Sequence[History], sessions: Sequence[History], length: int
    ) -> tuple[Replay, list[np.ndarray]]:
        """Returns the sessions, which begin where the histories end."""
        number = len(histories)
        items, answers = np.full((number, length), -1, np.int32), np.zeros((number, length), np.int32)
        steps, rest, before = np.zeros(number, np.int32), [], []
        for row, (history, session) in enumerate(zip(histories, sessions, strict=True)):
            # A session replays each item once; an earlier answer to it is history.
            last = np.sort(len(session.items) - 1 - np.unique(session.items[::-1], return_index=True)[1])
            kept = last[max(len(last) - length, 0) :]
            steps[row] = len(kept)
            items[row, : len(kept)], answers[row, : len(kept)] = session.items[kept], session.answers[kept]
            earlier = np.setdiff1d(np.arange(len(session.items)), kept)
            before.append(_followed(_in_places(history), session.items[earlier], session.answers[earlier]))
            rest.append(np.setdiff1d(before[-1].items, items[row, : len(kept)]).astype(np.int32))
        table, rows = _history_table(before, self._data.log)
        env_params = SessionParams(table, jnp.asarray(rows, jnp.int32), None, self.problem.simulator.params)
        params = self.params
        if isinstance(params, ActingParams):
            params = dataclasses.replace(params, table=table)
        return Replay(env_params, params, items, answers, steps), rest

    @property
    def likely_params(self) -> None:
        """Nothing: the learned users are the environment's."""
        return None

    def likely_answer(self, params: None, env_params: SessionParams, state: SessionState, item: jax.Array) -> jax.Array:
        """Returns what the learned user does most probably, which is nearly always a skip."""
        chances = self.env.model.probabilities(env_params.model, state.hidden, state.histories, item)
        return jnp.argmax(chances).astype(jnp.int32)

    def items_below(self, level: int, child: int) -> np.ndarray:
        """Returns no items: there is no tree, and policies of this system have no paths."""
        return np.zeros(0, np.int32)


def _in_places(history: History) -> LoggedHistory:
    """Returns a history with places; of a list of answers every entry was shown, and answered, in its turn."""
    if isinstance(history, LoggedHistory):
        return history
    return _followed(LoggedHistory(*(np.zeros(0, np.int32),) * 2), history.items, history.answers)


def _followed(history: LoggedHistory, items: np.ndarray, answers: np.ndarray) -> LoggedHistory:
    """Returns a history with later items, answered in turn."""
    if not len(items):
        return history
    end = max((int(places.max(initial=-1)) for places in _places(history)), default=-1) + 1
    shown = np.arange(end, end + len(items), dtype=np.int32)
    later = shown, np.where(answers >= CLICK, shown, NEVER), np.where(answers >= ORDER, shown, NEVER)
    together = (np.concatenate(both) for both in zip(_places(history), later, strict=True))
    return LoggedHistory(
        np.concatenate([history.items, items]), np.concatenate([history.answers, answers]), False, *together
    )


def _places(history: LoggedHistory) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return history.shown_at, history.clicked_at, history.ordered_at


def _history_table(histories: Sequence[LoggedHistory], log: EventLog) -> tuple[HistoryTable, np.ndarray]:
    """Returns a table of histories, and [B] the rows in it just before which they end.

    Its arrays are padded to powers of two, so that programs are reused.
    """
    # A row that was never answered stands for the session to come.
    columns: list[list[np.ndarray]] = [[], [], [], []]
    for history in histories:
        end = max((int(places.max(initial=-1)) for places in _places(history)), default=-1) + 1
        for column, values, last in zip(
            columns, (history.items, *_places(history)), (0, end, NEVER, NEVER), strict=True
        ):
            column.append(np.append(values, last).astype(np.int32))
    items, shown_at, clicked_at, ordered_at = (np.concatenate(column) for column in columns)
    lengths = np.array([len(history.items) + 1 for history in histories])
    user = np.repeat(np.arange(len(histories), dtype=np.int32), lengths)
    small = dataclasses.replace(
        log,
        user=user,
        session=user,
        time=shown_at.astype(np.int64),
        item=items,
        feedback=np.zeros(len(items), np.int8),
        shown_at=shown_at,
        clicked_at=clicked_at,
        ordered_at=ordered_at,
        is_test=np.zeros(len(histories), bool),
        user_ids=np.arange(len(histories)),
    )
    table = jax.tree.map(_padded, make_history_table(small))
    return table, np.cumsum(lengths) - 1


def _padded(column: jax.Array) -> jax.Array:
    size = 1 << (len(column) - 1).bit_length()
    return jnp.asarray(np.resize(np.asarray(column), size))


@dataclass(frozen=True, kw_only=True)
class StoredSessionRun(StoredRunConfig):
    """Which run recommends, and with which of a checkpoint's actors."""

    system: ClassVar[str] = "hrlmg_jax"
    actors: Literal["best", "last"] = "best"


def load(stored: StoredSessionRun) -> Recommender:
    """Restores a run; see `hrlmg_jax.load`.

    Raises:
        UserError: No run folder, or a damaged one; another log; an oracle, which asks the users; or a function of
            the user's.
    """
    keep_compiled_programs()
    choose_vector_width(stored.folder)
    folder, values = stored.folder, stored.read_values()
    refuse_old_log(folder)
    config = read_settings(RunConfig, values)
    refuse_to_recommend(config.agent, str(folder.path))
    stored.check_began(folder.path / FILE, "simulator")
    data = load_data(config.fit(), config.longest_session)
    origin_of(data).check(folder)
    problem = make_problem(config.fit(), values, data, folder, config.longest_session)
    method = build_method(problem, config.agent)
    step, state = (0, None) if method.agent is None else stored.restore(method.agent, config.seed)[:2]
    tested = method.best(state) if stored.actors == "best" else method.newest(state)
    users = problem.simulator.model
    policy = tested.policy(users)
    if tested.rank is None:
        raise UserError(
            f"agent={config.agent.name} asks simulated users what they like, and real ones cannot be asked",
            where=str(folder.path),
            do="Recommend from a run of another agent.",
        )
    env = make_env(problem.env, users, config.longest_session)
    params = tested.params(problem.simulator.params)
    system = SessionSystem(problem, config.agent.result_name, policy, params, env)
    return recommender_of(system, folder.path, step)
