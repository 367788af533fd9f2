"""The same pages by plain HTTP, and the download."""

import pytest
from django.test import AsyncClient, Client
from django.urls import reverse

from deployments.services.models import Service
from portal.models import Role, User
from tests.portal.logs.conftest import FakeDriver, deploy, write


def test_nobody_reads_a_log_without_signing_in(
    client: Client, service: Service, driver: FakeDriver
) -> None:
    for url in (
        reverse("service-logs", args=["diabetes"]),
        reverse("service-logs-data", args=["diabetes"]),
        reverse("log-data", args=["service:diabetes"]),
    ):
        assert client.get(url).status_code == 302


@pytest.mark.parametrize("role", [Role.VIEWER, Role.DEPLOYER, Role.ADMINISTRATOR])
def test_each_role_may_read_by_polling(
    role: str, client: Client, service: Service, driver: FakeDriver, request: pytest.FixtureRequest
) -> None:
    client.force_login(request.getfixturevalue(role))
    driver.say("a", 1.0, "one", "stderr")
    url = reverse("service-logs-data", args=["diabetes"])
    first = client.get(url).json()
    assert first["lines"] == [[1.0, "a", "stderr", "one"]]
    assert first["at_end"] is True
    driver.say("a", 2.0, "two")
    second = client.get(url, {"cursor": first["cursor"]}).json()
    assert [line[3] for line in second["lines"]] == ["two"]
    assert client.post(url).status_code == 405


def test_what_goes_wrong_has_its_own_status_and_reason(
    client: Client, viewer: User, service: Service, driver: FakeDriver
) -> None:
    client.force_login(viewer)
    url = reverse("service-logs-data", args=["diabetes"])
    assert client.get(url, {"limit": "many"}).status_code == 400
    assert client.get(url, {"cursor": "%"}).status_code == 400
    assert client.get(reverse("log-data", args=["service:nobody"])).status_code == 404
    driver.down = True
    answer = client.get(url)
    assert answer.status_code == 503
    assert "does not answer" in answer.json()["reason"]


@pytest.mark.django_db(transaction=True)
async def test_a_log_is_downloaded_whole_as_plain_text(
    async_client: AsyncClient, viewer: User, service: Service, driver: FakeDriver
) -> None:
    await async_client.aforce_login(viewer)
    for number in range(4500):
        driver.say("a", number, f"line {number}")
    answer = await async_client.get(reverse("service-logs-download", args=["diabetes"]))
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    assert answer["Content-Disposition"] == 'attachment; filename="service-diabetes.log"'
    text = b"".join([part async for part in answer]).decode()
    assert text.splitlines()[0] == "1970-01-01T00:00:00.000Z [a] line 0"
    assert len(text.splitlines()) == 4500


def test_the_tab_shows_the_viewer_of_its_service(
    client: Client, viewer: User, service: Service, driver: FakeDriver
) -> None:
    client.force_login(viewer)
    page = client.get(reverse("service-logs", args=["diabetes"]))
    assert 'data-source="service:diabetes"' in page.content.decode()
    assert client.get(reverse("service-logs", args=["nobody"])).status_code == 404


def test_a_deployments_own_log_can_be_polled(
    client: Client, viewer: User, service: Service
) -> None:
    client.force_login(viewer)
    deployment = deploy(service)
    write(deployment, "zipping")
    answer = client.get(reverse("log-data", args=[f"deployment:{deployment.pk}"]))
    assert [line[3] for line in answer.json()["lines"]] == ["zipping"]
