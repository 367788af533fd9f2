"""The last words of runs that ended are asked for once each, and only changed pods are looked at."""

import time
from collections.abc import Iterator

import pytest

from deployments.drivers import kubernetes_replicas
from deployments.drivers.kubernetes import _Tails

ENDED = {"terminated": {"exitCode": 1, "finishedAt": "2026-11-22T23:00:20Z"}}


class Kube:
    """Plays an API server that has a pod's log."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def log(self, namespace: str, pod: str, *_: object, **__: object) -> Iterator[str]:
        self.asked.append(pod)
        yield "2026-11-22T23:00:19Z out of ideas"


def pod(name: str, restarts: int = 0, **state: object) -> dict:
    status = {"name": "model", "restartCount": restarts, "state": state}
    return {
        "metadata": {"name": name},
        "spec": {"startTries": 3},
        "status": {"containerStatuses": [status]},
    }


@pytest.fixture
def kube() -> Kube:
    return Kube()


@pytest.fixture
def tails(kube: Kube) -> Iterator[_Tails]:
    made = _Tails(kube, "models")
    yield made
    made.close()


def told(tails: _Tails, count: int) -> None:
    end = time.monotonic() + 10
    while tails.moved < count:
        assert time.monotonic() < end
        time.sleep(0.005)


def test_each_run_that_ended_is_asked_for_once(tails: _Tails, kube: Kube) -> None:
    first = {"a": pod("a", **ENDED), "b": pod("b", running={})}
    tails.of(first, {})
    told(tails, 1)
    assert tails.of({**first}, {}) == {("a", 0): "out of ideas"}
    tails.of({**first, "a": pod("a", 1, **ENDED)}, {})
    told(tails, 2)
    assert kube.asked == ["a", "a"]


def test_pods_that_are_as_they_were_are_not_looked_at_again(
    tails: _Tails, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    whole = kubernetes_replicas.ended_container

    def counted(found: dict, events: object) -> object:
        looked.append(found["metadata"]["name"])
        return whole(found, events)

    monkeypatch.setattr(kubernetes_replicas, "ended_container", counted)
    first = {name: pod(name, running={}) for name in "abc"}
    tails.of(first, {})
    tails.of({**first, "b": pod("b", 1, running={})}, {})
    assert looked == ["a", "b", "c", "b"]


def test_what_is_said_of_a_pod_has_it_looked_at_though_it_is_the_same(
    tails: _Tails, kube: Kube
) -> None:
    pods = {"a": pod("a", running={})}
    tails.of(pods, {})
    said = {"reason": "Unhealthy", "message": "Startup probe failed", "count": 3}
    tails.of(pods, {"a": [said]})
    told(tails, 1)
    assert kube.asked == ["a"]
