"""Two workers and a balancer: the files name each other, what the server takes, and nothing that is not there."""

import json
import re
from pathlib import Path
from typing import Any

import crossplane
import pytest
import yaml

from harness.serving.__main__ import read_words
from harness.serving.app import MOST_BYTES
from harness.serving.serve import TOKEN

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


@pytest.fixture
def services() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


def dockerfile() -> list[tuple[str, str]]:
    """Instructions and what follows them; lines that go on are joined."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in text.splitlines() if line.strip()]


def test_the_image_has_what_is_copied_and_starts_what_the_server_takes(monkeypatch):
    instructions = dockerfile()
    assert {name for name, _ in instructions} <= {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "CMD"}
    for name, words in instructions:
        if name == "COPY":
            assert all((ROOT / source).exists() for source in words.split()[:-1])
    command = json.loads(dict(instructions)["CMD"])
    assert command[:3] == ["python", "-m", "harness.serving"]
    monkeypatch.setenv(TOKEN, "a token")
    models, settings = read_words(command[3:])
    assert (models, settings.host, settings.port) == (["/model"], "0.0.0.0", int(dict(instructions)["EXPOSE"]))
    assert dict(instructions)["USER"] not in ("root", "0")
    pinned = (ROOT / "constraints.txt").read_text()
    installed = next(words for name, words in instructions if name == "RUN").split("constraints.txt")[1].split("&&")[0]
    assert all(re.search(rf"^{package}==", pinned, re.MULTILINE) for package in installed.split())


def test_two_workers_share_a_log_and_need_a_token(services):
    workers = [services[name] for name in ("worker_a", "worker_b")]
    assert workers[0] == workers[1]
    assert TOKEN in workers[0]["environment"]
    assert ":?" in workers[0]["environment"][TOKEN]  # compose refuses to start without one
    assert {volume.split(":")[-1 if volume.endswith("log") else -2] for volume in workers[0]["volumes"]} == {
        "/model",
        "/log",
    }
    assert (ROOT / "deploy" / workers[0]["build"]["context"] / workers[0]["build"]["dockerfile"]).is_file()
    assert "/health" in workers[0]["healthcheck"]["test"][-1]


def test_the_balancer_knows_both_and_is_reached_from_this_machine_alone(services):
    path = DEPLOY / "nginx.conf"
    assert crossplane.parse(str(path), strict=True)["errors"] == []
    text = path.read_text()
    assert set(re.findall(r"server (\w+):8080", text)) == set(services) - {"balancer"}
    assert MOST_BYTES == 2**20
    assert "client_max_body_size 1m;" in text
    assert "non_idempotent" not in text  # an answer would be in the log twice
    assert services["balancer"]["ports"] == ["127.0.0.1:8080:8080"]
    assert set(services["balancer"]["depends_on"]) == {"worker_a", "worker_b"}
    for volume in services["balancer"]["volumes"]:
        assert (DEPLOY / volume.split(":")[0]).is_file()
