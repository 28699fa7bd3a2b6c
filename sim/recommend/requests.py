"""What a recommender is asked for: histories and filters as they are given, with ids, turned into indices."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from harness.errors import UserError
from sim.recommend.ids import Ids
from sim.recommend.system import History, System
from sim.tables.items import ItemTable

Unknown = Literal["error", "skip", "cold"]
_NO_ITEMS = np.zeros(0, np.int32)


class Request(NamedTuple):
    """One of the lists that are asked for.

    Attributes:
        label: Whose it is, for the result.
        history: What the user did before; None for a list that stays empty.
        session: What the user answered since the session began.
    """

    label: Any
    history: History | None
    session: History


class Filters(NamedTuple):
    """What may be recommended.

    Attributes:
        available: [I] bool, of all requests.
        excluded: [m] int32 items that are excluded from all requests, or one such array for each.
    """

    available: np.ndarray
    excluded: list[np.ndarray]


@dataclass(frozen=True, eq=False)
class Reader:
    """Looks up what is asked for in a run.

    Attributes:
        system: The run.
        source: The run folder, for messages.
        table: What the run knows of its items.
    """

    system: System
    source: str
    table: ItemTable | None = None

    @cached_property
    def users(self) -> Ids:
        """The users in the data."""
        return Ids(self.system.user_ids, "user", self.source)

    @cached_property
    def items(self) -> Ids:
        """All items in the data."""
        return Ids(self.system.item_ids, "item", self.source)

    def requests(
        self, histories: list[Any], sessions: Sequence[Any] | None, unknown: Unknown, notes: list[str]
    ) -> list[Request]:
        """Looks up users and items; ids that are not known are an error, or named in the notes."""
        if sessions is not None and len(sessions) != len(histories):
            raise UserError(f"{len(sessions)} sessions for {len(histories)} histories", do="Give one for each.")
        # Users by id.
        by_id = [i for i, history in enumerate(histories) if isinstance(history, (str, int, np.integer))]
        found = dict(zip(by_id, self.users.find([histories[i] for i in by_id]).tolist(), strict=True))
        strangers = [histories[i] for i, user in found.items() if user < 0]
        if strangers:
            if unknown == "error":
                raise self.users.refuse(strangers)
            notes.append(self.users.described(strangers))

        # Histories, and what came since.
        requests: list[Request] = []
        left_out: list[Any] = []
        nothing = self.read((), left_out)
        known = [user for user in found.values() if user >= 0]
        of_known = dict(zip(known, self.system.histories_of(known), strict=True))
        for i, given in enumerate(histories):
            history: History | None
            if i in found:
                stranger = None if unknown == "skip" else nothing
                history = of_known.get(found[i], stranger)
            else:
                history = given if isinstance(given, History) else self.read(given, left_out)
            session = nothing if sessions is None else self.read(sessions[i], left_out)
            requests.append(Request(self._label(i, given, found), history, session))
        if left_out:
            if unknown == "error":
                raise self.items.refuse(left_out)
            notes.append(self.items.described(left_out))
        return requests

    def _label(self, number: int, given: Any, found: dict[int, int]) -> Any:
        """Returns whose list it is: the user's id, or the number of a request with a history."""
        user = found.get(number, -1)
        return self.system.user_ids[user] if user >= 0 else given if number in found else number

    def read(self, pairs: Iterable[tuple[Any, Any]], left_out: list[Any]) -> History:
        """Looks up the items of (item, answer) pairs; those that are not known are left out."""
        try:
            entries = [(item, answer) for item, answer in pairs]
        except (TypeError, ValueError):
            raise UserError(
                "a history is a list of (item, answer)", do=f"An answer is {self.system.answer_kind}."
            ) from None
        items = [item for item, _ in entries]
        values = self.system.read_answers([answer for _, answer in entries])
        index = self.items.find(items)
        left_out += [item for item, place in zip(items, index.tolist(), strict=True) if place < 0]
        return History(index[index >= 0].astype(np.int32), values[index >= 0])

    def filters(
        self, answered: np.ndarray, number: int, allowed: Any, exclude: Any, at: Any, notes: list[str]
    ) -> Iterator[tuple[np.ndarray, Filters]]:
        """Yields requests (indices) with the filters that they share; `excluded` has an entry for each of them."""
        excluded = self._for_each(exclude, number, "exclude")
        if excluded is None:
            shared = _NO_ITEMS if exclude is None else self._known(exclude, "excluded", notes)
            of_request = [shared] * number
        else:
            of_request = [self._known(items, "excluded", notes) for items in excluded]
        masks = self._for_each(allowed, number, "allowed")
        in_stock = np.ones(self.system.num_items, bool) if at is None else self._available_at(at)
        groups: dict[tuple[Any, ...] | None, list[int]] = {}
        for i in answered.tolist():
            groups.setdefault(None if masks is None else tuple(masks[i]), []).append(i)
        for group, chosen in groups.items():
            available = in_stock
            items = allowed if group is None else group
            if items is not None:
                known = self._known(items, "allowed", notes)
                if not len(known):
                    raise UserError(
                        "none of the allowed items is one that the run can recommend",
                        where=self.source,
                        do="Allow items by the ids that the training data have.",
                    )
                available = np.zeros_like(in_stock)
                available[known] = in_stock[known]
            yield np.array(chosen), Filters(available, [of_request[i] for i in chosen])

    def _available_at(self, at: Any) -> np.ndarray:
        """Returns [I] bool, which items can be recommended at a moment by the dates of the item table."""
        if self.table is None or not self.table.has_dates:
            raise UserError(
                "the run knows no dates of its items",
                where=self.source,
                do="Leave out `at`, or train with an item table that has them (items.path and its columns).",
            )
        if not isinstance(at, (int, float, np.integer)):
            try:
                moment = datetime.datetime.fromisoformat(str(at))
            except ValueError:
                raise UserError(f"at is {at!r}", do="Give a date, such as 2024-05-31 or 2024-05-31 12:00.") from None
            at = moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()
        return self.table.available_at(int(at))[: self.system.num_items]

    def _for_each(self, items: Any, number: int, name: str) -> list[Any] | None:
        """Returns lists of items of each request; None if there is one list for all, or none."""
        if items is None or not len(items) or isinstance(items[0], (str, int, np.integer)):
            return None
        if len(items) != number:
            raise UserError(f"{name} has {len(items)} lists for {number} histories", do="Give one for each, or one.")
        return list(items)

    def _known(self, items: Sequence[Any], which: str, notes: list[str]) -> np.ndarray:
        """Returns the items that can be recommended; the others are named in the notes."""
        index = self.items.find(items)
        known = (index >= 0) & (index < self.system.num_items)
        others = [item for item, is_known in zip(items, known.tolist(), strict=True) if not is_known]
        if others:
            notes.append(f"{which}: {self.items.described(others)}")
        return np.unique(index[known]).astype(np.int32)
