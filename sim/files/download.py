"""Downloads of data archives: https only, checksum required, progress shown, never a half-written file."""

from __future__ import annotations

import re
from pathlib import Path

from harness.errors import UserError

_TIMEOUT_SECONDS = 30


class DownloadError(UserError):
    """The file could not be fetched: no network, the server refuses, or there is nowhere to write it."""


def check_checksum(checksum: str, where: str) -> None:
    """Raises UserError unless `checksum` is "sha256:" and 64 or "md5:" and 32 hexadecimal digits."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", checksum):
        raise UserError(f"{checksum!r} is not a checksum", where=where, do="Write sha256:... or md5:... in lower case.")


def check_address(url: str, where: str) -> None:
    """Raises UserError unless `url` is an https address."""
    if not re.fullmatch(r"https://[^/\s]+/\S*", url):
        raise UserError(f"{url!r} is not an https address", where=where, do="Only https downloads are accepted.")


def download(url: str, checksum: str, target: Path, *, progress: bool = True) -> Path:
    """Fetches `url` to `target`; pooch writes to a temporary name, checks the file and renames it into place.

    Args:
        url: An https address.
        checksum: "sha256:..." or "md5:..." of the file.
        target: Path of the file; its folders are created.
        progress: Whether to show a progress bar on stderr.

    Returns:
        `target`.

    Raises:
        UserError: The address is not https, the checksum differs (nothing is kept then), or the file cannot be stored.
        DownloadError: The file cannot be fetched.
    """
    check_address(url, "url")
    check_checksum(checksum, "checksum")
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # A redirect to plain http would be harmless: the checksum decides what is kept.
        fetch = pooch.HTTPDownloader(progressbar=progress, timeout=_TIMEOUT_SECONDS)
        pooch.retrieve(url, known_hash=checksum, fname=target.name, path=target.parent, downloader=fetch)
    except requests.RequestException as error:
        raise DownloadError(_reason(error), where=url, do=_by_hand(url, target)) from None
    except ValueError as error:
        if "hash" not in str(error):
            raise
        raise UserError(
            "the downloaded file does not have the expected checksum; it was removed",
            where=url,
            do=f"Try again; if it stays so, the file at the address has changed. Expected {checksum}.",
        ) from None
    except OSError as error:
        reason = f"cannot be stored as {target} ({error.strerror or error})"
        raise UserError(reason, where=url, do="Set data.root to a folder with space that can be written.") from None
    return target


def _reason(error: Exception) -> str:
    """Returns briefly why a request failed."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"cannot be downloaded (the server answers {response.status_code})"
    return f"cannot be downloaded ({type(error).__name__}: no network?)"


def _by_hand(url: str, target: Path) -> str:
    return f"Check the network, or download {url} on another machine and store it as {target}."
