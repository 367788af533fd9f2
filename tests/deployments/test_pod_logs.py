"""Pods' output is copied once, whatever is killed meanwhile, and stays when the pod is gone."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from deployments import pod_logs
from deployments.drivers.base import LogLine, LogPage
from deployments.errors import NotFound, Unavailable
from deployments.pod_logs import Collector, Kept, PodLog, prune
from deployments.types import Observation, Phase, Replica

POD = Replica("iris-default-x1", "iris", "default", 1, Phase.READY)


class Pods:
    """A driver's logs: lines of each run of one pod; the cursor is "<run>:<line>"."""

    def __init__(self) -> None:
        self.runs: list[list[str]] = [[]]
        self.away: Exception | None = None
        self.asked = 0

    def logs(self, replica, *, cursor="", limit=1000, previous=False) -> LogPage:
        self.asked += 1
        if self.away is not None:
            raise self.away
        run, place = (int(part) for part in (cursor or "1:0").split(":"))
        texts = self.runs[run - 1][place : place + limit]
        lines = tuple(LogLine(100.0 + run, replica, "stdout", text) for text in texts)
        if not texts and run < len(self.runs):
            return LogPage((), f"{run + 1}:0", run=run + 1)
        return LogPage(lines, f"{run}:{place + len(texts)}", run=run)


def seen(*replicas: Replica) -> Observation:
    return Observation(time.time(), (), replicas)


@pytest.fixture
def pods() -> Pods:
    return Pods()


@pytest.fixture
def take(tmp_path, pods):
    """Has a collector take one turn, after so many seconds."""
    made = {"collector": Collector(tmp_path, days=7), "at": time.monotonic()}

    def turn(*replicas: Replica, new: bool = False, after: float = 20.0) -> Collector:
        if new:
            made["collector"] = Collector(tmp_path, days=7)
        collector = made["collector"]
        collector.see("east", pods, seen(*replicas))
        made["at"] += after
        with ThreadPoolExecutor(2) as pool:
            collector.turn(pool, made["at"])
        return collector

    return turn


def texts(tmp_path, **how) -> list[str]:
    page = Kept(tmp_path, "east").logs(POD.id, **how)
    return [line.text for line in page.lines]


def test_what_pods_say_is_kept_when_they_are_gone(take, pods, tmp_path):
    pods.runs[0] += ["one", "two"]
    take(POD)
    pods.runs[0].append("three")
    take(POD)
    take()
    pods.away = NotFound("pods not found")
    assert texts(tmp_path) == ["one", "two", "three"]
    assert Kept(tmp_path, "east").log_replicas("iris") == [POD.id]
    assert Kept(tmp_path, "east").log_replicas("other") == []
    with pytest.raises(NotFound):
        Kept(tmp_path, "west").logs(POD.id)


def test_another_controller_goes_on_where_the_last_one_was(take, pods, tmp_path):
    pods.runs[0] += ["one", "two"]
    take(POD)
    pods.runs[0] += ["three"]
    take(POD, new=True)
    take(POD, new=True)
    assert texts(tmp_path) == ["one", "two", "three"]


@pytest.mark.parametrize("kept", range(0, 240, 7))
def test_killed_in_the_middle_of_a_write_no_line_is_twice_or_missing(tmp_path, pods, kept):
    said = ["one", "two", 'three,"k":"x"', "four"]
    folder = tmp_path / "east" / "iris" / POD.id
    pods.runs[0] += said[:2]
    PodLog(folder).add(pods.logs(POD.id), 1)
    (segment,) = folder.iterdir()
    whole = segment.stat().st_size
    pods.runs[0] += said[2:]
    second = PodLog(folder)
    second.add(pods.logs(POD.id, cursor=second.cursor), 1)
    data = segment.read_bytes()
    segment.write_bytes(data[: min(len(data), whole + kept)])  # torn anywhere in the second batch
    again = PodLog(folder)
    again.add(pods.logs(POD.id, cursor=again.cursor), 1)
    assert texts(tmp_path) == said
    numbers = [line.split(b",")[0] for line in segment.read_bytes().splitlines()]
    assert numbers == [b'{"n":%d' % number for number in range(1, 5)]


def test_a_first_batch_that_is_torn_is_read_anew(tmp_path, pods):
    folder = tmp_path / "east" / "iris" / POD.id
    pods.runs[0] += ["one", "two"]
    PodLog(folder).add(pods.logs(POD.id), 1)
    (segment,) = folder.iterdir()
    segment.write_bytes(segment.read_bytes()[:50])
    again = PodLog(folder)
    assert again.cursor == ""
    again.add(pods.logs(POD.id), 1)
    assert texts(tmp_path) == ["one", "two"]


def test_an_api_server_that_is_away_for_a_while_costs_no_line(take, pods, tmp_path, caplog):
    pods.runs[0] += ["one"]
    take(POD)
    pods.away = Unavailable("The API server cannot be reached.")
    pods.runs[0] += ["two"]
    take(POD)
    take(POD)
    pods.away = None
    pods.runs[0] += ["three"]
    take(POD)
    assert texts(tmp_path) == ["one", "two", "three"]
    assert len([item for item in caplog.records if "cannot be reached" in item.message]) == 1


def test_the_run_before_can_be_looked_at(take, pods, tmp_path):
    pods.runs[0] += ["one", "Traceback"]
    take(POD)
    pods.runs[0] += ["died"]
    pods.runs.append(["again"])
    take(replace(POD, restarts=1))
    assert texts(tmp_path) == ["one", "Traceback", "died", "again"]
    assert texts(tmp_path, previous=True) == ["one", "Traceback", "died"]


def test_a_pod_that_says_nothing_is_looked_at_less_often_and_one_that_changes_at_once(take, pods):
    take(POD, after=0.1)
    for _ in range(6):
        take(POD, after=60.0)
    asked = pods.asked
    take(POD, after=0.5)
    assert pods.asked == asked
    take(replace(POD, phase=Phase.DRAINING), after=0.5)
    assert pods.asked > asked


def test_all_pods_together_are_not_asked_more_than_so_often(take, pods, tmp_path):
    many = [replace(POD, id=f"iris-{number}") for number in range(100)]
    take(*many)
    assert pods.asked <= 2 * pod_logs._A_SECOND * 0.25


def test_names_that_lead_elsewhere_are_left_alone(take, pods):
    take(replace(POD, id="../../x"), replace(POD, service="..", id="y"))
    assert pods.asked == 0


def test_a_long_log_is_kept_in_pieces_and_no_longer_than_it_may(tmp_path, monkeypatch, pods):
    monkeypatch.setattr(pod_logs, "_SEGMENT_BYTES", 1000)
    monkeypatch.setattr(pod_logs, "_LOG_BYTES", 3000)
    folder = tmp_path / "east" / "iris" / POD.id
    made = PodLog(folder)
    for number in range(200):
        pods.runs[0].append(f"line {number}")
        made.add(pods.logs(POD.id, cursor=made.cursor), 1)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3500
    kept = texts(tmp_path)
    assert kept == [f"line {number}" for number in range(200 - len(kept), 200)]
    assert PodLog(folder).cursor == "1:200"


def test_what_is_old_goes_and_what_lives_stays(tmp_path, monkeypatch, pods):
    monkeypatch.setattr(pod_logs, "_MOST_GONE", 2)
    pods.runs[0].append("one")
    folders = [tmp_path / "east" / "iris" / f"pod-{number}" for number in range(4)]
    for folder in folders:
        PodLog(folder).add(pods.logs(folder.name), 1)
    now = time.time()
    assert prune(tmp_path, {folders[0]}, now, days=7) == 1
    assert len(list((tmp_path / "east" / "iris").iterdir())) == 3
    assert prune(tmp_path, {folders[0]}, now + 7 * 86400 + 5, days=7) == 2
    assert [item.name for item in (tmp_path / "east" / "iris").iterdir()] == ["pod-0"]


def test_what_lives_on_a_cluster_that_was_not_seen_yet_is_left_alone(take, pods, tmp_path):
    pods.runs[0].append("one")
    folder = tmp_path / "east" / "iris" / POD.id
    PodLog(folder).add(pods.logs(POD.id), 1)
    (segment,) = folder.iterdir()
    os.utime(segment, (1.0, 1.0))  # it has said nothing for long
    collector = Collector(tmp_path, days=7)
    collector.forget(["east"])
    with ThreadPoolExecutor(1) as pool:
        collector.turn(pool, 1000.0)
    assert folder.exists()
    collector.see("east", pods, seen())
    with ThreadPoolExecutor(1) as pool:
        collector.turn(pool, 2000.0)
    assert not folder.exists()
