"""What `python -m tpgr_jax.export` and `python -m hrlmg_jax.export` do."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import UserError
from harness.settings import Count
from harness.training.stored_run import StoredRunConfig
from sim.recommend.export import write_export
from sim.recommend.recommender import Recommender


@dataclass(frozen=True, kw_only=True)
class ExportConfig(StoredRunConfig):
    """Which run is exported, and where to (`conf/export.yaml` explains each)."""

    out: str | None
    k: Count
    users: bool

    def __post_init__(self) -> None:
        """Checks values; raises UserError naming the key."""
        super().__post_init__()
        if self.out is None:
            raise UserError("no folder given", do="Name one for the export: out=FOLDER")


def export_run(settings: ExportConfig, recommender: Recommender) -> None:
    """Writes the export and says what it is.

    Raises:
        UserError: The folder holds something else, or cannot be written.
    """
    assert settings.out is not None
    model = write_export(recommender, settings.out, settings.k, settings.users)
    programs = model["programs"]["recommend"]
    batches = "batches of any size" if "any" in programs else f"batches of {', '.join(programs)}"
    print(
        f"written: {settings.out}, {model['method']} as model {model['model']}: at most {model['k']} items, {batches}"
    )
    print(f"  python -m harness.serving model={settings.out}               serves it")
