"""What passes through the router unharmed, and how exact its limits are. With a real HAProxy."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from deployments.types import AuthSpec
from tests.router.conftest import Rig
from tests.router.fakes import replica, service
from tests.router.test_routing import error, serving

pytestmark = pytest.mark.daemons

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def raw_replica(rig: Rig, serve: Serve, name: str = "demo") -> asyncio.Server:
    """A service whose only replica speaks as this function does."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    rig.driver.put(service(name), replica(f"{name}-0", name, f"{host}:{port}"))
    rig.start()
    await rig.routed(f"{name}-0")
    return server


async def test_replicas_that_refuse_every_connection_are_a_502(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    for attempt in range(4):
        name = f"demo{attempt}"
        made = await serving(rig, name, count=2)
        for item in made:
            await item.kill()
        answer = await client.post(rig.score(name), content=b"{}")
        code, words = "NoReadyReplicas", f"No ready replicas for service {name}"
        if answer.status_code == 503:
            continue  # a check was faster than this request, and nobody was tried any more
        assert error(answer) == (502, code, words)
        later = await client.post(rig.score(name), content=b"{}")
        assert error(later) == (503, code, words)
        assert int(later.headers["retry-after"]) >= 1
        return
    pytest.fail("the checks were always faster")


async def test_a_request_waits_as_long_as_its_service_says_and_no_longer(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    await serving(rig, max_request_wait_ms=300)
    url = rig.score("demo")
    first = asyncio.create_task(client.post(url, content=b"sleep 1.5"))
    await asyncio.sleep(0.2)
    begun = time.monotonic()
    answer = await client.post(url, content=b"{}")
    waited = time.monotonic() - begun
    assert error(answer) == (
        503,
        "TooManyRequests",
        "Too many requests for service demo (overloaded)",
    )
    assert 0.3 <= waited < 0.35 + 0.2  # 50 ms at most, and what a busy machine adds
    assert (await first).status_code == 200


@pytest.mark.parametrize("sent", [b"", b'{"result": '])
async def test_a_replica_that_dies_between_head_and_body_of_a_short_answer_is_a_502(
    rig: Rig, client: httpx.AsyncClient, sent: bytes
) -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
        await asyncio.sleep(0.05)  # so that HAProxy has the head by itself
        writer.write(sent)
        await asyncio.sleep(0.05)
        writer.transport.abort()

    server = await raw_replica(rig, die)
    answer = await client.post(rig.score("demo"), content=b"{}")
    server.close()
    assert error(answer) == (502, "ReplicaFailed", "Replica closed connection before replying")


async def test_a_streamed_answer_arrives_as_it_is_made(rig: Rig) -> None:
    beat, gap = 5, 0.15

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        for number in range(beat):
            event = b"data: %d\n\n" % number
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
            await writer.drain()
            await asyncio.sleep(gap)
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    server = await raw_replica(rig, stream)
    arrived: list[tuple[float, str]] = []
    async with (
        httpx.AsyncClient() as client,
        client.stream("POST", rig.score("demo"), content=b"{}") as answer,
    ):
        async for text in answer.aiter_text():
            arrived.append((time.monotonic(), text))
    server.close()
    assert [text for _, text in arrived] == [f"data: {number}\n\n" for number in range(beat)]
    gaps = [later - sooner for (sooner, _), (later, _) in zip(arrived, arrived[1:], strict=False)]
    assert min(gaps) > gap / 2  # one by one, and not all at the end


async def test_a_websocket_passes_both_ways(rig: Rig) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"upgrade: websocket" not in head.lower():
            return
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        )
        while data := await reader.read(100):
            writer.write(data.upper())
            await writer.drain()

    server = await raw_replica(rig, echo)
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.settings.port)
    writer.write(
        b"GET /api/v1/service/demo/score HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert head.startswith(b"HTTP/1.1 101")
    for word in (b"one", b"two"):
        writer.write(word)
        assert await asyncio.wait_for(reader.read(100), 5) == word.upper()
    writer.close()
    server.close()


async def test_a_body_of_the_most_bytes_passes(rig: Rig, client: httpx.AsyncClient) -> None:
    await serving(rig)
    size = 100 * 2**20
    answer = await client.post(rig.score("demo"), content=b"\0" * size)
    assert (answer.status_code, answer.json()["bytes"]) == (200, size)


async def test_http2_without_tls_passes(rig: Rig) -> None:
    await serving(rig)
    process = await asyncio.create_subprocess_exec(
        "curl",
        "--silent",
        "--max-time",
        "10",
        "--http2-prior-knowledge",
        "--write-out",
        " %{http_version} %{http_code}",
        "--data",
        "{}",
        rig.score("demo"),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert output.decode().endswith(" 2 200")


@pytest.fixture
async def anybody() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=10) as made:
        yield made


async def test_the_fast_lane_answers_as_the_full_one(rig: Rig, anybody: httpx.AsyncClient) -> None:
    """The first request of a connection takes the full lane, those after it the fast one."""
    key = "k" * 32
    auth = AuthSpec(key_digests=(hashlib.sha256(key.encode()).hexdigest(),))
    [tiny] = await serving(rig, auth=auth)
    url, headers = rig.score("demo"), {"authorization": f"Bearer {key}"}
    answers = [await anybody.post(url, headers=headers, content=b"{}") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert "server-timing" in answers[0].headers
    assert "server-timing" not in answers[1].headers
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3
    for head, answer in zip(tiny.heads, answers, strict=True):
        assert head.startswith("POST /score ")
        assert f"x-request-id: {answer.headers['x-request-id']}" in head
        assert "authorization" not in head.lower()
    # nothing of the connection's memory opens what is not shown again
    assert (await anybody.post(url, content=b"{}")).status_code == 401
    assert (await anybody.post(url, headers=headers, content=b"{}")).status_code == 200
    wrong = {"authorization": "Bearer " + "w" * 32}
    assert (await anybody.post(url, headers=wrong, content=b"{}")).status_code == 401
    other = await anybody.post(rig.score("other"), headers=headers, content=b"{}")
    assert other.status_code == 404


async def test_words_between_the_routers_parts_are_not_taken_from_clients(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    [tiny] = await serving(rig)
    forged = {"x-slipway-who": "primary", "x-slipway-be": "be_0002", "x-slipway-retry": "1"}

    async def parts() -> AsyncIterator[bytes]:
        yield b"{}"

    for content in (b"{}", parts()):  # announced, and by way of the body frontend
        answer = await client.post(rig.score("demo"), headers=forged, content=content)
        assert answer.status_code == 200
        assert "x-slipway-" not in tiny.heads[-1].lower()
        assert tiny.heads[-1].lower().count("x-request-id:") == 1
