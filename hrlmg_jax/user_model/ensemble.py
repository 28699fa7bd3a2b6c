"""simulator.members: fits of one kind of learned users that differ in their seed, and agree where the log is plain.

The user of a session is one member's, whoever that is for the session's number. The other members follow the session
with their own states, so that it is known at each step how far they disagree about an item. Where they do, the log has
told little, and a policy that is trained with `simulator.pessimism` is paid less.

Members draw their users for themselves, so that the disagreement is also about who the user is.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from harness.runs.run_folder import RunFolder, make_folder
from hrlmg_jax.user_model.settings import FitConfig
from hrlmg_jax.user_model.user_model import UserModel
from sim.datasets.sessions import SessionData
from sim.envs.histories import Histories
from sim.tables.events import CLICK, ORDER


@flax.struct.dataclass
class Members:
    """What K members have, parameters or what `initial` reads in sessions, `stacked` along axis 0."""

    stacked: Any

    @property
    def embedding(self) -> jax.Array:
        """[J, E] item vectors, which all members share."""
        embedding: jax.Array = self.stacked.embedding[0]
        return embedding


@flax.struct.dataclass
class EnsembleUser:
    """One user in a session.

    Attributes:
        member: int32, whose user it is.
        states: The hidden states of all members, stacked.
    """

    member: jax.Array
    states: Any


@dataclass(frozen=True)
class Ensemble:
    """The ensemble as a `UserModel`.

    Attributes:
        model: Of the members.
        size: K.
        pessimism: Standard deviations over the members that are taken off the chances of clicks and orders.
    """

    model: UserModel
    size: int
    pessimism: float = 0.0

    def initial(self, params: Members, start: jax.Array) -> EnsembleUser:
        """Returns the user of a session, as it begins."""
        states = jax.vmap(lambda member: self.model.initial(member, start))(params.stacked)
        return EnsembleUser(jnp.asarray(start, jnp.int32) % self.size, states)

    def probabilities(self, params: Members, hidden: EnsembleUser, histories: Histories, item: jax.Array) -> jax.Array:
        """Returns [3] probabilities of skip, click and order: the member's own, less what pessimism takes off."""
        every = self._of_members(params, hidden, histories, item)
        if not self.pessimism:
            return every[hidden.member]
        likely = jnp.maximum(_chances(every[hidden.member]) - self.pessimism * jnp.std(_chances(every), 0), 0)
        click, order = likely[0], jnp.minimum(likely[0], likely[1])
        return jnp.stack([1 - click, click - order, order])

    def disagreement(self, params: Members, hidden: EnsembleUser, histories: Histories, item: jax.Array) -> jax.Array:
        """Returns [2] the standard deviations over members of the chances of a click (or order) and of an order."""
        return jnp.std(_chances(self._of_members(params, hidden, histories, item)), 0)

    def update(self, params: Members, hidden: EnsembleUser, item: jax.Array, feedback: jax.Array) -> EnsembleUser:
        """Returns the user after an answer, as every member sees it."""

        def of_member(member: Any, state: Any) -> Any:
            return self.model.update(member, state, item, feedback)

        return dataclasses.replace(hidden, states=jax.vmap(of_member)(params.stacked, hidden.states))

    def fit(self, config: FitConfig, data: SessionData, embedding: np.ndarray, folder: RunFolder) -> Members:
        """Fits the members one after another, each in a folder of its own."""
        members = []
        for number in range(self.size):
            print(f"member {number + 1} of {self.size}", file=sys.stderr)
            own = RunFolder(folder.path / f"member_{number}")
            make_folder(own.path)
            # Who is held out is decided already: the seed is of the fit alone.
            seeded = dataclasses.replace(config.simulator, seed=config.simulator.seed + number)
            members.append(self.model.fit(dataclasses.replace(config, simulator=seeded), data, embedding, own))
        return _stacked(members)

    def shapes(self, num_items: int, embedding_size: int) -> Members:
        """Returns parameters with shapes in place of arrays."""

        def several(shape: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((self.size, *shape.shape), shape.dtype)

        return Members(jax.tree.map(several, self.model.shapes(num_items, embedding_size)))

    def in_sessions(self, params: Members, data: SessionData, rows: np.ndarray) -> Members:
        """Returns what `initial` reads in sessions that begin at rows [S] of the log."""
        return self._by_member(params, lambda member: self.model.in_sessions(member, data, rows))

    def of_strangers(self, params: Members, number: int) -> Members:
        """Returns what `initial` reads in sessions of users of whom nothing is known."""
        return self._by_member(params, lambda member: self.model.of_strangers(member, number))

    def predict(self, params: Members, data: SessionData, rows: np.ndarray, history_length: int) -> np.ndarray:
        """Returns [r, 3] probabilities at rows of the log: the mean of the members', as any of them may be the user."""
        members = (self._member(params, number) for number in range(self.size))
        return np.mean([self.model.predict(member, data, rows, history_length) for member in members], 0)

    def findings(self, params: Members) -> list[str]:
        """Returns what any member has found out."""
        members = (self._member(params, number) for number in range(self.size))
        return list(dict.fromkeys(said for member in members for said in self.model.findings(member)))

    def _of_members(self, params: Members, hidden: EnsembleUser, histories: Histories, item: jax.Array) -> jax.Array:
        """Returns [K, 3] probabilities."""

        def of_member(member: Any, state: Any) -> jax.Array:
            return self.model.probabilities(member, state, histories, item)

        return jax.vmap(of_member)(params.stacked, hidden.states)

    def _member(self, params: Members, number: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[number], params.stacked)

    def _by_member(self, params: Members, make: Callable[[Any], Any]) -> Members:
        return _stacked([make(self._member(params, number)) for number in range(self.size)])


def _stacked(members: list[Any]) -> Members:
    return Members(jax.tree.map(lambda *leaves: jnp.stack(leaves), *members))


def _chances(probabilities: jax.Array) -> jax.Array:
    """Returns [..., 2] the chances of a click (or order) and of an order from [..., 3] probabilities."""
    return jnp.stack([probabilities[..., CLICK] + probabilities[..., ORDER], probabilities[..., ORDER]], -1)
