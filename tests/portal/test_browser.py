"""What app.js does, in a real browser: colours, confirmation, copying, the drawer, and the live socket."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from playwright.sync_api import Browser, Page, expect

from portal.models import User
from tests.browser import session_of
from tests.browser import tab as signed_in
from tests.ports import free_port

pytestmark = pytest.mark.browser


@pytest.fixture
def tab(
    browser: Browser, live_server: Any, administrator: User, request: pytest.FixtureRequest
) -> Iterator[Page]:
    """A tab in which Ada is signed in."""
    cookie = session_of(administrator)
    with signed_in(browser, live_server.url, cookie, **getattr(request, "param", {})) as page:
        yield page


needs_rows = pytest.mark.django_db(transaction=True)
phone = pytest.mark.parametrize("tab", [{"viewport": {"width": 390, "height": 844}}], indirect=True)


@needs_rows
def test_colours_are_switched_kept_and_there_at_the_first_paint(tab: Page) -> None:
    tab.goto("/people/")
    switch = tab.locator("[data-theme-switch]")
    switch.click()  # auto -> light
    switch.click()  # light -> dark
    expect(tab.locator("html")).to_have_attribute("data-theme", "dark")
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    # The server writes it, so no script has to run for the right colours.
    assert 'data-theme="dark"' in tab.request.get("/people/").text()
    switch.click()
    expect(switch).to_contain_text("Auto")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != dark


@needs_rows
def test_a_dangerous_form_asks_first(tab: Page, viewer: User) -> None:
    tab.goto(f"/people/{viewer.pk}/")
    tab.fill("#id_password", "a quite new harbour")
    tab.get_by_role("button", name="Set password").click()
    dialog = tab.locator("#confirm")
    expect(dialog).to_contain_text("Set a new password for vera?")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).not_to_be_visible()
    viewer.refresh_from_db()
    assert viewer.check_password("correct horse battery")
    tab.get_by_role("button", name="Set password").click()
    dialog.get_by_role("button", name="Set password").click()
    expect(tab.locator(".toast")).to_contain_text("vera has a new password")
    viewer.refresh_from_db()
    assert viewer.check_password("a quite new harbour")


@needs_rows
@phone
def test_the_drawer_opens_closes_and_holds_the_focus(tab: Page) -> None:
    tab.goto("/people/")
    link = tab.locator(".rail").get_by_role("link", name="Models")
    expect(link).not_to_be_visible()
    opener = tab.locator("[data-drawer]")
    opener.click()
    expect(link).to_be_visible()
    expect(opener).to_have_attribute("aria-expanded", "true")
    assert tab.evaluate("document.querySelector('.page').inert")
    tab.keyboard.press("Escape")
    expect(link).not_to_be_visible()
    expect(opener).to_be_focused()


@needs_rows
@phone
def test_no_page_is_wider_than_a_phone(tab: Page) -> None:
    for url in ("/", "/people/", "/people/add/", "/audit/", "/password/", "/no-such-page/"):
        tab.goto(url)
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), url


@needs_rows
def test_the_keyboard_reaches_the_content_first(tab: Page) -> None:
    tab.goto("/people/")
    tab.keyboard.press("Tab")
    expect(tab.locator(".skip")).to_be_focused()
    tab.keyboard.press("Enter")
    expect(tab.locator("#main")).to_be_focused()


# The live socket, over the real server and Redis ----------------------------------------------


class _Portal:
    """Redis, a process that changes rows, and a web server that can be stopped and started."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environ = {
            **os.environ,
            "SLIPWAY_HOME": str(home),
            "SLIPWAY_PORT": str(self.port),
            "SLIPWAY_DEBUG": "True",
            "DJANGO_SETTINGS_MODULE": "tests.e2e.process_settings",
            "PYTHONWARNINGS": "ignore",
        }
        (home / "run").mkdir()
        self.stack = stack
        redis = [
            "redis-server",
            "--port",
            "0",
            "--unixsocket",
            str(home / "run/redis.sock"),
            "--save",
            "",
        ]
        self._run(redis, stdout=subprocess.DEVNULL)
        self.world = self._run(
            [sys.executable, "-m", "tests.portal.live_world"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        name, _, key = self.world.stdout.readline().strip().partition(" ")
        self.cookie = (name, key)
        self.start()

    def _run(self, command: list[str], **options: Any) -> subprocess.Popen[Any]:
        process = subprocess.Popen(command, env=self.environ, cwd=settings.CHECKOUT, **options)
        self.stack.callback(_stop, process)
        return process

    def start(self) -> None:
        self.web = self._run(
            [sys.executable, "-m", "uvicorn", "portal.asgi:application", "--port", str(self.port),
             "--log-level", "warning"]
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the web process did not start")

    def say(self, line: str) -> None:
        self.world.stdin.write(line + "\n")


def _stop(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()


@pytest.mark.daemons
def test_a_page_follows_changes_survives_a_restart_and_ends_with_the_person(
    browser: Browser,
) -> None:
    # A short home: a unix socket's path may not be long.
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sw-live-")))
        portal = _Portal(home, stack)
        page = stack.enter_context(signed_in(browser, portal.url, portal.cookie))
        state, row = page.locator("[data-live-state]"), page.locator("tr", has_text="diabetes")

        page.goto("/")
        expect(state).to_have_attribute("data-state", "live")
        portal.say("state Healthy")
        expect(row.locator(".badge")).to_have_text("Healthy", timeout=30_000)

        _stop(portal.web)
        expect(state).to_have_attribute("data-state", "polling")
        expect(state).to_contain_text("every 5 s")
        portal.say("state Failed")
        portal.start()
        expect(state).to_have_attribute("data-state", "live", timeout=60_000)
        expect(row.locator(".badge")).to_have_text("Failed", timeout=30_000)

        portal.say("deactivate")
        expect(state).to_have_attribute("data-state", "offline")
