"""Compiled programs cached on disk, so that a command compiles only the first time."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

import jax

from harness.folders import CACHE_VARIABLE, named_folder

_SHORTEST_SECONDS = 0.5  # programs that compile faster are not worth a file


def keep_compiled_programs() -> None:
    """Points JAX's persistent compilation cache at a folder, unless the user has set one (JAX_COMPILATION_CACHE_DIR).

    The folder is `compiled` under TPGR_JAX_CACHE, else under the user's cache folder, with one subfolder per kind of
    processor: a program for one may use instructions that another lacks.

    Raises:
        UserError: TPGR_JAX_CACHE is not a folder.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    folder = named_folder(None, CACHE_VARIABLE, "", CACHE_VARIABLE)
    jax.config.update("jax_compilation_cache_dir", str(folder.absolute() / "compiled" / _processor()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _SHORTEST_SECONDS)


def _processor() -> str:
    """Names the instruction set of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:12]}"
