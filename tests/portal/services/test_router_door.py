"""The portal's own way to a router that answers TLS: there, by its name, with its chain alone."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from deployments.clusters.models import Cluster
from portal import scoring
from portal.router_door import Door, door_of
from tests.deployments.clusters.authority import YEAR, Issued, issue

HOST = "score.example.com"
NOW = timezone.now()


def made(name: str = HOST, by: Issued | None = None, **more: object) -> Issued:
    given = {"names": (name,), "begins": NOW - timedelta(days=1), "ends": NOW + YEAR, **more}
    return issue(name, by, **given)


@pytest.fixture(scope="module")
def own() -> Issued:
    return made()


@contextlib.asynccontextmanager
async def serving(folder: Path, pem: str) -> AsyncIterator[tuple[str, list[str]]]:
    """A TLS server with that key and chain; the heads of the requests that reached it."""
    file = folder / "site.pem"
    file.write_text(pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    made = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    host, port = made.sockets[0].getsockname()
    try:
        yield f"{host}:{port}", heads
    finally:
        made.close()


@pytest.fixture
async def server(tmp_path: Path, own: Issued) -> AsyncIterator[tuple[str, list[str]]]:
    async with serving(tmp_path, own.key_pem + own.pem) as found:
        yield found


async def score(door: Door) -> scoring.Attempt:
    return await scoring.score(
        f"https://{HOST}:8443/api/v1/service/demo/score",
        body=b"",
        size=0,
        content_type="application/json",
        key="k",
        version="",
        deadline=5.0,
        door=door,
    )


async def test_a_certificate_that_signed_itself_is_trusted_by_its_own_chain(
    server: tuple[str, list[str]], own: Issued
) -> None:
    address, heads = server
    attempt = await score(Door(address, HOST, own.pem))
    assert (attempt.status, attempt.error) == (200, "")
    assert f"host: {HOST}:8443" in heads[0].lower()
    assert heads[0].startswith("POST /api/v1/service/demo/score ")


async def test_a_chain_without_its_root_does_as_well(tmp_path: Path) -> None:
    root = made("Root", authority=True)
    middle = made("Middle", root, authority=True)
    leaf = made(HOST, middle)
    async with serving(tmp_path, leaf.key_pem + leaf.pem + middle.pem) as (address, _):
        assert (await score(Door(address, HOST, leaf.pem + middle.pem))).status == 200


@pytest.mark.parametrize("wrong", ["another chain", "another name"])
async def test_anybody_elses_certificate_is_refused(
    wrong: str, server: tuple[str, list[str]], own: Issued
) -> None:
    address, heads = server
    door = (
        Door(address, HOST, made().pem)
        if wrong == "another chain"
        else Door(address, "other.example.com", own.pem)
    )
    attempt = await score(door)
    assert attempt.status is None
    assert "could not be asked" in attempt.error
    assert heads == []


async def test_a_chain_that_cannot_be_read_is_told() -> None:
    attempt = await score(Door("127.0.0.1:1", HOST, "junk"))
    assert "could not be asked" in attempt.error


@pytest.mark.parametrize(
    ("kind", "chain", "bind", "address"),
    [
        ("process", "x", "127.0.0.1", "127.0.0.1:8443"),
        ("process", "x", "0.0.0.0", "127.0.0.1:8443"),
        ("process", "x", "::", "[::1]:8443"),
        ("process", "x", "fd00::1", "[fd00::1]:8443"),
        ("process", "", "127.0.0.1", None),
        ("kubernetes", "x", "127.0.0.1", None),
    ],
)
def test_only_a_router_of_this_machine_has_a_door(
    kind: str, chain: str, bind: str, address: str | None, settings: object
) -> None:
    settings.ENV = type("Env", (), {"router_bind": bind, "router_tls_port": 8443})
    door = door_of(Cluster(kind=kind, tls_chain=chain, tls_cname=HOST))
    assert (door.address if door else None) == address
