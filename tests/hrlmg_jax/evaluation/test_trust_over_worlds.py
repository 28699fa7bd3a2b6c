"""The trust bench's summary over worlds, by hand."""

import numpy as np

from hrlmg_jax.evaluation.trust_scores import agreement
from hrlmg_jax.reports.trust_over_worlds import over_worlds_section


def entry(world: int, learned: dict[str, float], kept: float | None = None, **changes) -> dict:
    """A log of which every policy earns 2 with true users, but for those that differ in learned ones."""
    true = {name: 2.0 + 0.01 * number for number, name in enumerate(learned)}
    agreed = agreement(np.asarray(list(learned.values())), np.asarray(list(true.values())))
    policies = {
        name: {"300": {"reward": {"learned": {"mean": value}, "true": {"mean": true[name]}}}}
        for name, value in learned.items()
    }
    of_agents = {} if kept is None else {"ddpg": {"300": kept}}
    found = {"agreement": {"300": {"reward": agreed}}, "policies": policies, "kept": of_agents}
    return {"world": world, "shop": "seen", "simulator": "latent", **found, **changes}


def test_a_line_for_each_kind_over_its_worlds():
    logs = [
        entry(10, {"a": 2.0, "b": 2.02, "c": 3.0}, 0.9),
        entry(11, {"a": 2.0, "b": 2.6, "c": 4.0}, 0.7),
        entry(10, {"a": 1.0, "b": 1.0, "c": 1.0}, dynamics="drift"),
    ]
    *_, first, second = over_worlds_section(logs)
    cells = [cell.strip() for cell in first.strip("|").split("|")]
    # Medians 1.005 and 1.294; Spearman 1 in both; c is far off in both worlds, b in one.
    assert cells[:5] == ["trust", "seen", "latent", "2", "300"]
    assert cells[5].startswith("1.1")
    assert cells[6:9] == ["3 of 6", "1.00 (1.00)", "0%"]
    assert cells[9].startswith("ddpg 0.80 ±")
    assert cells[10] == "c (2: 1.73), b (1: 1.15)"
    cells = [cell.strip() for cell in second.strip("|").split("|")]
    assert cells[:7] == ["drift", "seen", "latent", "1", "300", "0.50", "0 of 3"]
    assert cells[7:10] == ["-", "1%", "-"]


def test_a_single_world_has_no_summary():
    assert over_worlds_section([entry(10, {"a": 2.0, "b": 2.1})]) == []
