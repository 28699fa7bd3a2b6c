"""Compiling for tests, where it takes far longer than running.

Measured on the training step of HRL-MG: 28 s of processor time by default, 13 s without optimisation, 6 s without the
emitters of fused operations as well.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import jax

UNFUSED = "--xla_cpu_use_fusion_emitters=false"
UNOPTIMISED = "--xla_backend_optimization_level=0"


@contextmanager
def compiled(optimised: bool) -> Iterator[None]:
    """Compiles as users' programs are, for what computes more than it compiles, or without most optimisations."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", not optimised)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def with_flag(flags: str, flag: str) -> str:
    """Returns a value of XLA_FLAGS with one more flag, if this version of XLA knows it (others would stop with it)."""
    if flag in flags:
        return flags
    more = f"{flags} {flag}".strip()
    probe = [sys.executable, "-c", "import jax; jax.devices()"]
    known = subprocess.run(probe, env=os.environ | {"XLA_FLAGS": more}, capture_output=True).returncode == 0
    return more if known else flags
