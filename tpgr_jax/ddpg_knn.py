"""DDPG-KNN (Dulac-Arnold et al. 2015, the "Wolpertinger" architecture): the critic picks among the K nearest items."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from sim.errors import UserError
from sim.rating_env import RatingEnv
from sim.settings import Between, Count, OneOf
from tpgr_jax.encoder import make_encoder
from tpgr_jax.item_ddpg import ItemDdpg, ItemDdpgConfig, ItemDdpgPolicyConfig, ItemPolicy, make_item_networks


@dataclass(frozen=True)
class DdpgKnnPolicyConfig(ItemDdpgPolicyConfig):
    """Networks and neighbours (`conf/agent/ddpg_knn.yaml` explains each)."""

    k: Count | None
    k_fraction: Annotated[float, Between(above=0, most=1)] | None
    measure: Annotated[str, OneOf("euclidean", "inner")]

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the keys."""
        super().__post_init__()
        if (self.k is None) == (self.k_fraction is None):
            raise UserError(
                f"agent.policy.k is {self.k}, agent.policy.k_fraction is {self.k_fraction}",
                do="Give one of them and set the other to null.",
            )

    def neighbours(self, num_items: int) -> int:
        """Returns K for a catalogue of I items: k, at most I, or k_fraction * I rounded up."""
        if self.k is not None:
            return min(self.k, num_items)
        assert self.k_fraction is not None
        # Rounding keeps products such as 0.1 * 30 = 3.0000000000000004 whole.
        return math.ceil(round(self.k_fraction * num_items, 9))


def make_ddpg_knn(
    policy: DdpgKnnPolicyConfig, learner: ItemDdpgConfig, env: RatingEnv, episodes_per_step: int
) -> ItemDdpg:
    """Builds the learner for a simulator.

    Raises:
        UserError: The replay memory is smaller than what a training step plays.
    """
    item_policy = ItemPolicy(
        networks=make_item_networks(policy, make_encoder(policy, env.num_items)),
        neighbours=policy.neighbours(env.num_items),
        measure=policy.measure,
        action_noise=learner.action_noise,
        mask_recommended=not env.allow_repeats,
    )
    return ItemDdpg(env, item_policy, learner, episodes_per_step)
