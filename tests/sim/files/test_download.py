"""Downloads: only https, only with the right checksum, and nothing half-written stays behind."""

import hashlib

import pooch
import pytest
import requests

from harness.errors import UserError
from sim.files.download import DownloadError, download

URL = "https://example.org/set.zip"
CONTENT = b"ratings"
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


def serve(monkeypatch, content: bytes = CONTENT, error: Exception | None = None) -> list[str]:
    """Replaces pooch's downloader; returns the list of addresses asked for."""
    asked: list[str] = []

    def fetch(url, output_file, _):
        asked.append(url)
        with open(output_file, "wb") as file:
            file.write(content[: len(content) // 2] if error else content)
        if error:
            raise error

    monkeypatch.setattr(pooch, "HTTPDownloader", lambda **_: fetch)
    return asked


@pytest.mark.parametrize("checksum", [CHECKSUM, f"md5:{hashlib.md5(CONTENT).hexdigest()}"])
def test_a_download_arrives_whole(tmp_path, monkeypatch, checksum):
    asked = serve(monkeypatch)
    target = tmp_path / "new" / "set.zip"
    assert download(URL, checksum, target) == target
    assert asked == [URL]
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_a_wrong_checksum_leaves_nothing(tmp_path, monkeypatch):
    serve(monkeypatch, b"something else")
    with pytest.raises(UserError, match="expected checksum; it was removed") as caught:
        download(URL, CHECKSUM, tmp_path / "set.zip")
    assert not isinstance(caught.value, DownloadError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (requests.ConnectionError("no route"), "no network"),
        (requests.Timeout("slow"), "no network"),
        (requests.exceptions.ChunkedEncodingError("cut"), "cannot be downloaded"),
    ],
)
def test_a_failed_download_says_why_and_leaves_nothing(tmp_path, monkeypatch, error, reason):
    serve(monkeypatch, error=error)
    with pytest.raises(DownloadError, match=reason) as caught:
        download(URL, CHECKSUM, tmp_path / "set.zip")
    assert caught.value.where == URL
    assert list(tmp_path.iterdir()) == []


def test_the_servers_refusal_is_shown(tmp_path, monkeypatch):
    response = requests.Response()
    response.status_code = 404
    serve(monkeypatch, error=requests.HTTPError("gone", response=response))
    with pytest.raises(DownloadError, match="the server answers 404"):
        download(URL, CHECKSUM, tmp_path / "set.zip")


@pytest.mark.parametrize(
    "url", ["http://example.org/a.zip", "ftp://example.org/a", "file:///etc/passwd", "https:/x", ""]
)
def test_only_https_is_accepted(tmp_path, monkeypatch, url):
    asked = serve(monkeypatch)
    with pytest.raises(UserError, match="not an https address"):
        download(url, CHECKSUM, tmp_path / "a.zip")
    assert asked == []


@pytest.mark.parametrize("checksum", ["", "abc", "sha256:12", "crc:00000000"])
def test_a_checksum_is_required(tmp_path, monkeypatch, checksum):
    asked = serve(monkeypatch)
    with pytest.raises(UserError, match="is not a checksum"):
        download(URL, checksum, tmp_path / "a.zip")
    assert asked == []


def test_what_cannot_be_stored_is_no_lack_of_network(tmp_path, monkeypatch):
    """Only a lack of network may lead to generated data in place of the real ones."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be stored") as caught:
        download(URL, CHECKSUM, tmp_path / "file" / "set.zip")
    assert not isinstance(caught.value, DownloadError)
    serve(monkeypatch, error=OSError(28, "No space left on device"))
    with pytest.raises(UserError, match="No space left on device") as caught:
        download(URL, CHECKSUM, tmp_path / "set.zip")
    assert not isinstance(caught.value, DownloadError)
