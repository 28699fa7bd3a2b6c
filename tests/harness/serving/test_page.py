"""The page in a real browser: answers by mouse and keyboard, two policies, a simulated user, on a phone, in the dark.

Skipped where there is no Chromium: `apt-get install chromium`, then `python -m pip install playwright`.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rating_exports import recommender_of
from serving_server import Client, running

from harness.serving.decision_log import DecisionLog
from harness.serving.service import Service, Source
from sim.recommend.export import write_export

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
SCREENSHOT = "TPGR_JAX_SCREENSHOT"
"""Environment variable: where the screenshot of the documents is written."""


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("exports")
    for name in ("linear_ucb", "popularity"):
        write_export(recommender_of(name), str(folder / name), 5, True)
    with running(
        Service([Source(folder / name) for name in ("linear_ucb", "popularity")], DecisionLog(folder))
    ) as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, client) -> Iterator[Any]:
    """The page, in which nothing goes wrong and nothing is asked of another address."""
    page = browser.new_page(viewport={"width": 1100, "height": 900})
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    page.troubles = troubles
    home = f"http://localhost:{client.port}/"
    page.on(
        "request", lambda request: None if request.url.startswith((home, "data:")) else troubles.append(request.url)
    )
    page.goto(home)
    page.wait_for_selector(".game .answers button:enabled")
    yield page
    assert troubles == []
    page.close()


def text(page: Any, selector: str, game: int = 0) -> str:
    return page.locator(".game").nth(game).locator(selector).inner_text()


def wait_for_answers(page: Any, number: int, game: int = 0) -> None:
    playwright.expect(page.locator(".game").nth(game).locator(".steps")).to_have_text(str(number), timeout=20_000)
    playwright.expect(page.locator(".game").nth(game).locator(".answers button").first).to_be_enabled()


def test_answers_lead_to_rewards_and_other_items(page, client):
    assert page.locator(".game").count() == 2
    assert [text(page, "h2", game) for game in (0, 1)] == ["linear_ucb", "popularity"]
    first = text(page, ".title")
    want = client.lists(history=[], k=1)["items"][0]
    assert first == want["title"]
    page.locator(".game").first.get_by_role("button", name="5", exact=True).click()
    wait_for_answers(page, 1)
    assert text(page, ".reward") == "1.00"
    assert text(page, ".streak") == "+1"
    second = client.lists(history=[[want["item"], 5]], k=1)["items"][0]["title"]
    assert text(page, ".title") == second != first
    assert text(page, ".steps", 1) == "0"
    assert page.locator(".game").first.locator(".thoughts li").count() == 5
    # The streak pays: alpha is 0.1 in this data's settings, times one good answer before.
    page.locator(".game").first.get_by_role("button", name="1", exact=True).click()
    wait_for_answers(page, 2)
    alpha = client("GET", "/policies")[1]["policies"][0]["answers"]["streak_weight"]
    rewards = client("GET", "/policies")[1]["policies"][0]["answers"]["rewards"]
    assert text(page, ".reward") == f"{1 + rewards[1] + alpha:.2f}"
    assert text(page, ".streak") == "-1"


def test_it_is_played_by_keys_alone(page):
    page.keyboard.press("3")
    wait_for_answers(page, 1)
    page.keyboard.press("s")
    wait_for_answers(page, 2)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("4")
    wait_for_answers(page, 1, 1)
    assert text(page, ".steps", 0) == "2"
    page.keyboard.press("x")
    page.keyboard.press("r")
    wait_for_answers(page, 0)
    assert text(page, ".reward") == "0.00"
    # Every control is reached by Tab, and the focus is seen.
    names = set()
    for _ in range(24):
        page.keyboard.press("Tab")
        names.add(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim().slice(0, 9)"))
    assert {"first", "second", "user", "watch", "restart", "Skip", "5"} <= names


def test_a_simulated_user_is_watched_to_the_end(page, client):
    page.keyboard.press("w")
    length = client("GET", "/policies")[1]["policies"][0]["episode_length"]
    wait_for_answers(page, length)
    wait_for_answers(page, length, 1)
    playwright.expect(page.locator("#watch")).to_have_attribute("aria-pressed", "false")
    user = page.locator("#user").input_value()
    session: list[Any] = []
    for _ in range(length):
        item = client.lists(history=[], session=session, k=1)["items"][0]["item"]
        answer = client("POST", "/simulated_answer", {"user": user, "item": item})[1]["answer"]
        session.append([item, answer])
    shown = page.locator(".game").first.locator(".past li").all_text_contents()
    assert [row.split(":")[0] for row in reversed(shown)] == [f"item {item}" for item, _ in session]


def test_one_policy_alone(page):
    page.locator("#second").select_option("")
    playwright.expect(page.locator(".game")).to_have_count(1)


def test_a_refusal_is_shown(page, client):
    page.route("**/recommend", lambda route: route.fulfill(status=503, body='{"error": "too many questions wait"}'))
    page.locator("#restart").click()
    playwright.expect(page.locator("#message")).to_have_text("too many questions wait")
    page.unroute("**/recommend")
    assert {"503 (Service Unavailable)" in trouble for trouble in page.troubles} == {True}
    page.troubles.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(browser, client, scheme):
    page = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page.goto(f"http://localhost:{client.port}/")
    page.wait_for_selector(".game .answers button:enabled")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    heights = page.eval_on_selector_all("button, select", "all => all.map(one => one.getBoundingClientRect().height)")
    assert min(heights) >= 44
    # Contrast by WCAG of text and what is behind it.
    pairs = page.evaluate(
        """() => ["h1", "header p", ".title", ".meaning", ".answers button"].map((selector) => {
            const one = document.querySelector(selector);
            let behind = one;
            while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
            return [getComputedStyle(one).color, getComputedStyle(behind).backgroundColor];
        })"""
    )
    assert all(contrast(*pair) >= 4.5 for pair in pairs)
    page.close()


def contrast(first: str, second: str) -> float:
    """The contrast of two colours as a browser writes them (WCAG 2)."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in colour.removeprefix("rgb(").rstrip(")").split(",")]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    darker, lighter = sorted((luminance(first), luminance(second)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.skipif(SCREENSHOT not in os.environ, reason=f"{SCREENSHOT} names no file")
def test_screenshot(browser):
    """Of a server that is named by its address: TPGR_JAX_SCREENSHOT=ADDRESS,FILE."""
    address, file = os.environ[SCREENSHOT].split(",")
    page = browser.new_page(viewport={"width": 1100, "height": 760})
    page.goto(address)
    page.wait_for_selector(".game .answers button:enabled")
    for key in "545":
        for other in ("ArrowRight", "ArrowRight"):
            page.keyboard.press(key)
            page.wait_for_timeout(400)
            page.keyboard.press(other)
    page.wait_for_timeout(500)
    page.screenshot(path=Path(file))
