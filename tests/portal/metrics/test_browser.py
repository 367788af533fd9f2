"""The chart in a real browser: drawn inside the content policy, live by appending, marks that open rows."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from deployments.services.models import Service
from portal.models import User
from router.telemetry.models import Decision, Series
from tests.browser import session_of, tab
from tests.portal.metrics.conftest import measure

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

# Points of the first line, and whether it has a gap.
DRAWN = "() => document.getElementById('chart').data?.[0].y.length ?? 0"
MORE = "(least) => (document.getElementById('chart').data?.[0].y.length ?? 0) > least"
FEWER = "(most) => document.getElementById('chart').data[0].y.length < most"
GAPS = "() => document.getElementById('chart').data[0].y.filter((y) => y === null).length"


@pytest.fixture
def page(browser: Browser, live_server: Any, viewer: User) -> Iterator[Page]:
    """A tab in which Vera is signed in."""
    with tab(browser, live_server.url, session_of(viewer)) as page:
        yield page


def test_new_seconds_are_appended_without_a_page_load(page: Page, measured: Series) -> None:
    page.goto("/services/diabetes/metrics/?range=5m")
    page.wait_for_function(MORE, arg=100)
    assert page.evaluate(GAPS) >= 1
    before = page.evaluate(DRAWN)
    page.evaluate("window.stayed = true")
    # there is no websocket at this test server: the page reads again every 5 seconds
    with page.expect_request(lambda request: "after=" in request.url):
        measure(measured, int(time.time()) + 1)
    page.wait_for_function(MORE, arg=before)
    assert page.evaluate("window.stayed") is True


def test_a_click_on_a_mark_opens_its_decision_and_that_leads_back(
    page: Page, measured: Series, ledger: list[Decision]
) -> None:
    # so far down the ledger that its row is not among the first
    now = time.time()
    Decision.objects.bulk_create(
        [
            Decision(
                series=measured, at=now - 40 + i / 10, before=2, after=2, code="holding",
                reason="Holding.", applied=False,
            )
            for i in range(40)
        ]
    )  # fmt: skip
    page.goto("/services/diabetes/metrics/?range=5m")
    page.wait_for_function(MORE, arg=100)
    # Plotly takes the mouse on a layer above the marks, and picks what it has hovered
    box = page.locator("#chart .scatterlayer .trace .points path").first.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    expect(page.locator("#chart .hoverlayer")).to_contain_text("3 queued")
    page.mouse.click(x, y)
    page.wait_for_url(f"**/decisions/?open={ledger[0].pk}")
    row = page.locator(f"#decision-{ledger[0].pk}")
    expect(row).to_have_attribute("open", "")
    expect(row).to_be_in_viewport()
    expect(row).to_contain_text("2 ready after 10 s")
    row.get_by_role("link", name="On the chart").click()
    page.wait_for_function(MORE, arg=50)
    assert "around=" in page.url
    line = page.evaluate("() => document.getElementById('chart').layout.shapes.length")
    assert line == 1
    page.get_by_role("button", name="Follow").click()
    page.wait_for_url("**/metrics/?range=5m")


def test_a_click_on_the_replicas_opens_the_decision_in_force_then(
    page: Page, measured: Series, ledger: list[Decision]
) -> None:
    Decision.objects.create(
        series=measured, at=time.time() - 20, before=2, after=3, code="up", applied=True,
        reason="Later.",
    )  # fmt: skip
    page.goto("/services/diabetes/metrics/?range=5m")
    page.wait_for_function(MORE, arg=100)
    # the middle between two marks, on the replicas' own row of the chart
    marks = page.locator("#chart .scatterlayer .trace .points path")
    first, last = marks.nth(0).bounding_box(), marks.nth(1).bounding_box()
    plot = page.locator("#chart .nsewdrag[data-subplot=xy]").bounding_box()
    assert first and last and plot
    x, y = (first["x"] + last["x"]) / 2, plot["y"] + plot["height"] / 2
    page.mouse.move(x, y)
    expect(page.locator("#chart .hoverlayer")).to_contain_text("running")
    page.mouse.click(x, y)
    page.wait_for_url("**/decisions/?at=*")
    expect(page.locator(f"#decision-{ledger[0].pk}.decision-here")).to_be_in_viewport()
    expect(page.get_by_text("In force at")).to_be_visible()


def test_what_is_open_stays_open_when_the_ledger_grows(
    page: Page, measured: Series, ledger: list[Decision]
) -> None:
    page.goto("/services/diabetes/decisions/")
    row = page.locator(f"#decision-{ledger[0].pk}")
    row.locator("summary").click()
    expect(row).to_have_attribute("open", "")
    new = Decision.objects.create(
        series=measured, at=time.time(), before=2, after=3, code="up", applied=True, reason="New."
    )
    # what app.js does on a word from the websocket, which this test server has not
    page.evaluate("htmx.trigger('#decisions-live', 'live')")
    expect(page.locator(f"#decision-{new.pk}")).to_be_visible()
    expect(row).to_have_attribute("open", "")
    expect(page.locator("details[open]")).to_have_count(1)


def test_the_range_is_chosen_by_keyboard_without_a_page_load(page: Page, measured: Series) -> None:
    page.goto("/services/diabetes/metrics/?range=5m")
    page.wait_for_function(MORE, arg=100)
    page.evaluate("window.stayed = true")
    page.locator("[data-range='1h']").focus()
    page.keyboard.press("Enter")
    page.wait_for_function(FEWER, arg=100)
    assert page.url.endswith("?range=1h")
    assert page.locator("[aria-label=Range] [aria-current]").inner_text() == "1 h"
    assert page.evaluate("window.stayed") is True
    assert page.locator("[data-chart-csv]").get_attribute("href").endswith("data.csv?range=1h")
    page.go_back()
    page.wait_for_function(MORE, arg=100)


def test_nothing_measured_says_what_to_do(page: Page, service: Service) -> None:
    page.goto("/services/diabetes/metrics/")
    expect(page.get_by_text("Nothing was measured in this range")).to_be_visible()
    expect(page.get_by_role("link", name="Send a request")).to_be_visible()


def test_a_picture_can_be_had(page: Page, measured: Series) -> None:
    page.goto("/services/diabetes/metrics/?range=30m")
    page.wait_for_function(MORE, arg=5)
    with page.expect_download() as download:
        page.get_by_role("button", name="PNG").click()
    assert download.value.suggested_filename == "diabetes-30m.png"
