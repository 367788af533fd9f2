"""The router's chart and the small charts in a real browser: drawn inside the content policy, appended to."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from deployments.clusters.models import Cluster
from portal.models import User
from router.telemetry.router_rows import RouterDecision
from tests.browser import session_of, tab
from tests.portal.charts.conftest import rolled, router_second, series, service, ten_seconds

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

MORE = "(least) => (document.getElementById('chart').data?.[0].y.length ?? 0) > least"
DRAWN = "() => [...document.querySelectorAll('.multiple-plot')].filter((plot) => plot.data).length"


@pytest.fixture
def page(browser: Browser, live_server: Any, viewer: User) -> Iterator[Page]:
    """A tab in which Vera is signed in."""
    with tab(browser, live_server.url, session_of(viewer)) as page:
        yield page


def test_the_routers_chart_is_appended_to_and_its_marks_open_their_decisions(
    page: Page, sizes: list[RouterDecision]
) -> None:
    page.goto("/clusters/local/router/?range=5m")
    page.wait_for_function(MORE, arg=100)
    before = page.evaluate("() => document.getElementById('chart').data[0].y.length")
    # there is no websocket at this test server: the page reads again every 5 seconds
    with page.expect_request(lambda request: "after=" in request.url):
        router_second(int(time.time()) + 1)
    page.wait_for_function(MORE, arg=before)
    box = page.locator("#chart .scatterlayer .trace .points path").first.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    expect(page.locator("#chart .hoverlayer")).to_contain_text("4.2 ms")
    page.mouse.click(x, y)
    row = page.locator(f"#decision-{sizes[0].pk}")
    expect(row).to_have_attribute("open", "")
    expect(row).to_be_in_viewport()
    with page.expect_download() as download:
        page.get_by_role("button", name="PNG").click()
    assert download.value.suggested_filename == "router-local-5m.png"


def test_small_charts_are_drawn_as_they_come_into_view(page: Page, cluster: Cluster) -> None:
    now = int(time.time())
    last = now - now % 10 - 20  # so that one more bucket is over already
    rows = {}
    for number in range(30):
        name = f"svc-{number:02d}"
        service(cluster, name)
        rows[name] = series(name)
        ten_seconds(rows[name], last - 20)
        ten_seconds(rows[name], last)
    service(cluster, "aaa-idle")
    rolled(last + 10)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto("/services/_charts/")
    page.wait_for_function(
        "(least) => [...document.querySelectorAll('.multiple-plot')].filter((p) => p.data).length > least",
        arg=1,
    )
    tile = page.locator("[data-service=svc-00]")
    expect(tile.locator("[data-now]")).to_have_text("2 of 3 running, 40 rejected")
    expect(page.locator("[data-service=aaa-idle]")).to_contain_text(
        "Not measured in the last 15 min"
    )
    assert page.evaluate(DRAWN) < 30
    gap = "() => document.querySelector('[data-service=svc-00] .multiple-plot').data[3].y.at(-2)"
    assert page.evaluate(gap) is None
    ten_seconds(rows["svc-00"], last + 10, ready=3)
    rolled(last + 20)
    expect(tile.locator("[data-now]")).to_have_text("3 of 3 running, 60 rejected")
    with page.expect_download() as download:
        tile.get_by_role("button", name="PNG of svc-00").click()
    assert download.value.suggested_filename == "svc-00-demand-15m.png"
    page.locator("[data-service=svc-29]").scroll_into_view_if_needed()
    page.wait_for_function(
        "() => document.querySelector('[data-service=svc-29] .multiple-plot').data"
    )
