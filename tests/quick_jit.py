"""Compiling for tests, where it takes far longer than running."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax

# Measured on the training step of HRL-MG: 28 s of CPU time by default, 13 s with the first option, 6 s with both.
_OPTIONS: tuple[dict[str, Any], ...] = (
    {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False},
    {"xla_backend_optimization_level": 0},
    {},
)


def quick_jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` with as little optimisation as this version of XLA lets one ask for."""
    return jax.jit(function, compiler_options=_options())


@functools.cache
def quick_flags() -> str:
    """The same for XLA_FLAGS of other processes; the ones that this version of XLA knows (others would stop it)."""
    for options in _OPTIONS:
        flags = " ".join(f"--{name}={str(value).lower()}" for name, value in options.items())
        probe = [sys.executable, "-c", "import jax; jax.devices()"]
        if subprocess.run(probe, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True).returncode == 0:
            return flags
    return ""


@functools.cache
def _options() -> dict[str, Any]:
    for options in _OPTIONS:
        try:
            jax.jit(lambda: 0, compiler_options=options)()
        except jax.errors.JaxRuntimeError:  # an option that this version does not know
            continue
        return options
    return {}
