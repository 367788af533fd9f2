"""What a replica said before it was last started again: where it is read from, and how it is offered."""

from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from deployments.codec import to_json
from deployments.drivers.base import LogLine, LogPage
from deployments.errors import Unavailable
from deployments.home import Home
from deployments.pod_logs import PodLog, folder_of
from deployments.services.models import Service
from deployments.types import Exit, Phase, Replica
from portal.log_sources import read_page
from portal.models import User
from portal.previous_runs import offered
from tests.portal.logs.conftest import FakeDriver

POD = "diabetes-default-5d9c-x2k4p"
SOURCE = f"previous:diabetes:{POD}"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, settings: Any) -> None:
    settings.HOME = Home(tmp_path)


def _seen(service: Service, *replicas: Replica, kind: str = "kubernetes") -> None:
    service.cluster.kind = kind
    service.cluster.save()
    service.replicas = to_json(list(replicas))
    service.save()


def _replica(name: str = POD, ended: float | None = None, phase: Phase = Phase.READY) -> Replica:
    return Replica(
        id=name,
        service="diabetes",
        version="default",
        revision=1,
        phase=phase,
        restarts=0 if ended is None else 1,
        last_exit=None if ended is None else Exit(1, 0, ended),
    )


def _keep(service: Service, run: int, *lines: tuple[float, str], pod: str = POD) -> None:
    folder = folder_of(settings.HOME.pod_logs, service.cluster.name, "diabetes") / pod
    said = tuple(LogLine(at, pod, "stdout", text) for at, text in lines)
    PodLog(folder).add(LogPage(said, "k", run=run), run)


def _texts(source: str = SOURCE, limit: int = 2000) -> list[str]:
    found: list[str] = []
    cursor = ""
    for _ in range(50):
        page = read_page(source, cursor, limit)
        found += [line.text for line in page.lines]
        cursor = page.cursor
        if page.ended:
            return found
    raise AssertionError(f"it never ends: {found}")


def test_what_is_kept_of_the_run_that_ended_is_read_while_the_cluster_is_away(
    service: Service, driver: FakeDriver
) -> None:
    driver.down = True
    _seen(service, _replica(ended=20.0))
    _keep(service, 1, (10, "first"), (19, "Traceback"))
    _keep(service, 2, (31, "again"))
    assert _texts() == ["first", "Traceback"]
    assert _texts(limit=1) == ["first", "Traceback"]
    assert driver.asked == 0


@pytest.mark.parametrize("phase", [Phase.CRASHED, Phase.LOADING])
def test_a_run_that_ended_is_the_one_before_also_while_the_next_says_nothing(
    service: Service, driver: FakeDriver, phase: Phase
) -> None:
    _seen(service, _replica(ended=20.0, phase=phase))
    _keep(service, 1, (5, "older"))
    _keep(service, 2, (10, "crashed"))
    assert _texts() == ["crashed"]


def test_a_run_shorter_than_the_second_its_end_is_told_in_counts(
    service: Service, driver: FakeDriver
) -> None:
    _seen(service, _replica(ended=20.0))
    _keep(service, 1, (20.4, "short"))
    _keep(service, 2, (30, "again"))
    assert _texts() == ["short"]


def test_a_pod_that_is_gone_has_its_last_but_one_run(service: Service, driver: FakeDriver) -> None:
    _seen(service)
    _keep(service, 1, (10, "first"))
    _keep(service, 2, (20, "second"))
    _keep(service, 1, (30, "once"), pod="diabetes-default-5d9c-aaaaa")
    assert _texts() == ["first"]
    assert [(item.replica, item.gone) for item in offered(service)] == [(POD, True)]


def test_what_was_not_copied_is_asked_of_the_cluster_and_only_once_to_its_end(
    service: Service, driver: FakeDriver
) -> None:
    _seen(service, _replica(ended=20.0))
    driver.before[POD] = [LogLine(number, POD, "stdout", f"l{number}") for number in range(250)]
    assert _texts(limit=100) == [f"l{number}" for number in range(250)]


def test_nothing_before_is_an_end_and_a_cluster_that_is_away_is_said(
    service: Service, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    _seen(service, _replica())
    assert _texts() == []

    def away(*_: object, **__: object) -> LogPage:
        raise Unavailable("The API server does not answer.")

    monkeypatch.setattr(driver, "logs", away)
    with pytest.raises(Unavailable):
        read_page(SOURCE)


def test_the_logs_page_offers_those_that_ended_the_last_one_first(
    client: Client, viewer: User, service: Service, driver: FakeDriver
) -> None:
    client.force_login(viewer)
    url = reverse("service-logs", args=["diabetes"])
    _seen(service, _replica("calm"), _replica("a", 10.0), _replica("b", 20.0))
    page = client.get(url).content.decode()
    assert [item.replica for item in offered(service)] == ["b", "a"]
    assert f'href="{url}?previous=b"' in page and "?previous=calm" not in page
    shown = client.get(url, {"previous": "a"}).content.decode()
    assert 'data-source="previous:diabetes:a"' in shown and "exit code 1" in shown
    assert 'aria-current="page"' in shown
    runs = client.get(reverse("service-logs-runs", args=["diabetes"]), {"previous": "a"})
    assert runs.content.decode().count('logs-run"') == 2
    assert client.get(url, {"previous": "calm"}).status_code == 200


def test_polling_is_told_that_it_has_all(
    client: Client, viewer: User, service: Service, driver: FakeDriver
) -> None:
    client.force_login(viewer)
    _seen(service, _replica(ended=20.0), kind="process")
    driver.before[POD] = [LogLine(1, POD, "stderr", "died")]
    answer = client.get(reverse("log-data", args=[SOURCE])).json()
    assert (answer["lines"][0][3], answer["at_end"], answer["ended"]) == ("died", True, True)
    assert client.get(reverse("log-data", args=["service:diabetes"])).json()["ended"] is False
