"""An agent that learns nothing, for tests of the outer loop."""

import jax
import jax.numpy as jnp

from harness.training.agent import Agent


def noisy_counter(broken_at: int = -1) -> Agent:
    """Adds a random number per step; its metric becomes NaN at one step."""

    def train_step(state, world):
        noise = jax.random.normal(jax.random.fold_in(state["key"], state["step"]))
        reward = jnp.where(state["step"] == broken_at, jnp.nan, noise + world)
        state = {"total": state["total"] + noise, "step": state["step"] + 1, "key": state["key"]}
        return state, {"reward": reward, "entropy_0": noise}

    def init(key, world):
        return {"total": jnp.float32(0), "step": jnp.int32(0), "key": key}

    return Agent(init, lambda state: state | {"total": state["total"] + 100}, train_step, jnp.float32(1), 4)
