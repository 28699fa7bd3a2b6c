"""The networks of the learners once more, in float64 NumPy and one step after the other."""

from typing import Any

import numpy as np


def encode(params: Any, item: np.ndarray, reward: np.ndarray, status: np.ndarray) -> np.ndarray:
    """States [T, B, H + 9] of episodes [T, B] by the formulas of the simple recurrent unit."""
    kernel, bias = (np.asarray(params["gates"][name], np.float64) for name in ("kernel", "bias"))
    table = np.asarray(params["item_embedding"], np.float64)
    batch, size = item.shape[1], kernel.shape[1] // 4
    cell, states = np.zeros((batch, size)), [np.zeros((batch, size))]
    for t in range(len(item) - 1):
        bins = np.clip(10 - np.floor(np.round(5 * (1 - np.asarray(reward[t], np.float64)), 4)), 1, 10).astype(int) - 1
        x = np.concatenate([table[item[t]], np.eye(10)[bins], status[t + 1]], -1)
        candidate, forget, reset, skip = np.split(x @ kernel + bias, 4, -1)
        forget, reset = 1 / (1 + np.exp(-forget)), 1 / (1 + np.exp(-reset))
        cell = forget * cell + (1 - forget) * candidate
        states.append(reset * np.tanh(cell) + (1 - reset) * skip)
    return np.concatenate([np.stack(states), status], -1)


def dense(params: Any, inputs: np.ndarray) -> np.ndarray:
    """A linear layer."""
    return inputs @ np.asarray(params["kernel"], np.float64) + np.asarray(params.get("bias", 0.0), np.float64)


def relu(inputs: np.ndarray) -> np.ndarray:
    """max(x, 0)."""
    return np.maximum(inputs, 0)
