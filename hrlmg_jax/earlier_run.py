"""Training that starts from an earlier run's item vectors and networks, on a newer log (`init_from`)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import UserError
from harness.runs.run_folder import read_arrays
from harness.training import earlier_run
from hrlmg_jax.user_model.item_embedding import EmbeddingConfig, turned_towards
from sim.tables.events import EventLog

_SIMULATOR = "simulator.npz"
_LEVELS = ("low", "high")


@dataclass(frozen=True)
class EarlierRun(earlier_run.EarlierRun):
    """A run on a log that another one starts from.

    Networks read and write item vectors, and the factorisation of a newer log does not say how these are turned: they
    are turned towards this run's, whose networks then mean by them what they meant before.

    Attributes:
        embedding: [J', E] float32 its item vectors.
    """

    embedding: np.ndarray

    @property
    def checksum(self) -> str:
        """Of what the present item vectors depend on."""
        arrays = self.source, self.embedding
        return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()

    def turned(self, config: EmbeddingConfig, embedding: np.ndarray) -> np.ndarray:
        """Returns [J, E] item vectors of the newer log, turned so that known items are nearest to where they were.

        Raises:
            UserError: The run's vectors have another size.
        """
        if self.embedding.shape[1] != embedding.shape[1]:
            raise UserError(
                f"its item vectors have {self.embedding.shape[1]} dimensions, this run's {embedding.shape[1]}",
                where=str(self.folder.path),
                do=f"Set simulator.embedding.size={self.embedding.shape[1]}.",
            )
        known = np.flatnonzero(self.source >= 0)
        return turned_towards(config, embedding, known, self.embedding[self.source[known]])

    def carry_over(self, levels: dict[str, Any]) -> dict[str, Any]:
        """Returns the parameters of each level ("low", and "high" if there is one) from the run's newest checkpoint.

        Raises:
            UserError: There is no readable checkpoint, or its networks have another shape.
        """
        state = self.state()
        stored = {level: (state.get(level) or {}).get("params") for level in _LEVELS}
        carried: dict[str, Any] = self.matched(levels, stored, "agent.network, agent.goals and simulator.embedding")
        return carried


def read_earlier_run(path: str, agent: str, log: EventLog) -> EarlierRun:
    """Matches the items of a run with those of a newer log.

    Raises:
        UserError: No run folder, another agent's, or the two have no items in common.
    """
    ids = np.asarray(log.item_ids), np.asarray(log.user_ids)
    run = earlier_run.read_earlier_run(path, agent, log.name, *ids)
    embedding = read_arrays(run.folder.path / _SIMULATOR, ("embedding",))["embedding"]
    return EarlierRun(run.folder, run.source, run.num_vanished, run.num_known_users, embedding)
