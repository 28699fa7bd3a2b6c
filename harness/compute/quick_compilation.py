"""Compiling sooner what runs for a short time only."""

from __future__ import annotations

import os
from typing import Any

import jax

_OPTION = "xla_backend_optimization_level"


def quick_compilation() -> dict[str, Any]:
    """Returns compiler options (`jax.jit(compiler_options=...)`) of less optimisation, on a CPU.

    None elsewhere, nor where the user has chosen (in XLA_FLAGS, or by `jax_disable_most_optimizations`).

    Of the fit of latent users compiling takes 14 s instead of 25, and a step as long as before; a training step of
    HRL-MG takes 1.2 times as long.
    """
    chosen = jax.config.read("jax_disable_most_optimizations") or _OPTION in os.environ.get("XLA_FLAGS", "")
    return {_OPTION: 1} if jax.default_backend() == "cpu" and not chosen else {}
