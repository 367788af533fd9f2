"""Trying a service: what is sent, where to, and what is shown of the answer."""

import asyncio
import io
import json
from collections.abc import Callable

import httpx
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import AsyncClient
from django.urls import reverse

from deployments.services.models import Service
from portal import scoring
from portal.json_text import pretty
from portal.models import User

URI = "http://127.0.0.1:27999/api/v1/service/diabetes/score"


def _score(handler: Callable, body: object = b"{}", **more: object) -> scoring.Attempt:
    async def go() -> scoring.Attempt:
        return await scoring.score(
            URI,
            **{
                "body": body,
                "size": len(body) if isinstance(body, bytes) else 5,
                "content_type": "application/json",
                "key": "a-key",
                "version": "",
                "deadline": 2.0,
                "transport": httpx.MockTransport(handler),
                **more,
            },
        )

    return asyncio.run(go())


def test_the_request_carries_key_type_and_length_to_the_scoring_uri() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"result": [1, 2]})

    attempt = _score(answer, b'{"data": 1}', version="blue")
    assert str(seen[0].url) == URI
    assert seen[0].headers["authorization"] == "Bearer a-key"
    assert seen[0].headers["content-length"] == "11"
    assert seen[0].headers["azureml-model-deployment"] == "blue"
    assert "transfer-encoding" not in seen[0].headers
    assert attempt.status == 200
    assert attempt.is_json is True
    assert json.loads(attempt.body) == {"result": [1, 2]}


def test_nothing_is_sent_for_an_empty_key_or_version() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert "authorization" not in request.headers
        assert "azureml-model-deployment" not in request.headers
        return httpx.Response(200)

    assert _score(answer, key="").status == 200


def test_a_file_is_streamed_from_its_beginning() -> None:
    file = io.BytesIO(b"12345")
    file.read()

    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=await request.aread())

    assert _score(answer, file).body == "12345"


def test_a_redirect_is_shown_and_never_followed() -> None:
    calls: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(str(request.url))
        return httpx.Response(302, headers={"location": "http://169.254.169.254/"})

    assert _score(answer).status == 302
    assert calls == [URI]


def test_no_answer_in_time_is_said_with_the_deadline() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow")

    attempt = _score(answer)
    assert attempt.status is None
    assert "within 2 s" in attempt.error


def test_a_router_that_is_not_there_is_said_with_its_address() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    attempt = _score(answer)
    assert attempt.status_class == 0
    assert URI in attempt.error


def test_a_trickling_answer_ends_at_the_deadline() -> None:
    class Trickle(httpx.AsyncByteStream):
        async def __aiter__(self):
            while True:
                yield b"x"
                await asyncio.sleep(0.01)

    attempt = _score(lambda request: httpx.Response(200, stream=Trickle()), deadline=0.1)
    assert attempt.total < 1.0
    assert attempt.cut or attempt.error


def test_a_huge_answer_is_cut_and_says_so() -> None:
    attempt = _score(lambda request: httpx.Response(200, content=b"x" * (2**20)))
    assert attempt.cut is True
    assert attempt.body_size == 512 * 1024


@pytest.mark.parametrize("status", [401, 404, 413, 502, 503, 504])
def test_a_status_of_the_router_is_explained(status: int) -> None:
    attempt = _score(lambda request: httpx.Response(status, json={"message": "x"}))
    assert attempt.meaning


def test_times_come_from_the_routers_header_and_are_unknown_without_it() -> None:
    timing = {"server-timing": "queue;dur=12,replica;dur=30"}
    timed = _score(lambda request: httpx.Response(200, headers=timing, content=b""))
    assert (timed.queue, timed.service) == (0.012, 0.03)
    without = _score(lambda request: httpx.Response(200, content=b""))
    assert (without.queue, without.service) == (None, None)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("queue;dur=0,replica;dur=1.5", {"queue": 0.0, "replica": 0.0015}),
        ("queue;dur=-1,replica;dur=-1", {}),
        ("queue;dur=soon, ,x", {}),
        ("", {}),
    ],
)
def test_a_time_that_is_no_figure_is_unknown(text: str, found: dict[str, float]) -> None:
    assert scoring.server_timing(text) == found


def test_rows_of_data_stay_on_one_line() -> None:
    assert pretty({"data": [[1, 2], [3, 4]], "names": ["a]b", "c"]}).splitlines() == [
        "{",
        '  "data": [',
        "    [1, 2],",
        "    [3, 4]",
        "  ],",
        '  "names": [',
        '    "a]b",',
        '    "c"',
        "  ]",
        "}",
    ]


@pytest.mark.django_db(transaction=True)
class TestTheView:
    async def _send(self, person: User, **data: object) -> tuple[int, str]:
        client = AsyncClient()
        await client.aforce_login(person)
        answer = await client.post(reverse("service-test-send", args=["diabetes"]), data)
        return answer.status_code, answer.content.decode()

    @pytest.fixture
    def seen(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict]]:
        calls: list[tuple[str, dict]] = []

        async def score(uri: str, **asked: object) -> scoring.Attempt:
            calls.append((uri, asked))
            return scoring.Attempt(status=200, body="{}", total=0.012, is_json=True)

        monkeypatch.setattr(scoring, "score", score)
        return calls

    async def test_it_sends_with_the_key_and_never_shows_it(
        self, service: Service, deployer: User, seen: list
    ) -> None:
        status, text = await self._send(deployer, body='{"data": [[1]]}', version="default")
        assert status == 200
        (uri, asked) = seen[0]
        assert uri == URI
        assert asked["key"] == "primary-key-of-the-test"
        assert asked["version"] == "default"
        assert asked["deadline"] == 65.5
        assert "primary-key-of-the-test" not in text
        assert "12 ms" in text

    async def test_nothing_in_the_request_can_turn_it_elsewhere(
        self, service: Service, deployer: User, seen: list
    ) -> None:
        await self._send(
            deployer,
            body="{}",
            uri="http://evil",
            url="http://evil",
            scoring_uri="http://evil",
            host="evil",
        )
        assert [uri for uri, _ in seen] == [URI]

    async def test_a_service_without_keys_gets_none(
        self, service: Service, deployer: User, seen: list
    ) -> None:
        await Service.objects.aupdate(auth_enabled=False)
        await self._send(deployer, body="{}")
        assert seen[0][1]["key"] == ""

    async def test_broken_json_is_sent_and_remarked(
        self, service: Service, deployer: User, seen: list
    ) -> None:
        _, text = await self._send(deployer, body='{"data": ')
        assert len(seen) == 1
        assert "is not JSON" in text

    async def test_a_file_takes_the_place_of_the_text(
        self, service: Service, deployer: User, seen: list
    ) -> None:
        file = SimpleUploadedFile("x.bin", b"\x00\x01\x02", "application/octet-stream")
        await self._send(deployer, body="{}", file=file, content_type="application/octet-stream")
        assert seen[0][1]["size"] == 3

    @pytest.mark.parametrize(
        "wrong", [{"version": "green"}, {"content_type": "text/plain\r\nx-evil: 1"}]
    )
    async def test_what_is_wrong_is_refused_and_not_sent(
        self, wrong: dict, service: Service, deployer: User, seen: list
    ) -> None:
        status, text = await self._send(deployer, body="{}", **wrong)
        assert status == 422
        assert "alert-error" in text
        assert seen == []
