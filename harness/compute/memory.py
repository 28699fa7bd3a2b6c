"""How much memory arrays take, and what a process that is done with something large gives back."""

from __future__ import annotations

import ctypes
import gc
import math
from typing import Any

import jax


def size_of(arrays: Any) -> int:
    """Returns the bytes of a pytree of arrays, or of shapes that stand for them."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(arrays))


def return_free_memory() -> None:
    """Gives the system what this process has freed, such as the compiler's gigabyte; glibc would keep it for later."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if trim is not None:
        trim(0)
