"""What tells, from the log and the learned users alone, that a policy lives on the mistakes of a simulation.

* live_over_unmoved: its value over that in the same users when no answer changes them (`UnmovedUsers`), and the same
  over that of random items;
* value_over_second_kind: its value over that in learned users of another kind, fitted to the same log;
* disagreement_over_log: of an ensemble, how far the members disagree on its items over how far they do on the log's;
* windows_beyond_log: share of ten-step windows with more clicks than 99.9 % of the log's;
* reward_over_log: mean reward per step over that which 99 % of logged sessions do not exceed;
* late_clicks_over_log: click rate at steps 40 to 60 over the log's there.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from hrlmg_jax.evaluation.trust_scores import windows_beyond_log
from sim.datasets.sessions import SessionData
from sim.envs.session_env import SessionConfig
from sim.tables.events import CLICK, ORDER

STEPS = 60
"""Of a logged session, the first, that are looked at."""
_LATE = slice(40, STEPS)
_FEW = 100
"""Logged answers below which a rate is not taken from them."""


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

    def about(self, feedback: np.ndarray, reward: np.ndarray) -> dict[str, float | None]:
        """Returns the signals that compare a policy's sessions with logged ones; None where the log has too little.

        Args:
            feedback: [n, T] answers of simulated users.
            reward: [n, T] their rewards.
        """
        late = self.shown[:, _LATE]
        clicks = float(np.sum((self.feedback[:, _LATE] >= CLICK) & late))
        enough = late.sum() >= _FEW and clicks and feedback.shape[1] >= STEPS
        length = self.shown.sum(1)
        per_step = self.reward.sum(1)[length > 0] / length[length > 0]
        best = float(np.quantile(per_step, 0.99)) if len(per_step) else 0.0
        late_rate = float(np.mean(feedback[:, _LATE] >= CLICK)) if enough else 0.0
        return {
            "windows_beyond_log": windows_beyond_log(feedback, self.feedback, self.shown),
            "reward_over_log": float(reward.mean()) / best if best > 0 else None,
            "late_clicks_over_log": late_rate / (clicks / late.sum()) if enough else None,
        }


def logged_answers(env: SessionConfig, data: SessionData) -> LoggedAnswers:
    """Returns how the sessions of the training part begin."""
    log, starts = data.log, data.log.session_starts()
    rows = starts[:-1][~log.is_test][:, None] + np.arange(STEPS)
    shown = rows < starts[1:][~log.is_test][:, None]
    feedback = np.where(shown, log.feedback[np.where(shown, rows, 0)], 0)
    reward = np.select([feedback >= ORDER, feedback >= CLICK], [env.order_reward, env.click_reward], 0.0)
    return LoggedAnswers(feedback, shown, reward)


def value_ratio(reward: np.ndarray, other: np.ndarray) -> float:
    """Returns a policy's value over that in other users, from its rewards [n, T] in both."""
    return float(reward.sum() / max(float(other.sum()), 1e-9))
