"""DDPG-R: the actor's vector ranks the items, the one of the largest inner product is recommended."""

from __future__ import annotations

from dataclasses import dataclass

from tpgr_jax.baselines.item_ddpg import ItemDdpgSettings, build

__all__ = ["Settings", "build"]


@dataclass(frozen=True)
class Settings(ItemDdpgSettings):
    """What `conf/agent/ddpg_r.yaml` holds."""
