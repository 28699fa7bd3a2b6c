"""What a study ends with: the best setting as a configuration to use, the table of trials, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import yaml

from harness.commands.command_words import override_value
from harness.reports.plots import Bars, Points, PointsPanel, Scatter, plot_bars, plot_points, plot_scatter
from harness.reports.results import Estimate
from harness.reports.tables import Cell, Table, markdown_list, markdown_table, markdown_text, write_report
from harness.runs.composition import shell_command
from harness.runs.run_folder import make_folder, write_atomically, write_json
from harness.tuning.study import TrialStore, study_lock

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

VALUE = "validation reward"
"""What every study maximises, in tables and pictures."""
GROUP, BEST = "tuned", "best"
"""`tuned/best.yaml` in the study's folder: `--config-dir=STUDY +tuned=best` uses it."""


def report_study(store: TrialStore, tune: str) -> None:
    """Prints and writes `trials.md` and `.csv`, `tuned/best.yaml`, and pictures, as far as the study has come.

    Args:
        store: The trials.
        tune: The tuning command's module.
    """
    with study_lock(store.folder):  # the last command of several to report has seen the trials of all
        _report(store, tune)


def _report(store: TrialStore, tune: str) -> None:
    ended, best, plan = store.ended(), store.best(), store.plan
    if not ended:
        return
    lines = [f"# Study: {len(ended)} of {plan.trials} trials have ended", ""]
    lines += [f"The {plan.value} evaluation on validation users of each trial counts.", ""]
    # The table.
    heads = ["trial", "state", VALUE, *plan.defaults, "run folder", "reason"]
    rows = [_row(store, trial) for trial in ended]
    shown = [["" if cell is None else brief(cell) for cell in row] for row in rows]
    lines += markdown_table([markdown_text(head) for head in heads], [[*map(markdown_text, row)] for row in shown])
    # The best setting, and how to go on.
    pictures: list[str] = []
    if best is not None:
        arguments = [f"--config-dir={store.folder.absolute()}", *_without_config_dir(plan.arguments)]
        command = shell_command(plan.module, [*arguments, f"+{GROUP}={BEST}"])
        _write_best(store, best, command)
        default = next((trial for trial in ended if trial.number == 0 and trial.value is not None), None)
        facts = [f"best: trial {best.number}, {best.value:.4g}"]
        facts += [f"default (trial 0): {default.value:.4g}"] if default else []
        lines += ["", *markdown_list(facts), "", "Train with the best setting:", "", "```bash", command, "```"]
        pictures = _pictures(store)
    if len(ended) < plan.trials:
        lines += ["", "Continue:", "", "```bash", shell_command(tune, [f"study={store.folder}"]), "```"]
    write_report(store.folder, "trials", lines, Table(heads, rows), pictures)


def _row(store: TrialStore, trial: FrozenTrial) -> list[Cell]:
    settings = store.settings_of(trial)
    own: list[Cell] = [trial.number, trial.state.name.lower(), trial.value]
    own += [cell_of(settings[key]) if key in settings else None for key in store.plan.defaults]
    return [*own, str(store.trial_folder(trial.number)), trial.user_attrs.get("reason")]


def cell_of(setting: Any) -> Cell:
    """Returns a setting as a table's cell."""
    number = isinstance(setting, int | float) and not isinstance(setting, bool)
    return setting if number else override_value(setting)


def brief(cell: Cell) -> str:
    """Returns a cell as people read it."""
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _without_config_dir(arguments: Sequence[str]) -> list[str]:
    """Hydra takes one `--config-dir`: the user's own becomes part of the search path."""
    return [
        f"hydra.searchpath=[{argument.partition('=')[2]}]" if argument.startswith("--config-dir=") else argument
        for argument in arguments
    ]


def _write_best(store: TrialStore, best: FrozenTrial, command: str) -> None:
    settings = store.settings_of(best)
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        *above, last = key.split(".")
        node = nested
        for name in above:
            node = node.setdefault(name, {})
        node[last] = value
    path = store.folder / GROUP / f"{BEST}.yaml"
    make_folder(path.parent)
    text = f"# @package _global_\n# Trial {best.number}, {best.value:.6f} on validation users:\n#   {command}\n"
    write_atomically(path, lambda temporary: temporary.write_text(text + yaml.safe_dump(nested, sort_keys=False)))
    policy = {"value": best.value, "trial": best.number, "settings": settings}
    write_json(store.folder / f"{BEST}.json", {"policies": {BEST: policy}})


def _pictures(store: TrialStore) -> list[str]:
    """Draws the course of the study, the value against each setting, and how much each setting matters."""
    complete = [trial for trial in store.ended() if trial.state.name == "COMPLETE"]
    title = f"{len(complete)} complete trials of {store.folder.name}"
    # The course.
    numbers, values = [trial.number for trial in complete], [float(trial.value or 0.0) for trial in complete]
    so_far = [max(values[: number + 1]) for number in range(len(values))]
    lines = [Points("trial", numbers, _exact(values)), Points("best so far", numbers, _exact(so_far))]
    spread = max(values) - min(values) or abs(max(values)) or 1.0
    limits = min(values) - 0.05 * spread, max(values) + 0.05 * spread
    plot_points(store.folder / "history.png", title, "trial", [PointsPanel(VALUE, lines, {}, limits)], bands=True)
    # Each setting.
    plan = store.plan
    panels = []
    for key in plan.defaults:
        points = [(trial.params[key], float(trial.value or 0.0)) for trial in complete if key in trial.params]
        panels.append(Scatter(key, [x for x, _ in points], [y for _, y in points], _is_log(plan.space, key)))
    plot_scatter(store.folder / "settings.png", title, VALUE, panels)
    pictures = ["history.png", "settings.png"]
    # How much each matters.
    importance = _importance(store, len(complete))
    if importance:
        bars = {key: Estimate(value, value, value) for key, value in importance.items()}
        plot_bars(store.folder / "importance.png", title, "share of the variance of the value", [Bars("", bars)])
        pictures.append("importance.png")
    return pictures


def _importance(store: TrialStore, complete: int) -> dict[str, float]:
    """Returns each setting's share of the variance of the value (fANOVA); nothing where trials are too few or equal."""
    import optuna

    if complete < 3 or len(store.plan.defaults) < 2:
        return {}
    try:
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return dict(optuna.importance.get_param_importances(store.study, evaluator=evaluator))
    except (ValueError, RuntimeError):  # no variance
        return {}


def _is_log(space: Any, key: str) -> bool:
    for name in key.split("."):
        space = space[name]
    return bool(space.get("log"))


def _exact(values: Sequence[float]) -> list[Estimate]:
    return [Estimate(value, value, value) for value in values]
