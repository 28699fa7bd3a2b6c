"""Where data sets and caches are kept unless a setting says otherwise."""

from __future__ import annotations

import os
from pathlib import Path

from harness.errors import UserError

ROOT_VARIABLE = "TPGR_JAX_DATA"
CACHE_VARIABLE = "TPGR_JAX_CACHE"


def named_folder(configured: str | None, variable: str, default: str, key: str) -> Path:
    """Returns the configured folder, else that of the environment variable, else one in the user's cache folder."""
    named = configured or os.environ.get(variable)
    if named:
        folder = Path(named).expanduser()
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is not a folder", where=key if configured else variable, do="Name a folder.")
        return folder
    import pooch

    return Path(pooch.os_cache("tpgr_jax")) / default
