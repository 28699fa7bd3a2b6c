"""What `python -m tpgr_jax.serve` and `python -m hrlmg_jax.serve` do: runs are exported, and the exports served."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.serving.serve import ServeSettings, listen, serve
from harness.settings import Count, Integer, Share
from harness.training.stored_run import StoredRunConfig
from sim.recommend.export import write_export
from sim.recommend.recommender import Recommender

Stored = TypeVar("Stored", bound="ServeConfig")


@dataclass(frozen=True, kw_only=True)
class ServeConfig(StoredRunConfig):
    """Which runs are served, and where (`conf/serve.yaml` explains each)."""

    k: Count
    users: bool
    host: str
    port: Integer
    log: str | None
    log_mb: Count
    explore: Share

    @property
    def server(self) -> ServeSettings:
        """Where the server listens and what it keeps."""
        return ServeSettings(**{field.name: getattr(self, field.name) for field in dataclasses.fields(ServeSettings)})

    def each(self: Stored) -> list[Stored]:
        """Returns the same settings with each of the runs."""
        return [dataclasses.replace(self, run=run.strip()) for run in str(self.run).split(",")]


def serve_runs(settings: Stored, load: Callable[[Stored], Recommender]) -> None:
    """Serves runs until SIGTERM or Ctrl-C; a reload takes the newest checkpoint.

    Raises:
        UserError: No run, an address that is taken, or the extra `serve` is not installed.
    """
    server = settings.server  # what is refused is so before runs are loaded
    with listen(server) as listening, tempfile.TemporaryDirectory(prefix="served-") as place:
        folders = [Path(place) / str(number) for number in range(len(settings.each()))]

        def export_to(folder: Path, one: Stored) -> Callable[[], Any]:
            return lambda: write_export(load(one), str(folder), settings.k, settings.users)

        exports = [export_to(folder, one) for folder, one in zip(folders, settings.each(), strict=True)]
        for export in exports:
            export()
        serve(server, _sources(folders, exports), listening)


def _sources(folders: Sequence[Path], exports: Sequence[Callable[[], Any]]) -> list[Any]:
    from harness.serving.service import Source  # needs the extra only where it serves

    return [Source(folder, export) for folder, export in zip(folders, exports, strict=True)]
