"""What a source holds, and that a cursor neither skips nor repeats."""

from pathlib import Path

import pytest
from django.conf import settings

from deployments import logstore
from deployments.clusters.models import Cluster
from deployments.drivers.base import LogLine, LogPage
from deployments.environments.changes import create_environment
from deployments.errors import InvalidInput, NotFound, Unavailable
from deployments.home import Home
from deployments.pod_logs import PodLog
from deployments.services.models import Service
from portal import log_sources
from portal.log_sources import read_page
from tests.portal.logs.conftest import FakeDriver, deploy, write


def texts(source: str, limit: int = 2000) -> list[str]:
    """All lines of a source, read page by page."""
    found: list[str] = []
    cursor = ""
    while True:
        page = read_page(source, cursor, limit)
        found += [line.text for line in page.lines]
        cursor = page.cursor
        if page.at_end:
            return found


def test_a_service_is_its_latest_deployment_and_all_replicas_by_time(
    service: Service, driver: FakeDriver
) -> None:
    write(deploy(service), "from before")
    deployment = deploy(service)
    write(deployment, "zipping", at=1)
    driver.say("diabetes-r1-a", 2, "loading")
    driver.say("diabetes-r1-b", 1.5, "hello", "stderr")
    write(deployment, "healthy", at=3)
    page = read_page("service:diabetes")
    assert [(x.source, x.stream, x.text) for x in page.lines] == [
        ("pipeline", "", "zipping"),
        ("diabetes-r1-b", "stderr", "hello"),
        ("diabetes-r1-a", "stdout", "loading"),
        ("pipeline", "", "healthy"),
    ]
    assert page.at_end


@pytest.mark.parametrize("limit", [1, 2, 2000])
def test_what_a_deployment_copied_of_a_replica_is_not_shown_twice(
    service: Service, driver: FakeDriver, limit: int
) -> None:
    deployment = deploy(service)
    path = settings.HOME.deployment_log(deployment.pk)
    for number in range(6):
        for source in ("pipeline", "a", "gone"):
            entry = logstore.LogEntry(number, source, f"{source}{number}")
            logstore.append(path, [entry])
        driver.say("a", number, f"a{number}")
    found = texts("service:diabetes", limit)
    assert sorted(found) == sorted(
        f"{source}{number}" for source in ("pipeline", "a", "gone") for number in range(6)
    )
    assert texts(f"deployment:{deployment.pk}").count("a3") == 1


@pytest.mark.parametrize("limit", [1, 3, 150, 2000])
def test_pages_of_any_size_give_each_line_once(
    service: Service, driver: FakeDriver, limit: int
) -> None:
    deployment = deploy(service)
    for number in range(250):
        write(deployment, f"p{number}", at=number)
        driver.say(f"r{number % 3}", number + 0.5, f"r{number}")
    assert texts("service:diabetes", limit) == [
        text for number in range(250) for text in (f"p{number}", f"r{number}")
    ]


def test_reading_on_gives_what_came_since_and_a_replica_that_is_new(
    service: Service, driver: FakeDriver
) -> None:
    driver.say("a", 1, "one")
    first = read_page("service:diabetes")
    assert read_page("service:diabetes", first.cursor).lines == []
    driver.say("b", 0.5, "late")
    driver.say("a", 2, "two")
    second = read_page("service:diabetes", first.cursor)
    assert [line.text for line in second.lines] == ["late", "two"]


def test_a_deployment_that_was_followed_is_read_to_its_end_when_a_newer_one_begins(
    service: Service, driver: FakeDriver
) -> None:
    old = deploy(service)
    write(old, "old 1")
    cursor = read_page("service:diabetes").cursor
    write(old, "old 2", at=2)
    write(deploy(service), "new 1", at=3)
    page = read_page("service:diabetes", cursor)
    assert [line.text for line in page.lines] == ["old 2", "new 1"]


def test_what_pods_said_is_read_from_the_copy_also_when_the_cluster_is_away(
    service: Service, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(settings, "HOME", Home(tmp_path))
    Cluster.objects.update(kind="kubernetes")  # which nobody can reach from here
    write(deploy(service), "applying", at=1)
    for pod, at in (("diabetes-default-x1", 2.0), ("diabetes-default-x2", 3.0)):
        folder = tmp_path / "logs" / "pods" / service.cluster.name / "diabetes" / pod
        lines = (LogLine(at, pod, "stdout", f"{pod} begins"),)
        PodLog(folder).add(LogPage(lines, "cursor"), 1)
    page = read_page("service:diabetes")
    assert [(line.source, line.text) for line in page.lines] == [
        ("pipeline", "applying"),
        ("diabetes-default-x1", "diabetes-default-x1 begins"),
        ("diabetes-default-x2", "diabetes-default-x2 begins"),
    ]
    assert read_page("service:diabetes", page.cursor).lines == []


def test_a_replica_that_is_not_listed_for_a_moment_is_not_read_again(
    service: Service, driver: FakeDriver
) -> None:
    driver.say("a", 1, "one")
    cursor = read_page("service:diabetes").cursor
    away = driver.lines.pop("a")
    cursor = read_page("service:diabetes", cursor).cursor
    driver.lines["a"] = away
    driver.say("a", 2, "two")
    assert [line.text for line in read_page("service:diabetes", cursor).lines] == ["two"]


def test_places_of_logs_that_are_gone_are_forgotten_when_there_are_too_many(
    service: Service, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_sources, "_MOST_POSITIONS", 3)
    cursor = ""
    for number in range(20):
        driver.lines = {}
        driver.say(f"replica-{number}", number, f"line {number}")
        page = read_page("service:diabetes", cursor)
        assert [line.text for line in page.lines] == [f"line {number}"]
        cursor = page.cursor
    assert len(cursor) < 300


def test_another_services_deployment_cannot_be_read_by_a_made_up_cursor(
    service: Service, driver: FakeDriver
) -> None:
    other = Service.objects.create(name="other", cluster=service.cluster)
    write(deploy(other), "private")
    cursor = read_page(f"deployment:{other.deployments.get().pk}").cursor
    assert texts("service:diabetes") == []
    assert read_page("service:diabetes", cursor).lines == []


def test_a_build_log_is_read_by_the_hash(db: None) -> None:
    environment = create_environment(None, name="e", pip_requirements="six==1.0")
    path = settings.HOME.environment_log(environment.hash)
    path.unlink(missing_ok=True)
    logstore.append(path, [logstore.LogEntry(1, "build", "\x1b[32mInstalled\x1b[0m")])
    assert texts(f"environment:{environment.hash}") == ["Installed"]


@pytest.mark.parametrize(
    "source",
    [
        "service:nobody",
        "deployment:999999",
        f"environment:{'0' * 64}",
        "environment:../x",
        "x",
        "deployment:1/2",
    ],
)
def test_what_does_not_exist_is_not_found(source: str, db: None) -> None:
    with pytest.raises(NotFound):
        read_page(source)


@pytest.mark.parametrize("cursor", ["%%%", "bm90IGpzb24", "WzFd", "eyJhIjoxfQ", "x" * 70_000])
def test_a_cursor_that_was_not_given_out_is_refused(
    cursor: str, service: Service, driver: FakeDriver
) -> None:
    with pytest.raises(InvalidInput):
        read_page("service:diabetes", cursor)


def test_a_cluster_that_does_not_answer_is_no_empty_log(
    service: Service, driver: FakeDriver
) -> None:
    driver.down = True
    with pytest.raises(Unavailable):
        read_page("service:diabetes")
