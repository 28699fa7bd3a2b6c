"""The server over HTTP: lists, errors of one sentence, batches, a token, reloads under load, logs, counters."""

import asyncio
import concurrent.futures
import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bandit_problem import NUM_ITEMS
from rating_exports import recommender_of
from serving_server import Client, running

from harness.serving import app, batching, http_protocol
from harness.serving.decision_log import PATTERN, DecisionLog
from harness.serving.load_test import broken_requests, post, put_under_load, refusals
from harness.serving.service import Service, Source, _explored
from sim.recommend.export import write_export

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
HISTORY = [[1, 5], ["2", 1], [4, None]]


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exports")
    for name in ("popularity", "linear_ucb"):
        write_export(recommender_of(name), str(folder / name), 12, True)
    return {name: folder / name for name in ("linear_ucb", "popularity")}


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def client(exports, log) -> Any:
    service = Service([Source(folder) for folder in exports.values()], DecisionLog(log))
    with running(service) as client:
        yield client


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(folder.glob(PATTERN)) for line in file.read_text().splitlines()]


def test_lists_are_the_recommenders(client):
    recommender = recommender_of("linear_ucb")
    want = recommender.recommend([[tuple(pair) for pair in HISTORY]], 4, exclude=[7])
    found = client.lists(history=HISTORY, k=4, deny=[7, "not in the data"])
    assert [item["item"] for item in found["items"]] == want.ids[0].tolist()
    np.testing.assert_allclose([item["score"] for item in found["items"]], want.scores[0], rtol=1e-6)
    assert found["items"][0]["title"] == f"item {want.ids[0, 0]}"
    known = client.lists(user=3, k=3)
    assert [item["item"] for item in known["items"]] == recommender.recommend([3], 3).ids[0].tolist()
    # What came since, what is in stock, what may come again, another policy.
    session = client.lists(history=HISTORY[:2], session=HISTORY[2:], k=4)
    assert [item["item"] for item in session["items"]] == recommender.recommend([HISTORY], 4).ids[0].tolist()
    assert {item["item"] for item in client.lists(history=[], allow=[3, 5], k=4)["items"]} == {3, 5}
    assert len(client.lists(history=HISTORY, k=12, exclude_seen=False)["items"]) == NUM_ITEMS
    assert client.lists(history=[], policy="popularity")["policy"] == "popularity"


def test_questions_at_the_same_time_share_a_call_and_keep_their_answers(client):
    bodies = [{"history": [[item, rating]], "k": 5} for item in range(NUM_ITEMS) for rating in (1, 3, 5)]
    alone = [client.lists(**body)["items"] for body in bodies]

    def batches() -> int:
        return int(re.search(r"serving_batch_size_count (\d+)", client("GET", "/metrics")[1])[1])

    before = batches()
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        together = [answer["items"] for answer in pool.map(lambda body: client.lists(**body), bodies)]
    assert batches() - before < len(bodies)
    for one, other in zip(alone, together, strict=True):
        assert [item["item"] for item in one] == [item["item"] for item in other]
        np.testing.assert_allclose([i["score"] for i in one], [i["score"] for i in other], rtol=1e-5)


@pytest.mark.parametrize(
    ("body", "status", "parts"),
    [
        (b"{", 400, ["not JSON"]),
        (b"\xff", 400, []),
        ([], 422, ["body"]),
        ({}, 422, ["neither user nor history"]),
        ({"user": "nobody"}, 404, ["unknown user: nobody"]),
        ({"history": [], "policy": "magic"}, 404, ["unknown policy: magic; there are linear_ucb, popularity"]),
        ({"history": [["x", 1]]}, 422, ["unknown item: x"]),
        ({"history": ["x"]}, 422, ["history.0: each entry is [item, answer]"]),
        ({"history": [[1, True]]}, 422, ["history.0.1: is neither a text nor a number"]),
        ({"history": [[1, 17]]}, 422, ["the answer '17' is no answer", "a rating from 1 to 5"]),
        ({"history": [[1, float("nan")]]}, 422, ["is no answer"]),
        ({"history": [], "k": 17}, 422, ["k is 17", "at most 16"]),
        ({"history": [], "k": 0}, 422, ["k:", "greater than or equal to 1"]),
        ({"history": [], "allow": []}, 422, ["none of the allowed"]),
        ({"history": [], "surprise": 1}, 422, ["surprise"]),
        ({"history": [[1, 5]] * 10_001}, 422, ["history", "10000"]),
        ({"history": [["\ud800", 5]]}, 422, []),
        ({"history": [], "user": 2**63}, 422, ["user"]),  # no reader of the log could hold it
        ({"history": [], "user": -(2**63) - 1}, 422, ["user"]),
        (b" " * (app.MOST_BYTES + 1), 413, ["1,048,576 bytes"]),
    ],
)
def test_what_cannot_be_answered_is_refused_in_a_sentence(client, body, status, parts):
    found, answer = client("POST", "/recommend", body)
    assert found == status, answer
    assert list(answer) == ["error"]
    assert "\n" not in answer["error"]
    assert all(part in answer["error"] for part in parts), answer


def test_paths_methods_hosts_and_content_types_are_checked(client):
    assert client("GET", "/nothing")[0] == 404
    assert client("GET", "/recommend")[0] == 405
    assert client("GET", "/assets/../app.py")[0] == 404
    assert client("GET", "/health", Host="attacker.example")[0] == 400
    refused = client("POST", "/answer", {"item": 1, "answer": 5}, Content_Type="text/plain")
    assert refused == (
        422,
        {"error": "the body is not read as JSON: send the header Content-Type: application/json"},
    )
    for host in ("localhost:1", "127.0.0.2:8080", "[::1]", "[::1]:80"):  # a server may listen at any of them
        assert client("GET", "/health", Host=host)[0] == 200
    for host in ("127.0.0.1.attacker.example", "10.0.0.1", "[::2]:80", ":", "[", ""):
        assert client("GET", "/health", Host=host)[0] == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://attacker.example"}, 403),
        ({"Origin": "http://localhost.attacker.example:8080"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Origin": "http://localhost:8080", "Sec_Fetch_Site": "same-origin"}, 200),
        ({"Origin": "http://[::1]:3000"}, 200),
        ({}, 200),
    ],
)
def test_pages_of_other_sites_cannot_post(client, headers, status):
    assert client("POST", "/answer", {"item": 1, "answer": 5}, **headers)[0] == status
    if status == 403:
        answer = client("POST", "/reload", **headers)
        assert answer == (403, {"error": "pages of other sites may not ask this server"})
    assert client("GET", "/health", **headers)[0] == 200  # what they get they cannot read


def test_one_reload_at_a_time(exports):
    begun, go_on = threading.Event(), threading.Event()

    def refresh() -> None:
        begun.set()
        assert go_on.wait(30)

    service = Service([Source(exports["popularity"], refresh)])
    with running(service) as client, concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(client, "POST", "/reload")
        assert begun.wait(30)
        assert client("POST", "/reload") == (409, {"error": "the models are being read already"})
        go_on.set()
        assert first.result()[0] == 200


def test_who_sends_no_whole_header_is_not_waited_for(client, monkeypatch):
    monkeypatch.setattr(http_protocol, "HEADER_SECONDS", 0.3)
    whole = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"

    async def closed(*parts: bytes, drop: bytes = b"x") -> bytes:
        """Sends what it has and then a byte now and then; returns what came until the server closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        received = asyncio.create_task(reader.read())
        for part in (*parts, *[drop] * 60):
            if received.done() or writer.is_closing():
                break
            writer.write(part)
            await asyncio.sleep(0.05)
        answer = await asyncio.wait_for(received, 5)
        writer.close()
        return answer

    assert asyncio.run(closed(drop=b"\r\n")) == b""  # empty lines may stand before a request
    assert asyncio.run(closed(whole[:30])) == b""
    assert asyncio.run(closed(whole, whole[:30])).count(b"200 OK") == 1


def test_broken_requests_get_4xx_and_the_server_lives(client):
    statuses = asyncio.run(refusals(client.port, broken_requests({"history": HISTORY, "k": 3}, 300)))
    assert sum(statuses.values()) == 300
    assert all(400 <= status < 500 for status in statuses), statuses
    assert client("GET", "/health")[0] == 200


def test_a_slow_body_is_not_waited_for(client, monkeypatch):
    monkeypatch.setattr(app, "BODY_SECONDS", 0.2)

    async def slow() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writer.write(post("/recommend", {"history": []})[:-1])
        answer = await asyncio.wait_for(reader.readline(), 20)
        writer.close()
        return answer

    assert b" 408 " in asyncio.run(slow())


def test_more_questions_than_it_takes_are_told_to_come_again(client, monkeypatch):
    monkeypatch.setattr(batching, "MOST_WAITING", 0)
    status, answer = client("POST", "/recommend", {"history": []})
    assert (status, answer["error"]) == (503, "too many questions wait: try again")


def test_facts_items_and_simulated_users(client):
    status, facts = client("GET", "/policies")
    assert status == 200
    assert [one["policy"] for one in facts["policies"]] == ["linear_ucb", "popularity"]
    assert facts["policies"][0]["answers"]["values"][0] is None
    items = client("GET", "/items?search=ITEM%201&limit=2&offset=1")[1]
    assert items == {
        "total": 3,
        "items": [{"item": item, "title": f"item {item}", "categories": ""} for item in (10, 11)],
    }
    assert client("GET", "/items?limit=0")[0] == 422
    user = client("GET", "/users?limit=1")[1]["users"][0]
    answers = [client("POST", "/simulated_answer", {"user": user, "item": item})[1] for item in range(NUM_ITEMS)]
    table = recommender_of("popularity").system
    [rated] = table.histories_of([0])
    assert [answer["answer"] for answer in answers if answer["known"]] == rated.answers.tolist()
    assert all(answer["answer"] is None for answer in answers if not answer["known"])
    assert client("POST", "/simulated_answer", {"user": "nobody", "item": 1})[0] == 404


def test_decisions_and_answers_are_kept(client, log):
    answer = client.lists(history=HISTORY, user="ann", k=3)
    item = answer["items"][0]["item"]
    told = client("POST", "/answer", {"decision": answer["decision"], "item": item, "answer": "5", "user": "ann"})
    assert told == (200, {"logged": True, "reward": 1.0})
    assert client("POST", "/answer", {"item": item, "answer": 9})[0] == 422
    refused = client("POST", "/answer", {"decision": "nonsense", "item": item, "answer": 5})
    assert refused == (422, {"error": "decision: is no decision of /recommend"})
    decision, kept = logged(log)[-2:]
    assert decision["decision"] == kept["answer_to"] == answer["decision"]
    assert decision["items"] == [one["item"] for one in answer["items"]]
    assert decision["probabilities"] == [1.0, 1.0, 1.0]
    assert decision["model"] == answer["model"]
    assert (kept["item"], kept["answer"], kept["user"]) == (item, 5.0, "ann")
    assert set(decision) == {"decision", "time", "model", "policy", "user", "items", "scores", "probabilities"}


def test_a_log_that_cannot_be_written_stops_no_lists(exports, tmp_path, monkeypatch):
    log = DecisionLog(tmp_path)
    with running(Service([Source(exports["popularity"])], log)) as client:
        monkeypatch.setattr(log, "_begin", lambda: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        log.close()
        assert len(client.lists(history=[], k=3)["items"]) == 3
        assert client("POST", "/answer", {"item": 1, "answer": 5}) == (200, {"logged": False, "reward": 1.0})
        text = client("GET", "/metrics")[1]
        assert "serving_log_errors_total 2\n" in text
        assert 'serving_logged_total{kind="answer"} 0\n' in text
        # Whatever else fails is told in JSON.
        monkeypatch.setattr(log, "answer", lambda *_: 1 / 0)
        answer = client("POST", "/answer", {"item": 1, "answer": 5})
        assert answer == (500, {"error": "the server failed (ZeroDivisionError)"})


def test_probabilities_of_explored_lists_are_how_often_they_come():
    counts = np.zeros((3, 3))
    for _ in range(4_000):
        order, chances = _explored(3, 0.6)
        for place, item in enumerate(order):
            counts[place, item] += 1
            assert chances[place] == pytest.approx(0.6 / 3 + 0.4 * (place == item))
    np.testing.assert_allclose(counts / 4_000, 0.2 + 0.4 * np.eye(3), atol=0.04)
    assert _explored(2, 0.0) == ([0, 1], [1.0, 1.0])
    assert _explored(0, 0.5) == ([], [])


def test_a_token_is_asked_for(exports):
    service = Service([Source(exports["popularity"])])
    with running(service, "secret") as client:
        stranger = Client(client.port)
        for path in ("/items", "/policies", "/metrics", "/openapi.json", "/users", "/recommend", "/nothing"):
            assert stranger("GET", path)[0] == 401
        assert stranger("POST", "/recommend", {"history": []}) == (401, {"error": "the token is missing or wrong"})
        assert stranger("POST", "/reload", Authorization="Bearer secret2")[0] == 401
        for path in ("/", "/docs", "/health", "/assets/page.js"):
            assert stranger("GET", path, Host="anywhere.example")[0] == 200
        assert len(client.lists(history=[], k=3)["items"]) == 3
        answer = client("POST", "/answer", {"item": 1, "answer": 5})
        assert answer == (200, {"logged": False, "reward": 1.0})


def test_a_new_model_is_loaded_without_dropping_requests(tmp_path):
    folder = tmp_path / "export"
    write_export(recommender_of("popularity"), str(folder), 5, True)
    service = Service([Source(folder)])
    with running(service) as client:
        before = client.lists(history=[])["model"]
        load: list[Any] = []
        requests = [post("/recommend", {"history": [], "k": 3})]
        thread = threading.Thread(target=lambda: load.append(asyncio.run(put_under_load(client.port, requests, 4, 4))))
        thread.start()
        time.sleep(0.3)
        write_export(recommender_of("popularity"), str(folder), 20, True)
        status, answer = client("POST", "/reload")
        assert (status, answer["notices"]) == (200, [])
        thread.join()
        assert answer["models"]["popularity"] != before
        assert client.lists(history=[], k=20)["model"] == answer["models"]["popularity"]
        assert set(load[0].statuses) == {200}
        # A damaged one changes nothing.
        (folder / "arrays.npz").write_bytes(b"")
        status, refused = client("POST", "/reload")
        assert status == 503
        assert "the models in use stay" in refused["error"]
        assert client.lists(history=[], k=20)["model"] == answer["models"]["popularity"]


def test_a_few_seconds_of_load(client):
    requests = [post("/recommend", {"history": [[item, 4]], "k": 5}) for item in range(NUM_ITEMS)]
    load = asyncio.run(put_under_load(client.port, requests, 2.0))
    assert load.errors == 0
    assert load.per_second > 50  # the benchmark measures it; other work may run beside this
    assert 0 < load.quantile(0.5) <= load.quantile(0.99)


def test_counters_and_descriptions(client):
    client("GET", "/nothing")
    text = client("GET", "/metrics")[1]
    for line in text.splitlines():
        assert re.fullmatch(
            r'# TYPE \w+ (counter|gauge|histogram)|\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? [\d.e+-]+', line
        )
    assert re.search(r'serving_requests_total\{path="other",status="404"\} [1-9]', text)
    assert re.search(r'serving_model_info\{policy="linear_ucb",model="\w{16}"\} 1', text)
    schema = client("GET", "/openapi.json")[1]
    assert {"/recommend", "/answer", "/items", "/health", "/metrics", "/reload"} <= schema["paths"].keys()
    assert "k" in schema["components"]["schemas"]["RecommendBody"]["properties"]


def test_pages_ask_no_other_address(client):
    for path in ("/", "/docs", "/assets/page.js", "/assets/page.css", "/assets/play.js", "/assets/docs.js"):
        status, text = client("GET", path)
        assert status == 200
        assert not re.search(r"(https?:)?//\w", text.replace("// ", ""))
