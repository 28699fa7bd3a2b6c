"""A run on a log as a recommender: `hrlmg_jax.load`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from harness.compute.compilation_cache import keep_compiled_programs
from harness.compute.vector_width import choose_vector_width
from harness.errors import UserError
from harness.serving.episodes import KINDS, last_of_each, width_for
from harness.settings import read_settings
from harness.training.stored_run import StoredRunConfig
from hrlmg_jax.agent.policy import ActingParams
from hrlmg_jax.evaluation.policies import EvaluationPolicy
from hrlmg_jax.problem import Problem, make_env
from hrlmg_jax.registry import build_method
from hrlmg_jax.sessions import refuse_old_log
from hrlmg_jax.settings import RunConfig, stored_problem
from sim.datasets.sessions import SessionData
from sim.envs.histories import HistoryTable, make_history_table
from sim.envs.policy import Policy
from sim.envs.python_policy import refuse_to_recommend
from sim.envs.session_env import SessionEnv, SessionParams, SessionState
from sim.recommend.recommender import Recommender, recommender_of
from sim.recommend.system import Answers, History, Replay
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
        history_width: W, how many of the latest items of each kind the policy sees of a history.
    """

    problem: Problem
    name: str
    policy: Policy
    params: Any
    env: SessionEnv
    history_width: int

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

    def histories_of(self, users: Sequence[int]) -> list[LoggedHistory]:
        """Returns all that the log knows of users, its test part included."""
        return [self._logged(self._rows_of(user)) for user in users]

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
            last = last_of_each(session.items)
            kept = last[max(len(last) - length, 0) :]
            steps[row] = len(kept)
            items[row, : len(kept)], answers[row, : len(kept)] = session.items[kept], session.answers[kept]
            earlier = np.setdiff1d(np.arange(len(session.items)), kept)
            before.append(_followed(_in_places(history), session.items[earlier], session.answers[earlier]))
            rest.append(np.setdiff1d(before[-1].items, items[row, : len(kept)]).astype(np.int32))
        table, rows = _history_table(before, self._data.log)
        # Answers are given, so that it does not matter which users these are.
        simulator = self.problem.simulator
        users = simulator.model.of_strangers(simulator.params, number)
        env_params = SessionParams(table, jnp.asarray(rows, jnp.int32), None, users)
        params = self.params
        if isinstance(params, ActingParams):
            params = dataclasses.replace(params, table=table)
        return Replay(env_params, params, items, answers, steps), rest

    @property
    def answers(self) -> Answers:
        """Skip, click and order."""
        return Answers(list(FEEDBACK_NAMES), np.asarray(self.env.reward_of(jnp.arange(len(FEEDBACK_NAMES)))).tolist())

    @property
    def program_params(self) -> tuple[Any, Any]:
        """Of the learned users and the policy; without the log, in whose place come the histories of a question."""
        params = self.params
        if isinstance(params, ActingParams):
            params = params.replace(table=None)  # type: ignore[attr-defined]
        return self.problem.simulator.params, params

    def replay_of(self, params: tuple[Any, Any], question: Mapping[str, jax.Array]) -> Replay:
        """Returns the sessions of a question, each beginning behind its histories."""
        users, policy_params = params
        table, rows = _table_of_kinds(*(question[kind] for kind in KINDS))
        if isinstance(policy_params, ActingParams):
            policy_params = dataclasses.replace(policy_params, table=table)
        env_params = SessionParams(table, rows, None, users)
        return Replay(env_params, policy_params, question["items"], question["answers"], question["length"])

    nodes_per_level: ClassVar[list[int]] = []

    def codes_of(self, answers: np.ndarray) -> np.ndarray:
        """Returns feedback, which is its own code."""
        return np.asarray(answers, np.int32)

    def kinds_of(self, history: History) -> tuple[np.ndarray, ...]:
        """Returns the items browsed, clicked and ordered, each kind in the order of its answers."""
        logged = _in_places(history)

        def kind(places: np.ndarray) -> np.ndarray:
            given = np.flatnonzero(places != NEVER)
            return logged.items[given[np.argsort(places[given], kind="stable")]]

        return logged.items, kind(logged.clicked_at), kind(logged.ordered_at)

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

    Its arrays are padded to one length, one of a few, so that programs are reused.
    """
    # A row that was never answered stands for the session to come.
    columns: list[list[np.ndarray]] = [[], [], [], []]
    for history in histories:
        end = max((int(places.max(initial=-1)) for places in _places(history)), default=-1) + 1
        for column, values, last in zip(
            columns, (history.items, *_places(history)), (0, end, NEVER, NEVER), strict=True
        ):
            column.append(np.append(values, last).astype(np.int32))
    # All of them as one log with a user each.
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
    # Padded before it comes to the device.
    table = make_history_table(small, put=np.asarray)
    size = width_for(max(map(len, jax.tree.leaves(table))))
    table = jax.tree.map(lambda column: jnp.asarray(np.resize(column, size)), table)
    return table, np.cumsum(lengths) - 1


def _table_of_kinds(browsed: jax.Array, clicked: jax.Array, ordered: jax.Array) -> tuple[HistoryTable, jax.Array]:
    """Returns the table of histories [B, W], padded with -1 in front, and [B] its rows just before which they end.

    Each has W + 1 rows, the last for the session to come. Only the first and the last are ever asked where answers are.
    """
    number, width = browsed.shape
    users = jnp.arange(number, dtype=jnp.int32)[:, None]
    last = jnp.arange(width + 1) == width
    answered = (jnp.where(last, users + 1, users) * width).reshape(-1)
    table = HistoryTable(
        item=jnp.pad(browsed, ((0, 0), (0, 1))).reshape(-1),
        begin=jnp.broadcast_to(users * (width + 1), (number, width + 1)).reshape(-1),
        num_clicked=answered,
        num_ordered=answered,
        clicked=clicked.reshape(-1),
        ordered=ordered.reshape(-1),
    )
    return table, users[:, 0] * (width + 1) + width


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
    problem = stored_problem(stored, config, values)
    method = build_method(problem, config.agent)
    step, state = (0, None) if method.agent is None else stored.restore(method.agent, config.seed)[:2]
    tested = method.best(state) if stored.actors == "best" else method.newest(state)
    if tested.rank is None:
        raise UserError(
            f"agent={config.agent.name} asks simulated users what they like, and real ones cannot be asked",
            where=str(folder.path),
            do="Recommend from a run of another agent.",
        )
    return recommender_of(system_of(problem, config, tested), folder.path, step)


def system_of(problem: Problem, config: RunConfig, tested: EvaluationPolicy) -> SessionSystem:
    """Returns what a recommender asks: a policy with what it has learned, in the sessions of the run."""
    users = problem.simulator.model
    env = make_env(problem.env, users, config.longest_session)
    # A memory may reach further back than the histories.
    width = max(env.history_length, getattr(getattr(config.agent, "goals", None), "memory", 0))
    params = tested.params(problem.simulator.params)
    return SessionSystem(problem, config.agent.result_name, tested.policy(users), params, env, width)
