"""The log viewer in a real browser, over the real ASGI server, with 100,000 lines."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, WebSocketRoute, expect

from deployments import logstore
from deployments.home import Home
from tests.browser import tab

pytestmark = pytest.mark.browser

LINES = 100_000
CHECKOUT = Path(__file__).resolve().parents[3]


@dataclass
class Portal:
    url: str
    cookie: tuple[str, str]
    logs: dict[str, Path]  # by service

    def write(self, service: str, *texts: str) -> None:
        entries = [logstore.LogEntry(1_700_002_000, "pipeline", text) for text in texts]
        logstore.append(self.logs[service], entries)


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    """A web process of its own, stopped by its own pid."""
    home = tmp_path_factory.mktemp("home")
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {
        **os.environ,
        "SLIPWAY_HOME": str(home),
        "SLIPWAY_PORT": str(port),
        "SLIPWAY_DEBUG": "True",
        "DJANGO_SETTINGS_MODULE": "tests.deployments.environments.process_settings",
        "PYTHONWARNINGS": "ignore",
    }
    world = subprocess.run(
        [sys.executable, "-m", "tests.portal.logs.log_world", str(LINES)],
        cwd=CHECKOUT,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    name, key, *deployments = world.stdout.split()[-4:]
    web = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "uvicorn",
            "portal.asgi:application",
            "--port",
            str(port),
            "--log-level",
            "error",
        ],
        cwd=CHECKOUT,
        env=environ,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        paths = [Home(home).deployment_log(int(deployment)) for deployment in deployments]
        logs = dict(zip(("long", "short"), paths, strict=True))
        yield Portal(f"http://127.0.0.1:{port}", (name, key), logs)
    finally:
        web.terminate()
        web.wait(timeout=20)


@pytest.fixture
def page(browser: Browser, portal: Portal) -> Iterator[Page]:
    """A signed-in tab."""
    with tab(
        browser,
        portal.url,
        portal.cookie,
        viewport={"width": 1280, "height": 800},
        permissions=["clipboard-read", "clipboard-write"],
    ) as page:
        yield page


def is_live(page: Page) -> None:
    page.wait_for_selector('[data-connection][data-state="live"]', timeout=60_000)


def test_a_long_log_is_read_followed_searched_and_wrapped(page: Page, portal: Portal) -> None:
    page.goto("/services/long/logs/")
    is_live(page)
    count = page.locator("[data-count]")
    expect(count).to_have_text("100,000 lines")
    rows = page.locator(".logs-row:visible")
    expect(rows.filter(has_text="line 99999 <b>short</b>")).to_have_count(1)
    assert page.locator(".logs-row").count() < 100  # only what can be seen is drawn

    portal.write("long", "\x1b[31mfresh\x1b[0m")
    expect(rows.filter(has_text="fresh")).to_be_visible()
    assert page.locator(".logs-text", has_text="fresh").text_content() == "fresh"

    page.locator("[data-view]").focus()
    page.keyboard.press("Home")
    expect(rows.filter(has_text="line 0 ")).to_be_visible()
    expect(page.locator("[data-follow]")).to_have_attribute("aria-pressed", "false")
    portal.write("long", "while reading above")
    expect(count).to_have_text("100,002 lines")
    expect(rows.filter(has_text="line 0 ")).to_be_visible()

    page.keyboard.press("w")
    expect(page.locator("[data-wrap]")).to_have_attribute("aria-pressed", "true")
    heights = page.evaluate(
        """() => [...document.querySelectorAll(".logs-row:not([hidden])")].map((row) => [
          row.getBoundingClientRect().height, row.querySelector(".logs-text").scrollHeight])"""
    )
    assert max(drawn for drawn, _ in heights) > 20
    assert all(drawn == needed for drawn, needed in heights)
    page.keyboard.press("w")

    page.keyboard.press("/")
    page.keyboard.type("line 5")
    expect(page.locator("[data-hits]")).to_have_text("11,111")
    page.keyboard.press("Enter")
    expect(page.locator(".logs-current")).to_contain_text("line 5 ")
    expect(page.locator(".logs-current mark")).to_have_text("line 5")
    page.locator("[data-only]").check()
    expect(count).to_have_text("11,111 of 100,002 lines")
    page.locator("[data-regex]").check()
    page.locator("[data-query]").fill("line [0-9]{2} ")
    expect(count).to_have_text("90 of 100,002 lines")
    page.locator("[data-query]").fill("(")
    expect(page.locator("[data-query]")).to_have_attribute("aria-invalid", "true")
    page.locator("[data-query]").press("Escape")
    expect(count).to_have_text("100,002 lines")

    page.locator(".logs-chip", has_text="build").click()
    expect(count).to_have_text("50,002 of 100,002 lines")
    page.locator("[data-end]").click()
    expect(rows.filter(has_text="while reading above")).to_be_visible()

    rows.filter(has_text="fresh").click()
    page.keyboard.press("c")
    expect(count).to_have_text("Line copied")
    assert page.evaluate("() => navigator.clipboard.readText()") == "fresh"


def test_a_pause_holds_what_is_new_and_loses_nothing(page: Page, portal: Portal) -> None:
    page.goto("/services/short/logs/")
    is_live(page)
    before = page.evaluate("() => document.querySelector('log-viewer').store.lines.length")
    page.locator("[data-pause]").click()
    expect(page.locator("[data-connection]")).to_have_text("Paused")
    for number in range(20):
        portal.write("short", f"paused {number}")
        page.wait_for_timeout(100)
    assert page.evaluate("() => document.querySelector('log-viewer').store.lines.length") == before
    page.locator("[data-pause]").click()
    expect(page.locator(".logs-row:visible", has_text="paused 19")).to_be_visible()
    texts = page.evaluate(
        "() => document.querySelector('log-viewer').store.lines.slice(-20).map((line) => line[3])"
    )
    assert texts == [f"paused {number}" for number in range(20)]


def test_without_a_websocket_it_polls_and_goes_back_with_nothing_twice(
    page: Page, portal: Portal
) -> None:
    sockets: list[WebSocketRoute] = []
    refuse = False

    def route(socket_route: WebSocketRoute) -> None:
        if refuse:
            socket_route.close(code=1011)
            return
        sockets.append(socket_route)
        socket_route.connect_to_server()

    page.route_web_socket("**/ws/logs/**", route)
    page.goto("/services/short/logs/")
    is_live(page)
    start = page.evaluate("() => document.querySelector('log-viewer').store.lines.length")
    refuse = True
    sockets[-1].close(code=1011)
    state = page.locator("[data-connection]")
    expect(state).to_have_attribute("data-state", "polling")
    portal.write("short", "by polling 1", "by polling 2")
    expect(page.locator(".logs-row:visible", has_text="by polling 2")).to_be_visible()
    refuse = False
    is_live(page)
    portal.write("short", "by websocket")
    expect(page.locator(".logs-row:visible", has_text="by websocket")).to_be_visible()
    lines = page.evaluate(
        "(start) => document.querySelector('log-viewer').store.lines.slice(start).map((x) => x[3])",
        start,
    )
    assert lines == ["by polling 1", "by polling 2", "by websocket"]


def test_scrolling_100000_lines_draws_each_frame_in_a_part_of_it(page: Page) -> None:
    page.goto("/services/long/logs/")
    is_live(page)
    times = page.evaluate(
        """() => {
          const viewer = document.querySelector("log-viewer");
          viewer.setFollow(false);
          const times = [];
          for (let step = 0; step < 200; step += 1) {
            viewer.view.scrollTop = step * 9000;
            const start = performance.now();
            viewer.render();
            times.push(performance.now() - start);
          }
          return times.sort((a, b) => a - b);
        }"""
    )
    assert times[100] < 8  # ms, half of a frame at 60 Hz


def test_the_run_before_of_a_replica_is_opened_by_keyboard_read_and_left(page: Page) -> None:
    page.goto("/services/short/logs/")
    is_live(page)
    page.locator("[data-view]").focus()
    page.keyboard.press("r")
    expect(page.locator("#run-short-r1-x")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_selector('[data-connection][data-state="ended"]', timeout=60_000)
    expect(page.locator(".logs-row:visible")).to_have_count(1)
    expect(page.locator(".logs-row:visible .logs-text")).to_have_text("why it died")
    expect(page.locator(".logs-which")).to_contain_text("exit code 1")
    page.get_by_role("link", name="All lines, live").click()
    expect(page.locator(".logs-row:visible").filter(has_text="alive again")).to_have_count(1)
    page.goto("/services/short/logs/?previous=short-r1-never")
    expect(page.locator("[data-empty]")).to_contain_text("Nothing is kept of an earlier run")
