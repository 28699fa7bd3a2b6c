"""`python -m harness.serving`: without what trains, drained by SIGTERM; and the mistakes of its command line."""

import asyncio
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from rating_exports import recommender_of
from serving_server import Client

from harness.errors import UserError
from harness.serving import serve as serving
from harness.serving.__main__ import read_words
from harness.serving.load_test import Load, post, put_under_load
from harness.serving.serve import TOKEN, ServeSettings
from harness.serving.server_process import ServerProcess
from sim.recommend import serve_command
from sim.recommend.export import write_export
from tpgr_jax.serve import Config

WITHOUT = """
import importlib.abc, sys
BLOCKED = "flax hydra omegaconf polars orbax optax chex sim tpgr_jax hrlmg_jax".split()

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
from harness.serving.__main__ import main
main()
"""


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "export"
    write_export(recommender_of("popularity"), str(folder), 5, True)
    return folder


def test_it_serves_without_what_trains_and_sigterm_waits_for_open_requests(export, tmp_path):
    server = ServerProcess(export, f"log={tmp_path}", command=[sys.executable, "-c", WITHOUT])
    client = Client(server.port)
    assert client("GET", "/health")[1]["status"] == "ok"
    want = client.lists(history=[[1, 5]], k=4)["items"]
    assert [item["item"] for item in want] == recommender_of("popularity").recommend([[(1, 5)]], 4).ids[0].tolist()

    # Connections ask until there is no server; what was asked before the signal is answered.
    statuses: list[Any] = []
    requests = [post("/recommend", {"history": [[1, 5]]})]

    def ask() -> None:
        load: list[Load | BaseException] = []

        async def until_it_ends() -> None:
            load.extend(await asyncio.gather(put_under_load(server.port, requests, 20, 4), return_exceptions=True))

        asyncio.run(until_it_ends())
        statuses.extend(load)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.5)
    code = server.end(signal.SIGTERM)
    thread.join(30)
    assert code in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    assert isinstance(statuses[0], OSError)  # nobody listens any more
    # Every decision that was logged had been asked for, and the log ends with a whole line.
    lines = [line for file in tmp_path.glob("*.jsonl") for line in file.read_text().splitlines()]
    assert len(lines) > 2
    assert all(line.endswith("}") for line in lines)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ([], "no model given"),
        (["model=a", "prot=1"], "'prot=1' is no setting"),
        (["model=a", "port=x"], "port is 'x'"),
        (["model=a", "port=70000"], "port is 70000"),
        (["model=a", "explore=2"], "explore is 2"),
        (["model=a", "log_mb=0"], "log_mb is 0"),
        (["model=a", "host=0.0.0.0"], f"(?s)no token is set.*{TOKEN}"),
    ],
)
def test_mistakes_are_told(words, match, monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)
    with pytest.raises(UserError, match=match):
        read_words(words)


def test_other_addresses_need_a_token(monkeypatch):
    monkeypatch.setenv(TOKEN, "long and random")
    assert read_words(["model=a,b", "host=0.0.0.0"]) == (["a", "b"], ServeSettings(host="0.0.0.0"))
    assert not ServeSettings(host="example.org").is_local
    assert ServeSettings(host="::1").is_local


def test_no_export_and_a_taken_address(export, tmp_path):
    with pytest.raises(UserError, match=r"(?s)no export.*tpgr_jax\.export"):
        ServerProcess(tmp_path)
    with serving.listen(ServeSettings(port=0)) as taken:
        taken.listen()
        with pytest.raises(UserError, match="cannot listen there"):
            serving.listen(ServeSettings(port=taken.getsockname()[1]))
        # Before any run is loaded.
        words = {
            "host": "127.0.0.1",
            "port": taken.getsockname()[1],
            "k": 3,
            "users": False,
            "log_mb": 1,
            "explore": 0.0,
        }
        nothing: dict[str, Any] = dict.fromkeys(("checkpoint", "log", "data_root", "data_cache", "data_path"))
        with pytest.raises(UserError, match="cannot listen there"):
            serve_command.serve_runs(Config(run="one", **nothing, **words), lambda _: 1 / 0)


def test_the_extra_is_asked_for_before_anything_is_read(monkeypatch):
    found = serving.importlib.util.find_spec
    monkeypatch.setattr(serving.importlib.util, "find_spec", lambda name: None if name == "httptools" else found(name))
    with pytest.raises(UserError, match=r"(?s)httptools is not installed.*tpgr-jax\[serve\]"):
        serving.listen(ServeSettings(port=0))


def test_runs_are_exported_and_served_by_the_same_server(monkeypatch):
    served: list[Any] = []

    def serve(settings: ServeSettings, sources: list[Any], listening: Any) -> None:
        assert listening.getsockname()[1] > 0
        for source in sources:
            source.refresh()
            served.append((settings.port, (source.folder / "model.json").is_file()))

    monkeypatch.setattr(serve_command, "serve", serve)
    loaded: list[Any] = []

    def load(settings: Config) -> Any:
        loaded.append(settings.run)
        return recommender_of("popularity")

    nothing: dict[str, Any] = dict.fromkeys(("checkpoint", "log", "data_root", "data_cache", "data_path"))
    settings = {"host": "127.0.0.1", "port": 0, "k": 3, "users": False, "log_mb": 1, "explore": 0.0}
    serve_command.serve_runs(Config(run="one, two", **nothing, **settings), load)
    assert served == [(0, True), (0, True)]
    assert loaded == ["one", "two"] * 2  # at the start, and when they were refreshed
