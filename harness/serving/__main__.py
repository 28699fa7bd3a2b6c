"""Serves exports: `python -m harness.serving model=FOLDER [KEY=VALUE ...]`.

Keys and their defaults: host=127.0.0.1, port=8080, log=FOLDER (none: nothing is kept), log_mb=4096, explore=0.
Several folders, with commas between them, are several policies.
"""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.serving.serve import ServeSettings, serve

_READ = {"port": int, "log_mb": int, "explore": float}


def read_words(words: list[str]) -> tuple[list[str], ServeSettings]:
    """Returns the folders of the models and the settings that a command line gives.

    Raises:
        UserError: An unknown key, a value that is none, or no model.
    """
    values: dict[str, Any] = {}
    keys = ["model", *(field.name for field in fields(ServeSettings))]
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or key not in keys:
            raise UserError(f"{word!r} is no setting", do=f"Settings are KEY=VALUE; keys: {', '.join(keys)}.")
        try:
            values[key] = _READ.get(key, str)(text)
        except ValueError:
            raise UserError(f"{key} is {text!r}", do=f"Give a number: {key}=NUMBER") from None
    models = values.pop("model", "")
    if not models:
        raise UserError("no model given", do="Name the folder of an export: model=FOLDER")
    return models.split(","), ServeSettings(**values)


def main() -> None:
    """Serves until it is stopped; a user's mistake is one message and exit code 2."""
    if any(word in ("-h", "--help") for word in sys.argv[1:]):
        print(__doc__)
        return
    try:
        from harness.serving.service import Source

        models, settings = read_words(sys.argv[1:])
        serve(settings, [Source(Path(model.strip()).expanduser()) for model in models])
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is not installed\n  Install fastapi, uvicorn and httptools.", file=sys.stderr)
        raise SystemExit(2) from None
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
