"""The folder of an export: what may be in it, and how a new export takes its place."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import UserError
from harness.runs.run_folder import make_folder, writing
from harness.serving.exported import FILE_OF_EXPORT, MODEL_FILE


@contextmanager
def new_export(place: Path) -> Iterator[Path]:
    """Gives a temporary folder, which takes the place of an earlier export when the block ends without an error.

    Raises:
        UserError: There is something at the place that is neither an export nor an empty folder, or it cannot be
            written.
    """
    if place.exists() and not _may_be_replaced(place):
        raise UserError("is there and is no export", where=str(place), do="Choose another folder: out=FOLDER")
    make_folder(place.parent)
    with writing(place):
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.absolute().parent))
        try:
            yield temporary
            temporary.chmod(0o755)  # mkdtemp makes folders private
            _replace(place, temporary)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _may_be_replaced(place: Path) -> bool:
    """Whether a folder is empty or holds an export and nothing else; other programs have files `model.json` too."""
    if not place.is_dir():
        return False
    names = [file.name if file.is_file() else "" for file in place.iterdir()]
    if not all(name == MODEL_FILE or FILE_OF_EXPORT.fullmatch(name) for name in names):
        return False
    if not names:
        return True
    try:
        facts = json.loads((place / MODEL_FILE).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(facts, dict) and isinstance(facts.get("format"), int) and isinstance(facts.get("model"), str)


def _replace(place: Path, new: Path) -> None:
    if place.exists():
        old = new.with_name(f"{new.name}-old")
        place.rename(old)
        new.rename(place)
        shutil.rmtree(old, ignore_errors=True)
    else:
        new.rename(place)
