"""The admin panel shows what was measured and lets nobody change it."""

import pytest
from django.test import Client

from portal.models import User
from router.telemetry.models import Decision, Minute, Second, Series

PAGES = ("series", "second", "tenseconds", "minute", "hour", "decision", "rollupmark")


@pytest.fixture
def client() -> Client:
    """Django's; the router's other tests have one of their own by this name."""
    return Client()


@pytest.fixture
def rows(db: None) -> Series:
    series = Series.objects.create(cluster="local", service="diabetes", version="default")
    Second.objects.create(series=series, at=1_800_000_000, ok=5)
    Minute.objects.create(series=series, at=1_800_000_000, ok=5)
    Decision.objects.create(
        series=series, at=1_800_000_000.5, before=1, after=2, code="up", reason="B.", applied=True
    )
    return series


@pytest.mark.parametrize("page", PAGES)
def test_lists_open_and_nothing_can_be_added(
    client: Client, administrator: User, rows: Series, page: str
) -> None:
    client.force_login(administrator)
    assert client.get(f"/admin/telemetry/{page}/").status_code == 200
    assert client.get(f"/admin/telemetry/{page}/add/").status_code == 403


def test_a_decision_is_found_and_cannot_be_changed(
    client: Client, administrator: User, rows: Series
) -> None:
    client.force_login(administrator)
    assert (
        b'<td class="field-reason">B.</td>'
        in client.get("/admin/telemetry/decision/?q=diabetes").content
    )
    decision = Decision.objects.get()
    address = f"/admin/telemetry/decision/{decision.pk}/change/"
    assert client.get(address).status_code == 200
    assert client.post(address, {"reason": "Another."}).status_code == 403
    assert client.post(f"/admin/telemetry/decision/{decision.pk}/delete/").status_code == 403


def test_a_viewer_has_no_admin(client: Client, viewer: User, rows: Series) -> None:
    client.force_login(viewer)
    assert client.get("/admin/telemetry/decision/").status_code == 302
