"""A real Chromium for tests, and tabs in which somebody is signed in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from playwright.sync_api import Browser, Page, sync_playwright

from portal.models import User

Cookie = tuple[str, str]  # name, value


@contextmanager
def chromium() -> Iterator[Browser]:
    # Playwright's own loop runs in this thread; the rows are read by the tests, not by the loop.
    with pytest.MonkeyPatch.context() as environ, sync_playwright() as playwright:
        environ.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


def session_of(user: User) -> Cookie:
    """The cookie of somebody who is signed in."""
    client = Client()
    client.force_login(user)
    return settings.SESSION_COOKIE_NAME, client.cookies[settings.SESSION_COOKIE_NAME].value


@contextmanager
def tab(browser: Browser, url: str, cookie: Cookie, **options: Any) -> Iterator[Page]:
    """A tab with this session. Fails at its end on any script error or refused inline code."""
    complaints: list[str] = []
    context = browser.new_context(base_url=url, **options)
    context.set_default_timeout(60_000)
    context.add_cookies([{"name": cookie[0], "value": cookie[1], "url": url}])
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: (
            complaints.append(message.text) if "Content Security Policy" in message.text else None
        ),
    )
    yield page
    context.close()
    assert complaints == []
