"""The reading of a run at each of its budgets: test users, with the state that counts within it."""

from __future__ import annotations

from typing import Any

import jax

from harness.errors import UserError
from harness.runs.checkpoint import Checkpoints
from harness.runs.metric_writer import read_rows
from harness.runs.run_folder import RunFolder
from harness.training.budgets import candidate_rows, counted_step
from sim.evaluation.protocol import Evaluation
from tpgr_jax.evaluation import USERS_PER_BATCH, evaluate_method, write_evaluation
from tpgr_jax.methods import Method
from tpgr_jax.problem import Problem
from tpgr_jax.settings import RunConfig


def reading_of(budget: str) -> str:
    """Returns the name of the files that hold the reading at a budget."""
    return f"eval_at_{budget}"


def evaluate_budgets(
    config: RunConfig,
    problem: Problem,
    method: Method,
    folder: RunFolder,
    newest: dict[str, Evaluation] | None = None,
    users_per_batch: int = USERS_PER_BATCH,
) -> list[str]:
    """Evaluates the state that counts within each budget of a run; writes `eval_at_episodes.*`, `eval_at_seconds.*`.

    A method without training costs nothing: its reading is the same at every budget.

    Args:
        newest: The evaluation of the newest state (or of a method without any); its baselines are taken from there.

    Returns:
        The names of the files, without ending.

    Raises:
        UserError: There is no state within a budget, or its checkpoint is gone.
    """
    written = []
    for budget, limit in config.train.budgets.limits.items():
        step, state, spent = 0, None, {"episodes": 0, "seconds": 0.0, "reached": limit, "candidates": 0}
        if method.agent is not None:
            step, state, spent = _counted_state(config, method, folder, budget, limit)
        own = (method.name, f"{method.name}_sampled")
        baselines = {name: one for name, one in newest.items() if name not in own} if newest else None
        policies = evaluate_method(problem, method, state, config.seed, users_per_batch, baselines)
        about = {"name": budget, "limit": limit, "selected": len(problem.selection_users) > 0, **spent}
        write_evaluation(folder, problem, config.seed, step, policies, reading_of(budget), about, method.function)
        written.append(reading_of(budget))
    return written


def _counted_state(
    config: RunConfig, method: Method, folder: RunFolder, budget: str, limit: float
) -> tuple[int, Any, dict[str, float]]:
    """Returns step and state that count within a budget, what the state has cost, and how far training went.

    Of how many states it was chosen is among the numbers.
    """
    assert method.agent is not None
    rows = read_rows(folder.metrics)
    step = counted_step(rows, budget, config.train.budgets)
    if step is None:
        raise UserError(
            f"no state was evaluated within {limit:g} {budget}",
            where=str(folder.metrics),
            do="Give a larger budget, or a smaller train.log_every.",
        )
    like = method.agent.initial_state(jax.random.key(config.seed))
    with Checkpoints(folder.checkpoints, read_only=True) as checkpoints:
        _, state, _ = checkpoints.restore(like, step)
    row = next(row for row in rows if row["step"] == step)
    candidates = len(candidate_rows(rows, budget, config.train.budgets))
    spent = {"episodes": row["episodes"], "seconds": row["seconds"], "reached": rows[-1][budget]}
    return step, state, {**spent, "candidates": candidates}
