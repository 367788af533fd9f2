"""Where nodes fetch contents: the signature alone says what may be read."""

import asyncio
import time

import pytest
from django.test import AsyncClient, Client, override_settings

from deployments.errors import PermanentError
from deployments.registry import addresses
from deployments.registry.blobs import StorageBlobs, store_bytes

DATA = b"".join(b"%05d" % number for number in range(1024))
pytestmark = pytest.mark.django_db


def address_of(data: bytes = DATA, *, now: float | None = None, lifetime: int = 3600) -> str:
    blob = store_bytes(data)
    return addresses.address(
        "", blob.sha256, now=time.time() if now is None else now, lifetime=lifetime
    )


def body(answer) -> bytes:
    return b"".join(answer.streaming_content) if answer.streaming else answer.content


def test_who_has_the_address_reads_the_content_without_signing_in():
    answer = Client().get(address_of(), HTTP_HOST="10.1.2.3:8000")
    assert answer.status_code == 200
    assert answer["Content-Length"] == str(len(DATA))
    assert body(answer) == DATA
    assert "Set-Cookie" not in answer.headers


def test_nothing_is_read_on_the_event_loop():
    address = address_of()

    async def ask() -> bytes:
        answer = await AsyncClient().get(address)
        assert answer.is_async
        return b"".join([piece async for piece in answer.streaming_content])

    assert asyncio.run(ask()) == DATA


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=5000-", 206, DATA[5000:]),
        ("bytes=0-9", 206, DATA[:10]),
        ("bytes=100-99999999", 206, DATA[100:]),
        ("bytes=0-", 200, DATA),
        ("bytes=5120-", 416, b"there is no such range\n"),
        ("bytes=9-3", 416, b"there is no such range\n"),
        ("bytes=-5", 200, DATA),  # not one of ours: all of it
        ("lines=1-2", 200, DATA),
    ],
)
def test_a_part_is_read_from_where_it_broke_off(asked, status, part):
    answer = Client().get(address_of(), HTTP_RANGE=asked)
    assert answer.status_code == status
    assert body(answer) == part
    if status == 206:
        begin = DATA.index(part)
        assert answer["Content-Range"] == f"bytes {begin}-{begin + len(part) - 1}/{len(DATA)}"


def test_its_size_is_told_without_it():
    answer = Client().head(address_of())
    assert (answer.status_code, answer["Content-Length"]) == (200, str(len(DATA)))
    assert body(answer) == b""


def test_an_empty_content_is_one():
    answer = Client().get(address_of(b""))
    assert (answer.status_code, body(answer)) == (200, b"")


def test_an_address_runs_out_and_not_before():
    now = 1_000_000.0
    address = address_of(now=now)
    path, _, query = address.partition("?")
    expires, signature = (item.partition("=")[2] for item in query.split("&"))
    digest = path.rpartition("/")[2]
    assert now + 1800 < int(expires) <= now + 3600
    assert addresses.refusal(digest, expires, signature, now=int(expires) - 0.001) == ""
    assert addresses.refusal(digest, expires, signature, now=int(expires)) == addresses.EXPIRED
    answer = Client().get(address)
    assert (answer.status_code, answer.content) == (403, b"this address has run out\n")


def test_the_same_address_is_given_out_for_half_of_its_life():
    blob = store_bytes(DATA)

    def at(now: float) -> str:
        return addresses.address("http://x", blob.sha256, now=now, lifetime=3600)

    assert at(1800.0) == at(3599.9)
    assert at(3599.9) != at(3600.0)


@pytest.mark.parametrize(
    "change",
    [
        lambda address, other: address[:-1] + ("0" if address[-1] != "0" else "1"),
        lambda address, other: address.replace("expires=", "expires=9"),
        lambda address, other: address.partition("?")[0],
        lambda address, other: address.partition("&")[0],
        lambda address, other: f"/blobs/{other}?{address.partition('?')[2]}",
        lambda address, other: address.replace("/blobs/", "/blobs/../blobs/"),
        lambda address, other: "/blobs/",
        lambda address, other: "/blobs/" + "é" * 64 + "?signature=é&expires=é",
    ],
    ids=[
        "signature", "expiry", "none", "no signature", "other hash", "path", "listing", "no ascii",
    ],
)  # fmt: skip
def test_what_was_not_given_out_is_refused(change):
    other = store_bytes(b"another content").sha256
    answer = Client().get(change(address_of(), other))
    assert answer.status_code == 403
    assert answer.content == b"this address is not one that the portal gave out\n"


def test_with_another_secret_key_all_are_refused():
    address = address_of()
    with override_settings(SECRET_KEY="k" * 50):
        assert Client().get(address).status_code == 403


def test_what_is_gone_is_said_to_be_gone():
    address = addresses.address("", "a" * 64, now=time.time(), lifetime=3600)
    assert Client().get(address).status_code == 404


def test_nothing_is_written_there():
    assert Client().post(address_of()).status_code == 405


def test_where_nodes_reach_the_portal_is_a_setting_or_the_clusters_own(settings):
    blob = store_bytes(DATA)
    found = StorageBlobs().url(blob.sha256, "https://portal:8000/")
    assert found.startswith(f"https://portal:8000/blobs/{blob.sha256}?expires=")

    with pytest.raises(PermanentError, match="SLIPWAY_NODE_URL"):
        StorageBlobs().url(blob.sha256)
