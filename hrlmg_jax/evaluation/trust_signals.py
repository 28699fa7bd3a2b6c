"""What tells, from the log and the learned users alone, that a policy lives on the mistakes of a simulation.

* live_over_unmoved: its value over that in the same users when no answer changes them (`UnmovedUsers`), and the same
  over that of random items;
* windows_beyond_log: share of ten-step windows with more clicks than 99.9 % of the log's;
* reward_over_log: mean reward per step over that which 99 % of logged sessions do not exceed;
* late_clicks_over_log: click rate at steps 40 to 60 over the log's there.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from hrlmg_jax.evaluation.online import OnlineTest, make_player, session_rows
from hrlmg_jax.evaluation.policies import EvaluationPolicy
from hrlmg_jax.evaluation.trust_scores import windows_beyond_log
from hrlmg_jax.evaluation.unmoved_users import UnmovedUsers
from hrlmg_jax.problem import Problem, make_env
from hrlmg_jax.settings import RunConfig
from sim.envs.session_env import SessionEnv
from sim.tables.events import CLICK, ORDER

STEPS = 60
"""Of a logged session, the first, that are looked at."""
_LATE = slice(40, STEPS)
_FEW = 100
"""Logged answers below which a rate is not taken from them."""


def unmoved_env(problem: Problem, length: int) -> SessionEnv:
    """Returns sessions whose users answer every item as if it came first."""
    env = make_env(problem.env, problem.users, length)
    return UnmovedUsers(**{field.name: getattr(env, field.name) for field in dataclasses.fields(env)})


@dataclasses.dataclass(frozen=True)
class LoggedAnswers:
    """The beginnings of the training part's sessions.

    Attributes:
        feedback: [m, 60] answers.
        shown: [m, 60] bool, which of these there are.
        reward: [m, 60] rewards, 0 where there is none.
    """

    feedback: np.ndarray
    shown: np.ndarray
    reward: np.ndarray

    def about(self, played: OnlineTest) -> dict[str, float | None]:
        """Returns the signals that compare a policy's sessions with logged ones; None where the log has too little."""
        late = self.shown[:, _LATE]
        clicks = float(np.sum((self.feedback[:, _LATE] >= CLICK) & late))
        enough = late.sum() >= _FEW and clicks and played.feedback.shape[1] >= STEPS
        length = self.shown.sum(1)
        per_step = self.reward.sum(1)[length > 0] / length[length > 0]
        best = float(np.quantile(per_step, 0.99)) if len(per_step) else 0.0
        late_rate = float(np.mean(played.feedback[:, _LATE] >= CLICK)) if enough else 0.0
        return {
            "windows_beyond_log": windows_beyond_log(played.feedback, self.feedback, self.shown),
            "reward_over_log": float(played.reward.mean()) / best if best > 0 else None,
            "late_clicks_over_log": late_rate / (clicks / late.sum()) if enough else None,
        }


def logged_answers(problem: Problem) -> LoggedAnswers:
    """Returns how the sessions of the training part begin."""
    log, starts = problem.data.log, problem.data.log.session_starts()
    rows = starts[:-1][~log.is_test][:, None] + np.arange(STEPS)
    shown = rows < starts[1:][~log.is_test][:, None]
    feedback = np.where(shown, log.feedback[np.where(shown, rows, 0)], 0)
    reward = np.select(
        [feedback >= ORDER, feedback >= CLICK], [problem.env.order_reward, problem.env.click_reward], 0.0
    )
    return LoggedAnswers(feedback, shown, reward)


def moved_by_itself(live: OnlineTest, unmoved: OnlineTest) -> float:
    """Returns a policy's value over that in users whom no answer changes."""
    return float(live.reward.sum() / max(float(unmoved.reward.sum()), 1e-9))


def play_unmoved(config: RunConfig, problem: Problem, policy: EvaluationPolicy) -> OnlineTest:
    """Plays long sessions of the test part with users whom no answer changes."""
    rows = session_rows(problem.data, "test", config.evaluation.sessions)
    env = unmoved_env(problem, config.evaluation.long)
    return make_player(env, problem.env_params(rows), config.evaluation.sessions_at_a_time)(policy)
