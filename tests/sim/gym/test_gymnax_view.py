"""The interface of gymnax 1.0: its signatures, episodes that start anew, scans."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_worlds import ITEMS, LENGTH, rating_world, session_world

from sim.gym.gymnax_view import GymnaxView

SIGNATURES = {
    "reset": ["key", "params"],
    "step": ["key", "state", "action", "params"],
    "reset_env": ["key", "params"],
    "step_env": ["key", "state", "action", "params"],
    "action_space": ["params"],
    "observation_space": ["params"],
}
"""Of `gymnax.environments.environment.Environment`, version 1.0.1."""


@pytest.fixture(params=[rating_world, session_world], ids=["ratings", "sessions"])
def env(request) -> GymnaxView:
    return GymnaxView(request.param())


def test_its_signatures_are_those_of_gymnax(env):
    for name, parameters in SIGNATURES.items():
        assert list(inspect.signature(getattr(env, name)).parameters) == parameters
    try:
        from gymnax.environments.environment import Environment
    except ImportError:
        return
    for name, parameters in SIGNATURES.items():
        assert list(inspect.signature(getattr(Environment, name)).parameters)[1:] == parameters


def test_episodes_start_anew(env):
    observation, state = env.reset(jax.random.key(0))
    assert bool(env.observation_space().contains(observation))
    for step in range(1, 2 * LENGTH + 1):
        before = np.asarray(observation["items"])
        item = int(jnp.argmax(env.action_mask(observation)))
        assert item not in before
        observation, state, reward, terminated, truncated, info = env.step(jax.random.key(step), state, item)
        ended = step % LENGTH == 0
        assert bool(terminated) is False
        assert bool(truncated) is bool(info["truncated"]) is ended
        assert int(observation["step"][0]) == step % LENGTH
        assert int(info["final_observation"]["step"][0]) == (LENGTH if ended else step % LENGTH)
        assert int(info["final_observation"]["items"][(step - 1) % LENGTH]) == item
        assert reward.dtype == jnp.float32
    assert env.num_actions == env.action_space().n == ITEMS


def test_a_batch_of_episodes_is_one_program(env):
    params = env.default_params

    @jax.jit
    def play(key, params):
        reset_key, key = jax.random.split(key)
        begun = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(reset_key, 3), params)

        def step(carry, key):
            observation, state = carry
            action_key, key = jax.random.split(key)
            logits = jnp.where(jax.vmap(env.action_mask)(observation), 0.0, -jnp.inf)
            action = jax.random.categorical(action_key, logits)
            *carry, reward, _, truncated, info = jax.vmap(env.step, in_axes=(0, 0, 0, None))(
                jax.random.split(key, 3), state, action, params
            )
            return tuple(carry), (reward, truncated, info["repeated"])

        return jax.lax.scan(step, begun, jax.random.split(key, 3 * LENGTH))[1]

    reward, truncated, repeated = play(jax.random.key(1), params)
    assert reward.shape == (3 * LENGTH, 3)
    assert np.flatnonzero(truncated.all(1)).tolist() == [LENGTH - 1, 2 * LENGTH - 1, 3 * LENGTH - 1]
    assert not repeated.any()
    assert float(jnp.abs(reward).sum()) > 0


def test_a_step_without_a_new_episode(env):
    _, state = env.reset(jax.random.key(0))
    for item in range(LENGTH):
        observation, state, *_, truncated, _ = env.step_env(jax.random.key(item), state, item, env.default_params)
    assert bool(truncated)
    assert observation["items"].tolist() == list(range(LENGTH))


def test_spaces(env):
    drawn = env.observation_space().sample(jax.random.key(0))
    assert drawn.keys() == env.observation_space().spaces.keys()
    assert bool(env.observation_space().contains(drawn))
    assert not bool(env.observation_space().contains({**drawn, "items": drawn["items"] + ITEMS + 1}))
    actions = jax.vmap(env.action_space().sample)(jax.random.split(jax.random.key(0), 200))
    assert sorted(set(actions.tolist())) == list(range(ITEMS))
    assert bool(env.action_space().contains(0))
    assert not bool(env.action_space().contains(ITEMS))
