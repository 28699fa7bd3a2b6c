"""Axes show the baselines and begin where differences look as large as they are."""

from contextlib import contextmanager

import pytest

from harness.reports import plots
from harness.reports.plots import Bars, Curve, Panel, Points, PointsPanel, plot_bars, plot_curves, plot_points
from harness.reports.results import Estimate


@pytest.fixture
def drawn(monkeypatch):
    """The axes of the pictures that a test draws."""
    axes, figure = [], plots._figure

    @contextmanager
    def remembered(*arguments, **more):
        with figure(*arguments, **more) as all_axes:
            axes.extend(all_axes)
            yield all_axes

    monkeypatch.setattr(plots, "_figure", remembered)
    return axes


def estimates(*means):
    return [Estimate(mean, mean - 0.1, mean + 0.1) for mean in means]


@pytest.mark.parametrize("bands", [False, True])
def test_points_begin_at_zero_and_show_baselines(drawn, tmp_path, bands):
    panels = [
        PointsPanel("above", [Points("a", [1, 2], estimates(7.0, 7.2))], {"list": 6.5}),
        PointsPanel("below", [Points("a", [1, 2], estimates(-7.0, -7.2))]),
        PointsPanel("a scale", [Points("a", [1, 2], estimates(3.0, 3.2))], limits=(1, 5)),
    ]
    plot_points(tmp_path / "a.png", "title", "x", panels, bands)
    above, below, scale = drawn
    assert (above.get_ylim()[0], below.get_ylim()[1], scale.get_ylim()) == (0, 0, (1, 5))
    assert above.get_ylim()[1] > 7.2
    assert 6.5 in [line.get_ydata()[0] for line in above.lines]
    (legend,) = above.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "list"]


def test_curves_of_a_run_and_bars_show_baselines(drawn, tmp_path):
    rows = [{"step": 1, "reward": 5.0}, {"step": 2, "reward": 5.5}]
    plot_curves(tmp_path / "a.png", rows, "title", "step", [Panel("reward", [Curve("reward", "mean")], {"list": 4.5})])
    plot_bars(tmp_path / "b.png", "title", "x", [Bars("bars", {"a": estimates(5.0)[0]}, {"list": 4.5})])
    curves, bars = drawn
    assert curves.get_ylim()[0] == 0
    assert 4.5 in [line.get_ydata()[0] for line in curves.lines]
    assert bars.get_xlim()[0] == 0
    assert 4.5 in [line.get_xdata()[0] for line in bars.lines]
