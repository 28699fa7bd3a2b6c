"""DDPG-KNN (Dulac-Arnold et al. 2015): the critic's favourite among the K items nearest to the actor's proto-action."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from harness.settings import Count, Finite, SettingError
from tpgr_jax.baselines.item_ddpg import ItemDdpgPolicyConfig, ItemDdpgSettings, build

__all__ = ["DdpgKnnPolicyConfig", "Settings", "build"]


@dataclass(frozen=True)
class DdpgKnnPolicyConfig(ItemDdpgPolicyConfig):
    """Networks and neighbours (`conf/agent/ddpg_knn.yaml` explains each)."""

    k: Count | None
    k_fraction: Annotated[Finite, Field(gt=0, le=1)] | None
    measure: Literal["euclidean", "inner"]

    def __post_init__(self) -> None:
        """Checks settings against each other; raises UserError naming the keys."""
        super().__post_init__()
        if (self.k is None) == (self.k_fraction is None):
            raise SettingError(
                f".k is {self.k}, .k_fraction is {self.k_fraction}",
                do="Give one of them and set the other to null.",
            )

    @property
    def nearness(self) -> str:
        """As set."""
        return self.measure

    def neighbours(self, num_items: int) -> int:
        """Returns K for a catalogue of I items: k, at most I, or k_fraction * I rounded up."""
        if self.k is not None:
            return min(self.k, num_items)
        assert self.k_fraction is not None
        # Rounding keeps products such as 0.1 * 30 = 3.0000000000000004 whole.
        return math.ceil(round(self.k_fraction * num_items, 9))


@dataclass(frozen=True)
class Settings(ItemDdpgSettings):
    """What `conf/agent/ddpg_knn.yaml` holds."""

    policy: DdpgKnnPolicyConfig
