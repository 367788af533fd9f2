"""Request bodies are spooled to the uploads folder, within limits, and not from strangers."""

import asyncio
import dataclasses

import pytest
from asgiref.testing import ApplicationCommunicator
from django.contrib.sessions.backends.db import SessionStore

from portal import bodies
from portal.bodies import BodyHandler

pytestmark = pytest.mark.django_db(transaction=True)
MIB = 2**20


def _scope(headers):
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/api/v1/nothing",
        "raw_path": b"/api/v1/nothing",
        "query_string": b"",
        "scheme": "http",
        "headers": [(b"host", b"localhost"), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
    }


async def _post(headers, chunks):
    """(status, body) for a request whose body comes in chunks."""
    talk = ApplicationCommunicator(BodyHandler(), _scope(headers))
    for number, chunk in enumerate(chunks, start=1):
        await talk.send_input(
            {"type": "http.request", "body": chunk, "more_body": number < len(chunks)}
        )
    start = await talk.receive_output(20)
    body = b""
    while True:
        message = await talk.receive_output(20)
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await talk.send_input({"type": "http.disconnect"})
    await talk.wait(20)
    return start["status"], body.decode()


@pytest.fixture
def limits(settings, monkeypatch):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = MIB
    settings.ENV = dataclasses.replace(settings.ENV, max_upload_gb=4 / 1024)
    monkeypatch.setattr(bodies, "_ENVELOPE", 0)


@pytest.fixture
def cookie(settings):
    session = SessionStore()
    session.create()
    return (b"cookie", f"{settings.SESSION_COOKIE_NAME}={session.session_key}".encode())


def _length(size):
    return (b"content-length", str(size).encode())


async def test_a_small_body_passes_from_anybody(limits):
    status, _ = await _post([_length(MIB)], [b"x" * MIB])
    assert status == 404


async def test_a_large_body_from_a_stranger_is_refused_before_it_is_read(limits):
    status, text = await _post([_length(MIB + 1)], [b"x"])
    assert status == 413
    assert "Sign in first" in text


async def test_a_large_body_with_a_made_up_session_is_refused(limits, settings):
    made_up = (b"cookie", f"{settings.SESSION_COOKIE_NAME}=abcdefgh12345678".encode())
    status, _ = await _post([made_up, _length(2 * MIB)], [b"x"])
    assert status == 413


async def test_somebody_signed_in_may_send_up_to_the_largest_upload(limits, cookie):
    status, _ = await _post([cookie, _length(4 * MIB)], [b"x" * MIB] * 4)
    assert status == 404
    status, text = await _post([cookie, _length(4 * MIB + 1)], [b"x"])
    assert status == 413
    assert "larger than 4.0 MiB" in text


async def test_a_body_longer_than_it_said_is_stopped(limits):
    status, _ = await _post([_length(10)], [b"x" * MIB, b"x" * MIB])
    assert status == 413


async def test_a_chunked_body_is_counted(limits, cookie):
    chunked = (b"transfer-encoding", b"chunked")
    status, _ = await _post([cookie, chunked], [b"x" * MIB] * 4)
    assert status == 404
    status, _ = await _post([cookie, chunked], [b"x" * MIB] * 5)
    assert status == 413


async def test_the_body_is_spooled_whole_and_in_order(settings):
    parts = [bytes([i]) * 300_000 for i in range(9)]
    messages = [{"type": "http.request", "body": part, "more_body": i < 8}
                for i, part in enumerate(parts)]  # fmt: skip

    async def receive():
        return messages.pop(0)

    body = await BodyHandler().read_body(receive)
    assert body.name is None or isinstance(body.name, int)  # rolled over to a nameless file
    assert body.read() == b"".join(parts)
    body.close()
    assert list(settings.FILE_UPLOAD_TEMP_DIR.iterdir()) == []


async def test_a_browser_that_goes_leaves_nothing(settings):
    talk = ApplicationCommunicator(BodyHandler(), _scope([_length(9 * MIB)]))
    await talk.send_input({"type": "http.request", "body": b"x" * 3 * MIB, "more_body": True})
    await talk.send_input({"type": "http.disconnect"})
    await talk.wait(10)
    await asyncio.sleep(0)
    assert list(settings.FILE_UPLOAD_TEMP_DIR.iterdir()) == []
