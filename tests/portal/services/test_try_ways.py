"""Which way a request from the Test page goes, and that it never goes twice."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from django.test import AsyncClient
from django.urls import reverse

from deployments.clusters.models import Cluster
from deployments.errors import PermanentError, SlipwayError, Unavailable
from deployments.services.models import Service
from portal import scoring, try_ways
from portal.models import User
from portal.scoring import Attempt
from router.trying import LARGEST, Answered, Asked, asked_of, to_wire

HEADERS = (
    ("x-request-id", "r1"),
    ("server-timing", "queue;dur=2,replica;dur=8"),
    ("set-cookie", "a"),
)


@dataclass
class Pod:
    """A pod's door; keeps what was asked."""

    answer: bytes | SlipwayError
    asked: list[tuple[Asked, bytes, float]] = field(default_factory=list)

    def post(self, path: str, body: bytes, seconds: float) -> bytes:
        assert path == "/try"
        self.asked.append((*asked_of(body), seconds))
        if isinstance(self.answer, SlipwayError):
            raise self.answer
        return self.answer


def _pod(monkeypatch: pytest.MonkeyPatch, answer: bytes | SlipwayError) -> Pod:
    pod = Pod(answer)
    monkeypatch.setattr(try_ways, "pod_doors", lambda cluster: {"slipway-router-b": pod})
    return pod


@pytest.fixture
def inside(service: Service) -> Service:
    Cluster.objects.update(kind="kubernetes", router_url="http://10.255.0.1:30080")
    return Service.objects.select_related("cluster").get()


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> Callable[[Attempt], list[dict[str, Any]]]:
    """What the router's address answers; returns what it was asked."""

    def answers(attempt: Attempt) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = []

        async def score(uri: str, **asked: Any) -> Attempt:
            calls.append({"uri": uri, **asked})
            return attempt

        monkeypatch.setattr(scoring, "score", score)
        return calls

    return answers


def _send(service: Service, body: bytes = b"{}", size: int | None = None) -> Attempt:
    asked = {
        "body": body,
        "size": len(body) if size is None else size,
        "content_type": "application/json",
        "key": "the-key",
        "version": "blue",
        "deadline": 7.0,
        "door": None,
    }
    return asyncio.run(try_ways.send(service, asked))


def test_an_address_that_is_reached_is_the_way_whatever_it_answers(
    inside: Service, direct: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = _pod(monkeypatch, b"")
    for answer in (Attempt(status=502), Attempt(error="No answer came within 7 s")):
        calls = direct(answer)
        found = _send(inside)
        assert (found.status, found.error) == (answer.status, answer.error)
        assert "Sent to http://10.255.0.1:30080" in found.way
        assert calls[0]["connect"] < scoring.CONNECT
    assert pod.asked == []


def test_one_that_is_not_goes_through_the_api_server_with_the_same_codes_and_headers(
    inside: Service, direct: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct(Attempt(unreached=True))
    pod = _pod(monkeypatch, to_wire(Answered(502, 0.25, HEADERS), b'{"error": {"code": "x"}}'))
    found = _send(inside, b'{"a": 1}')
    asked, body, seconds = pod.asked[0]
    assert (asked.service, asked.key, asked.version, body) == (
        "diabetes", "the-key", "blue", b'{"a": 1}'
    )  # fmt: skip
    assert asked.seconds == 7.0 < seconds
    assert (found.status, found.is_json, found.total) == (502, True, 0.25)
    assert (found.request_id, found.queue, found.service) == ("r1", 0.002, 0.008)
    assert "set-cookie" not in dict(found.headers) and "run() raised" in found.meaning
    assert "API server’s proxy to the router’s pod slipway-router-b" in found.way
    assert "http://10.255.0.1:30080 cannot be reached" in found.way
    assert "the-key" not in repr(found)


def test_what_went_wrong_on_that_way_is_said(
    inside: Service, direct: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct(Attempt(unreached=True))
    for answer, said in (
        (Unavailable("The API server did not answer."), "did not answer"),
        (PermanentError("405 GET only"), "older image"),
        (to_wire(Answered(None, 7.0, error="No answer came within 7 s."), b""), "within 7 s"),
        (b"nonsense", "cannot be read"),
    ):
        _pod(monkeypatch, answer)
        found = _send(inside)
        assert found.status is None and said in found.error and "proxy" in found.way
    monkeypatch.setattr(try_ways, "pod_doors", lambda cluster: {})
    assert "No pod of the router" in _send(inside).error


@pytest.mark.parametrize(("size", "sent"), [(LARGEST, 1), (LARGEST + 1, 0)])
def test_that_way_takes_small_requests_alone(
    inside: Service, direct: Any, monkeypatch: pytest.MonkeyPatch, size: int, sent: int
) -> None:
    direct(Attempt(unreached=True))
    pod = _pod(monkeypatch, to_wire(Answered(200, 0.1), b""))
    found = _send(inside, size=size)
    assert len(pod.asked) == sent
    assert sent or "8 MiB" in found.error


def test_a_router_of_this_machine_has_one_way(
    service: Service, direct: Any, monkeypatch: Any
) -> None:
    calls = direct(Attempt(unreached=True, error="refused"))
    pod = _pod(monkeypatch, b"")
    assert _send(service).error == "refused"
    assert (len(calls), pod.asked) == (1, [])


def test_only_a_connection_that_never_was_counts_as_not_sent() -> None:
    def attempt(error: Exception) -> Attempt:
        def fails(request: httpx.Request) -> httpx.Response:
            raise error

        return asyncio.run(
            scoring.score(
                "http://10.255.0.1/", body=b"", size=0, content_type="a/b", key="", version="",
                deadline=1.0, transport=httpx.MockTransport(fails),
            )
        )  # fmt: skip

    assert attempt(httpx.ConnectError("refused")).unreached
    assert attempt(httpx.ConnectTimeout("")).unreached
    assert not attempt(httpx.ReadTimeout("late")).unreached
    assert not attempt(httpx.RemoteProtocolError("cut")).unreached


@pytest.mark.django_db(transaction=True)
async def test_the_page_says_which_way_it_went(
    async_client: AsyncClient, deployer: User, inside: Service, direct: Any, monkeypatch: Any
) -> None:
    direct(Attempt(unreached=True))
    _pod(monkeypatch, to_wire(Answered(200, 0.1, HEADERS), b"[1]"))
    await async_client.aforce_login(deployer)
    answer = await async_client.post(
        reverse("service-test-send", args=["diabetes"]), {"body": "{}", "version": ""}
    )
    page = answer.content.decode()
    assert "200 OK" in page and "slipway-router-b" in page and "primary-key-of" not in page
