"""The way to a router's pod through the API server, and to all of its pods."""

import json
from typing import Any

import pytest

from deployments.errors import NotFound, PermanentError, Unavailable
from deployments.types import CustomLines
from router import admin_client
from router.doors import PodDoor
from router.setup import Status


class FakeKube:
    """Answers for pods by name; an exception is raised."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[Any, ...]] = []

    def proxy(
        self, namespace: str, target: str, port: int, method: str, path: str,
        body: bytes | None = None, *, seconds: float | None = None,
    ) -> bytes:  # fmt: skip
        self.asked.append((namespace, target, port, method, path, body, seconds))
        answer = self.answers[target]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()


def door(kube: FakeKube, pod: str = "a") -> PodDoor:
    return PodDoor(kube, "models", pod)  # type: ignore[arg-type]


def test_a_question_goes_to_the_pods_admin_port_with_its_query() -> None:
    kube = FakeKube(a={"ok": 1})
    query = {"after": 3, "epoch": "x y"}
    assert door(kube).ask("GET", "/telemetry", 2.0, query=query) == {"ok": 1}
    assert kube.asked == [("models", "a", 8090, "GET", "/telemetry?after=3&epoch=x+y", None, 2.0)]


def test_a_body_goes_as_json() -> None:
    kube = FakeKube(a={"ok": True, "remarks": []})
    assert admin_client.check(door(kube), CustomLines(defaults=("option x",))) == (True, [])
    assert json.loads(kube.asked[0][5])["defaults"] == ["option x"]


@pytest.mark.parametrize(
    "answer", [NotFound("gone"), PermanentError("no"), Unavailable("away"), b"<html>"]
)
def test_whatever_stands_in_the_way_is_unavailable(answer: Any) -> None:
    with pytest.raises(Unavailable):
        door(FakeKube(a=answer)).ask("GET", "/size", 1.0)


def status(generation: int, problem: str = "") -> dict[str, Any]:
    return {"generation": generation, "wanted": 3, "problem": problem, "tls_not_after": None}


def test_a_router_follows_as_far_as_the_last_of_its_pods() -> None:
    kube = FakeKube(a=status(3), b=status(2))
    found = admin_client.status_of_all([door(kube, "a"), door(kube, "b")])
    assert found == Status(2, 3, "", None)


def test_what_one_pod_is_refused_the_router_is() -> None:
    kube = FakeKube(a=status(3), b=status(2, "no such word"))
    assert admin_client.status_of_all([door(kube, "a"), door(kube, "b")]).problem == "no such word"


def test_a_router_without_pods_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        admin_client.status_of_all([])
