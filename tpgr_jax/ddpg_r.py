"""DDPG-R (Zhao et al. 2018a): the actor's output is a weight vector w, the item of the highest score w.e is taken.

That is DDPG-KNN with one neighbour by inner product: the critic has no say in what is recommended.
"""

from __future__ import annotations

from sim.rating_env import RatingEnv
from tpgr_jax.encoder import make_encoder
from tpgr_jax.item_ddpg import ItemDdpg, ItemDdpgConfig, ItemDdpgPolicyConfig, ItemPolicy, make_item_networks


def make_ddpg_r(
    policy: ItemDdpgPolicyConfig, learner: ItemDdpgConfig, env: RatingEnv, episodes_per_step: int
) -> ItemDdpg:
    """Builds the learner for a simulator.

    Raises:
        UserError: The replay memory is smaller than what a training step plays.
    """
    item_policy = ItemPolicy(
        networks=make_item_networks(policy, make_encoder(policy, env.num_items)),
        neighbours=1,
        measure="inner",
        action_noise=learner.action_noise,
        mask_recommended=not env.allow_repeats,
    )
    return ItemDdpg(env, item_policy, learner, episodes_per_step)
