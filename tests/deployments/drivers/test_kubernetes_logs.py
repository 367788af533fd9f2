"""A pod's output, page by page, from a server that goes back to the second only."""

import random

import pytest

from deployments.drivers import kubernetes_logs as module
from deployments.errors import Conflict, InvalidInput, NotFound

SECOND = 10**9
NOON = 1_700_000_000 * SECOND


def stamp(at: int) -> str:
    return module._since(at)[:-1] + f".{at % SECOND:09d}Z"


class FakeKube:
    """Lines of (pod, container, previous), each with its time."""

    def __init__(self) -> None:
        self.lines: dict[tuple[str, bool], list[tuple[int, str]]] = {}
        self.gone = False

    def say(self, text: str, at: int, container: str = "model") -> None:
        self.lines.setdefault((container, False), []).append((at, text))

    def restart(self, container: str = "model") -> None:
        self.lines[container, True] = self.lines.pop((container, False), [])

    def log(self, namespace, pod, container, *, previous=False, since="", tail=None, follow=0.0):
        if self.gone:
            raise NotFound("pods not found")
        if previous and (container, True) not in self.lines:
            raise Conflict("previous terminated container not found")
        for at, text in list(self.lines.get((container, previous), [])):
            if not since or module._since(at) >= since:
                yield f"{stamp(at)} {text}"


def pod(*, restarts: int = 0, containers: tuple[str, ...] = ("model",)) -> dict:
    return {
        "metadata": {"name": "iris-1"},
        "spec": {"containers": [{"name": name} for name in containers]},
        "status": {
            "containerStatuses": [
                {"name": name, "restartCount": restarts, "state": {"running": {}}}
                for name in containers
            ]
        },
    }


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


def all_of(kube, cursor: str = "", *, limit: int = 1000, **seen) -> tuple[list[str], str]:
    """Read on until there is no more."""
    texts: list[str] = []
    while True:
        page = module.read(kube, "ns", pod(**seen), cursor=cursor, limit=limit)
        if not page.lines and page.cursor == cursor:
            return texts, cursor
        assert len(page.lines) <= limit
        texts += [line.text for line in page.lines]
        cursor = page.cursor


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
def test_lines_of_one_second_are_read_once_each_whatever_the_page(kube, limit):
    expected = []
    cursor = ""
    found: list[str] = []
    for number in range(30):
        at = NOON + (number // 10) * SECOND + (number % 10) // 3 * 1000  # three at a time
        kube.say(f"line {number}", at)
        expected.append(f"line {number}")
        if number % 4 == 0:
            texts, cursor = all_of(kube, cursor, limit=limit)
            found += texts
    texts, cursor = all_of(kube, cursor, limit=limit)
    assert found + texts == expected


def test_a_line_that_comes_a_little_late_is_read_too(kube):
    kube.say("b", NOON + 2000)
    texts, cursor = all_of(kube)
    kube.say("a, written later", NOON + 1000)
    kube.say("c", NOON + 3000)
    more, cursor = all_of(kube, cursor)
    assert texts + more == ["b", "a, written later", "c"]
    assert all_of(kube, cursor)[0] == []


def test_what_the_run_before_said_last_comes_before_the_new_one(kube):
    kube.say("one", NOON)
    texts, cursor = all_of(kube)
    kube.say("Traceback", NOON + 5)
    kube.restart()
    kube.say("again", NOON + SECOND)
    page = module.read(kube, "ns", pod(restarts=1), cursor=cursor)
    assert ([line.text for line in page.lines], page.run) == (["Traceback"], 1)
    page = module.read(kube, "ns", pod(restarts=1), cursor=page.cursor)
    assert ([line.text for line in page.lines], page.run) == (["again"], 2)
    before = module.read(kube, "ns", pod(restarts=1), previous=True)
    assert ([line.text for line in before.lines], before.run) == (["one", "Traceback"], 1)


def test_who_reads_from_the_beginning_gets_both_runs_that_are_there(kube):
    kube.say("first", NOON)
    kube.restart()
    kube.say("second", NOON + 9)
    assert all_of(kube, restarts=1)[0] == ["first", "second"]


def test_containers_of_a_pod_are_one_log_in_the_order_of_time(kube):
    kube.say("fetched", NOON, "fetch")
    for number in range(6):
        kube.say(f"{number}", NOON + number + 1, ("model", "front")[number % 2])
    names = ("fetch", "model", "front")
    for limit in (1, 2, 50):
        texts, _ = all_of(kube, limit=limit, containers=names)
        assert texts == ["fetched", "0", "1", "2", "3", "4", "5"]


def test_nothing_is_asked_of_a_container_that_has_never_run():
    waiting = pod()
    waiting["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "PodInitializing"}}
    assert module.containers_of(waiting) == {}
    assert module.read(FakeKube(), "ns", waiting).lines == ()


def test_a_pod_that_is_gone_says_so(kube):
    kube.gone = True
    with pytest.raises(NotFound):
        module.read(kube, "ns", pod())


def test_times_are_those_of_the_node_in_any_zone():
    found = module.parsed("2023-11-14T23:13:20.5+01:00 hello  there", "model")
    assert found == module.Said(NOON + SECOND // 2, "model", "hello  there")
    assert module.parsed("2023-11-14T22:13:20Z ", "model") == module.Said(NOON, "model", "")
    assert module.parsed("unable to retrieve container logs", "model") is None


@pytest.mark.parametrize("cursor", ["x", "[1]", '{"model": 1}', '{"model": ["a"]}'])
def test_a_cursor_of_somebody_elses_is_refused(kube, cursor):
    with pytest.raises(InvalidInput):
        module.read(kube, "ns", pod(), cursor=cursor)


def test_no_line_is_lost_or_doubled_in_a_long_run_with_restarts(kube):
    chance = random.Random(4)
    at, restarts, cursor = NOON, 0, ""
    said, found = [], []
    for number in range(400):
        at += chance.choice((0, 1, 500, 10**6, 10**9))
        kube.say(f"{number}", at)
        said.append(f"{number}")
        if chance.random() < 0.3:
            texts, cursor = all_of(
                kube, cursor, limit=chance.choice((1, 3, 100)), restarts=restarts
            )
            found += texts
            if chance.random() < 0.2:
                kube.restart()
                restarts += 1
    found += all_of(kube, cursor, restarts=restarts)[0]
    assert found == said
