"""Users' answers as codes: products with any function of them, of which only the codes are kept.

Every channel of an answer (whether it is a rating, whether it is positive, ...) is a function of its code. With one
column per code and item, V x I in all, an answer is a single 1, so that a product with all channels goes through the
answers once, some users at a time, whatever the channels are.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse

from sim.tables.ratings import RatingData

_PARTS = 8  # of the users, summed in their order: the number of cores changes no sum
_ANSWERS_AT_A_TIME = 2**20


@dataclass(frozen=True)
class CodedRewards:
    """Empirical rewards of n users, and what else their codes tell.

    Attributes:
        rewards: [V] float64 empirical reward of each code.
        columns: [R] code * I + item of each answer, user by user.
        indptr: [n + 1] where each user's answers begin, of the type of `columns`.
        num_items: I.
    """

    rewards: np.ndarray
    columns: np.ndarray
    indptr: np.ndarray
    num_items: int

    @property
    def num_users(self) -> int:
        """N."""
        return len(self.indptr) - 1

    @cached_property
    def counts(self) -> np.ndarray:
        """[V, I] float64 how many users gave each item each code."""
        counts = np.zeros(len(self.rewards) * self.num_items)
        for first in range(0, len(self.columns), _ANSWERS_AT_A_TIME):
            counts += np.bincount(self.columns[first : first + _ANSWERS_AT_A_TIME], minlength=len(counts))
        return counts.reshape(len(self.rewards), -1)

    def second_moments(self, write: np.ndarray, read: np.ndarray, vector: np.ndarray) -> np.ndarray:
        """Returns [D, I] float64 sum_u w_u (r_u . vector), with users' channels r_u [C, I] and w_u [D, I].

        Args:
            write: [D, V] value of each code in the channels w.
            read: [C, V] in the channels r.
            vector: [C, I].
        """
        per_column = (read.T @ vector).reshape(-1)

        def sum_of(part: np.ndarray) -> np.ndarray:
            total = np.zeros(len(per_column))
            for block in self._blocks(part):
                total += block.T @ (block @ per_column)
            return total

        with ThreadPoolExecutor() as pool:  # SciPy's products do not hold the interpreter's lock
            total = sum(pool.map(sum_of, np.array_split(np.arange(self.num_users), _PARTS)))
        return write @ np.reshape(total, (len(self.rewards), -1))

    def _blocks(self, users: np.ndarray) -> Iterator[scipy.sparse.csr_array]:
        """Yields the answers of successive users as ones in [users, V * I], which share the ones."""
        ones = self._ones
        while len(users):
            begin = self.indptr[users[0]]
            number = max(1, int(np.searchsorted(self.indptr[users + 1], begin + _ANSWERS_AT_A_TIME, "right")))
            indptr = self.indptr[users[0] : users[0] + number + 1] - begin
            columns = self.columns[begin : begin + indptr[-1]]
            shape = (number, len(self.rewards) * self.num_items)
            yield scipy.sparse.csr_array((ones[: len(columns)], columns, indptr), shape)
            users = users[number:]

    @cached_property
    def _ones(self) -> np.ndarray:
        most_of_one_user = int(np.diff(self.indptr).max(initial=0))
        return np.ones(min(len(self.columns), max(_ANSWERS_AT_A_TIME, most_of_one_user)))


def code_ratings(data: RatingData, users: np.ndarray, reward_of_code: np.ndarray) -> CodedRewards:
    """Returns the answers of (training) users, [n] in ascending order.

    Args:
        data: Ratings of all users.
        users: Whose answers.
        reward_of_code: [V] empirical reward of each rating code.
    """
    lengths = np.diff(data.indptr)
    kept = np.zeros(data.num_users, bool)
    kept[users] = True
    rows = np.repeat(kept, lengths)
    index_type = _index_type(len(reward_of_code) * data.num_items, int(rows.sum()))
    columns = data.items[rows].astype(index_type, copy=False)
    columns += np.multiply(data.codes[rows], data.num_items, dtype=index_type)
    indptr = np.concatenate([[0], np.cumsum(lengths[users])]).astype(index_type)
    rewards = np.asarray(reward_of_code, np.float32).astype(np.float64)  # as in all tables of rewards
    return CodedRewards(rewards, columns, indptr, data.num_items)


def code_rewards(rewards: scipy.sparse.csr_array) -> CodedRewards:
    """Returns the answers that a sparse [n, I] matrix of few different empirical rewards holds."""
    values, codes = np.unique(rewards.data, return_inverse=True)
    index_type = _index_type(len(values) * rewards.shape[1], rewards.nnz)
    columns = rewards.indices + codes.astype(index_type) * rewards.shape[1]
    return CodedRewards(
        values.astype(np.float64), columns.astype(index_type), rewards.indptr.astype(index_type), rewards.shape[1]
    )


def _index_type(num_columns: int, num_answers: int) -> type[np.signedinteger]:
    return np.int32 if max(num_columns, num_answers) < 2**31 else np.int64
