"""Lines of the request log are read, kept by number, and handed on; what is missing is counted."""

import asyncio
from pathlib import Path

import httpx
import pytest

from router.dataplane import DataPlane, Settings
from router.haproxy import request_line
from router.haproxy.pool import Key
from router.haproxy.process import HAProxy, Paths
from router.haproxy.slots import Slot, State
from router.request_log import Gap, Requests, Splitter, from_wire, parse, to_wire
from router.request_reader import RequestReader
from tests.router.conftest import Rig, eventually
from tests.router.fakes import replica, service

VALUES = {
    "ended": "1790000000250",
    "service": "demo",
    "backend": "be_0001",
    "request_id": "r-1",
    "client_request_id": "-",
    "method": "POST",
    "operation": "score",
    "status": "200",
    "queue_ms": "3",
    "service_ms": "200",
    "total_ms": "250",
    "bytes_in": "180",
    "bytes_out": "290",
    "slot": "be_0001/s2",
    "who": "token%3Aann%20%09b",
    "termination_state": "----",
}


def line(**changes: str) -> bytes:
    values = VALUES | changes
    return "\t".join(values[name] for name in request_line.FIELDS).encode()


def names(backend: str, slot: str) -> tuple[str, str] | None:
    if backend != "be_0001":
        return None
    return "blue", "demo-r1-abc" if slot == "be_0001/s2" else ""


def test_a_line_is_a_request() -> None:
    found = parse(line(), names)
    assert found is not None
    assert found.at == 1_790_000_000.0  # when it came, not when it ended
    assert (found.service, found.version, found.replica) == ("demo", "blue", "demo-r1-abc")
    assert (found.request_id, found.client_request_id) == ("r-1", "")
    assert (found.status, found.queue_ms, found.service_ms, found.total_ms) == (200, 3, 200, 250)
    assert found.who == "token:ann \tb"


def test_a_request_that_came_to_no_replica_has_no_time_there() -> None:
    refused = line(
        status="401", queue_ms="-1", service_ms="-1", total_ms="0", slot="scoring/<NOSRV>"
    )
    found = parse(refused, names)
    assert found is not None
    assert (found.queue_ms, found.service_ms, found.replica) == (None, None, "")


def test_a_client_that_left_before_an_answer_got_none() -> None:
    found = parse(line(status="-1", service_ms="-1", termination_state="CD--"), names)
    assert found is not None
    assert (found.status, found.service_ms, found.termination_state) == (0, None, "CD--")


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"hello",
        line() + b"\tmore",
        line(status="OK"),
        line(total_ms="-"),
        line(backend="be_0002"),
        line(service="-"),
        b"\xff\xfe" * 30,
    ],
)
def test_what_is_not_a_line_is_none(broken: bytes) -> None:
    assert parse(broken, names) is None


def test_lines_come_in_any_pieces() -> None:
    splitter = Splitter()
    whole = line() + b"\n" + line(status="503") + b"\n"
    found = []
    for begin in range(0, len(whole), 7):
        found += splitter.lines(whole[begin : begin + 7])
    assert found == [line(), line(status="503")]


def test_an_endless_line_is_dropped_and_the_next_one_is_not() -> None:
    splitter = Splitter()
    assert splitter.lines(b"x" * 5_000) == []
    assert splitter.lines(b"\n" + line() + b"\n") == [line()]


def test_lines_are_numbered_and_the_oldest_fall_out_counted() -> None:
    requests = Requests("e", 50.0, limit=3)
    requests.add([line(request_id=f"r-{number}") for number in range(5)], names, 100.0)
    page = requests.page(1)
    assert [item.request_id for item in page.lines] == ["r-2", "r-3", "r-4"]
    assert (page.next, page.lost, page.began) == (5, 1, 50.0)
    assert requests.page(5).lines == ()
    assert requests.page(2, limit=2).next == 4


def test_a_line_that_cannot_be_read_is_a_gap_of_one() -> None:
    requests = Requests("e", 50.0)
    requests.add([line(), b"?", line()], names, 100.0)
    page = requests.page(0)
    assert (len(page.lines), page.gaps) == (2, (Gap(100.0, 100.0, 1, "could not be read"),))
    assert (requests.taken, requests.unreadable) == (2, 1)


def test_the_wire_says_the_same_and_refuses_what_is_none() -> None:
    requests = Requests("e", 50.0)
    requests.add([line(), b"?"], names, 100.0)
    page = requests.page(0)
    assert from_wire(to_wire(page)) == page
    newer = to_wire(page)
    newer["fields"] = (*newer["fields"], "colour")
    newer["lines"] = [[*row, "red"] for row in newer["lines"]]
    assert from_wire(newer) == page
    for broken in ({}, [], {"epoch": "e"}, to_wire(page) | {"lines": [[1]]}):
        with pytest.raises(ValueError):
            from_wire(broken)


async def test_the_reader_names_who_stands_in_the_slot(tmp_path: Path) -> None:
    plane = DataPlane(HAProxy(Path(), Paths.of(tmp_path, tmp_path, "x")), Settings("127.0.0.1", 1))
    plane.known.backends = {Key("demo", "blue"): "be_0001"}
    plane.known.slots = {
        "be_0001": (Slot("be_0001", "s1"), Slot("be_0001", "s2", State.JOINED, "demo-r1-abc"))
    }
    reader = RequestReader(Requests("e", 0.0), plane)
    assert reader.names("be_0001", "be_0001/s2") == ("blue", "demo-r1-abc")
    assert reader.names("be_0001", "be_0001/s1") == ("blue", "")
    assert reader.names("be_0001", "scoring/<NOSRV>") == ("blue", "")
    assert reader.names("be_0009", "be_0009/s1") is None
    stopping, path = asyncio.Event(), tmp_path / "log.sock"
    serving = asyncio.create_task(reader.serve(path, stopping))
    await eventually(path.exists, "the socket")
    assert path.stat().st_mode & 0o077 == 0
    for _ in range(2):  # HAProxy connects anew after a reload
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(line() + b"\n")
        await writer.drain()
        writer.close()
    await eventually(lambda: reader.requests.taken == 2, "both lines")
    stopping.set()
    await serving
    assert not path.exists()


@pytest.mark.daemons
async def test_haproxy_writes_a_line_for_versions_that_ask_for_it_and_loses_none_without_a_reader(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    stand = await rig.replica()
    rig.driver.put(
        service("logged", request_log=True), replica("logged-a", "logged", stand.address)
    )
    rig.driver.put(service("quiet"), replica("quiet-a", "quiet", stand.address))
    loop = rig.start()
    await rig.routed("logged-a", "quiet-a")

    async def ask(name: str, number: int) -> None:
        headers = {"x-request-id": f"{name}-{number}", "x-ms-client-request-id": f"c-{number}"}
        await client.post(rig.score(name), content=b"{}", headers=headers)

    for number in range(20):  # nobody reads yet: HAProxy holds them
        await ask("logged", number)
        await ask("quiet", number)
    reader, stopping = RequestReader(loop.requests, loop.plane), asyncio.Event()
    serving = asyncio.create_task(reader.serve(rig.place.paths.log_socket, stopping))
    for number in range(20, 40):
        await ask("logged", number)
    await eventually(lambda: loop.requests.taken >= 40, "all lines")
    stopping.set()
    await serving
    lines = loop.requests.page(0).lines
    assert {item.request_id for item in lines} == {f"logged-{number}" for number in range(40)}
    one = lines[0]
    assert (one.service, one.version, one.replica) == ("logged", "default", "logged-a")
    assert (one.method, one.operation, one.status) == ("POST", "score", 200)
    assert one.client_request_id.startswith("c-")
    assert one.queue_ms is not None and one.service_ms is not None
    assert one.bytes_in > 0 < one.bytes_out
    assert loop.requests.unreadable == 0
