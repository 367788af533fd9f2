"""A replica's gate, with its real sockets, and cells that the test writes as workers would."""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployments.agent import inside
from deployments.agent.gate import IDLE, LEAVE_FIRST, TURN_AWAY, Gate

TOLD = {"workers": 1, "refuse": True, "wait": 0.5, "hold": 48.0, "silence": 92.0}
TCP = {"listen": "127.0.0.1:0", "health": "127.0.0.1:0"}
HEAD = b"POST /score HTTP/1.1\r\nx-request-id: a\r\n"


class Run:
    """A gate with its turns, as the shim gives them to it."""

    def __init__(self, folder: Path, **told: object) -> None:
        self.folder = folder
        self.gate = Gate(folder, {**TOLD, **told})

    def until(self, true: Callable[[], object], seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end
            poller = select.poll()
            for descriptor, mask in self.gate.waiting().items():
                poller.register(descriptor, mask)
            timeout = self.gate.timeout()
            most = 0.05  # the test has something to look at
            ready = dict(poller.poll(1000 * min(most, most if timeout is None else timeout)))
            self.gate.turn(ready)

    def pass_by(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end)

    def busy(self, worker: int = 0) -> None:
        self.gate.cells[worker] = time.monotonic_ns() // 1000

    def connect(self, data: bytes = b"", *, health: bool = False) -> socket.socket:
        return self.reach(self.gate.health.sock if health else self.gate.listener, data)

    def reach(self, listener: socket.socket, data: bytes = b"") -> socket.socket:
        made = socket.socket(listener.family, socket.SOCK_STREAM)
        try:
            made.connect(listener.getsockname())
            made.sendall(data)
        except OSError:
            made.close()
            raise
        made.setblocking(False)
        return made

    def answer(self, asked: socket.socket, seconds: float = 10.0) -> bytes:
        """What came until the gate closed."""
        found = bytearray()

        def closed() -> bool:
            with contextlib.suppress(BlockingIOError):
                data = asked.recv(65536)
                found.extend(data)
                return not data
            return False

        self.until(closed, seconds)
        asked.close()
        return bytes(found)


@pytest.fixture(params=["unix", "tcp"])
def start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Run]]:
    made: list[Run] = []
    tcp = {"tcp": TCP} if request.param == "tcp" else {}
    monkeypatch.chdir(tmp_path)  # and back again afterwards

    def begin(**told: object) -> Run:
        run = Run(tmp_path, **tcp, **told)
        made.append(run)
        for worker in range(run.gate.workers):
            run.gate.cells[worker] = IDLE
        run.gate.cells[run.gate.workers] = 1
        return run

    yield begin
    for run in made:
        run.gate.cells[run.gate.workers] = 0  # nobody to turn away
        run.gate.end()


def request(body: bytes = b"{}", *, since: float | None = None, length: int | None = None) -> bytes:
    """As the router sends it; `since` is when it came there, if it kept a copy."""
    copied = b"" if since is None else b"x-slipway-retry: %d\r\n" % (since * 1e6)
    return HEAD + copied + b"content-length: %d\r\n\r\n" % (length or len(body)) + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ")[1]) if answer else 0


def test_it_leaves_alone_what_waits_while_a_worker_is_free(start):
    run = start()
    asked = run.connect(request(since=time.time()))
    run.pass_by(0.2)
    assert run.gate.guests == []
    accepted, _ = run.gate.listener.accept()
    assert accepted.recv(1000).startswith(b"POST /score")
    accepted.close()
    asked.close()


def test_it_sends_a_request_on_that_no_worker_can_take(start):
    run = start()
    run.busy()
    answer = run.answer(run.connect(request(since=time.time())))
    assert answer.startswith(b"HTTP/1.1 425 ")
    assert b"\r\nx-slipway-gate: elsewhere\r\n" in answer


def test_a_hand_over_between_two_requests_is_never_refused(start):
    run = start()
    asked = run.connect(request(since=time.time()))
    for _ in range(30):  # one request after the other, none of them as long as the grace
        run.busy()
        run.pass_by(0.01)
    assert run.gate.guests == []
    asked.close()


def test_what_the_router_cannot_send_again_waits_for_a_worker_of_its_own(start):
    run = start(wait=5.0)
    run.busy()
    body = b"x" * 300_000
    asked = run.connect(request(body[:1000], length=len(body)))
    run.until(lambda: run.gate.guests)
    run.pass_by(0.2)
    got = bytearray()
    taken = threading.Event()

    def work() -> None:
        select.select([run.gate.listener], [], [], 10)  # by TCP it comes with its first byte
        with contextlib.closing(run.gate.listener.accept()[0]) as worker:
            taken.set()
            worker.setblocking(True)
            while len(got) < len(request(b"", length=len(body))) + len(body):
                got.extend(worker.recv(65536))
            worker.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"y" * 200_000)

    def send() -> None:
        rest = memoryview(body)[1000:]
        while rest:
            with contextlib.suppress(BlockingIOError):
                rest = rest[asked.send(rest) :]

    threads = [threading.Thread(target=send, daemon=True)]
    run.gate.cells[0] = IDLE
    run.until(lambda: run.gate.guests[0].worker is not None)
    threads.append(threading.Thread(target=work, daemon=True))
    for thread in threads:
        thread.start()
    run.until(taken.is_set)
    run.busy()
    run.until(lambda: not threads[0].is_alive())
    answer = run.answer(asked)
    assert status(answer) == 200
    assert answer.endswith(b"y" * 200_000)
    assert got.endswith(b"\r\n\r\n" + body)


def test_a_wait_that_is_over_is_a_last_word(start):
    run = start()
    run.busy()
    began = time.monotonic()
    answer = run.answer(run.connect(request()))  # no copy: it may only wait here
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nx-slipway-gate: full\r\n" in answer
    assert 0.45 < time.monotonic() - began < 5
    # of one with a copy, the time in the router's queue counts too
    assert status(run.answer(run.connect(request(since=time.time() - 0.6)))) == 503


def test_none_is_held_until_the_router_calls_it_a_timeout(start):
    run = start(wait=60.0, hold=0.1)
    run.busy()
    assert status(run.answer(run.connect(request()))) == 503
    since = time.time()
    for _ in range(8):
        assert status(run.answer(run.connect(request(since=since)), 0.5)) == 425


def test_one_that_comes_back_is_held_longer_each_time(start):
    run = start(wait=60.0)
    run.busy()
    since = time.time()
    took = []
    for _ in range(5):
        began = time.monotonic()
        assert status(run.answer(run.connect(request(since=since)))) == 425
        took.append(time.monotonic() - began)
    assert took[4] > took[2] > 0.05
    assert took[4] > 0.18


def test_a_connection_that_says_nothing_or_leaves_disturbs_nobody(start):
    run = start()
    run.busy()
    for _ in range(50):
        run.connect().close()
    run.pass_by(0.3)
    assert run.gate.guests == []
    with pytest.raises(BlockingIOError):
        run.gate.listener.accept()


def test_a_replica_that_is_meant_to_hold_more_than_it_has_workers_refuses_nothing(start):
    run = start(refuse=False)
    run.busy()
    asked = run.connect(request(since=time.time()))
    run.pass_by(0.3)
    assert run.gate.guests == []
    asked.close()


def test_what_waits_when_the_workers_end_goes_elsewhere_and_nobody_else_comes_in(start):
    run = start()
    run.busy()
    asked = [run.connect(request(since=time.time())) for _ in range(3)]
    where = run.gate.listener.family, run.gate.listener.getsockname()
    run.gate.end()
    for item in asked:
        item.setblocking(True)
        assert item.recv(1000).startswith(b"HTTP/1.1 425 ")
        item.close()
    with (
        socket.socket(where[0], socket.SOCK_STREAM) as late,
        pytest.raises((FileNotFoundError, ConnectionRefusedError)),
    ):
        late.connect(where[1])


@pytest.mark.parametrize("read_before", [False, True])
def test_what_waits_when_the_workers_end_is_given_to_another_replica_of_the_revision(
    tmp_path, monkeypatch, read_before
):
    folders = [tmp_path / name for name in ("a-r1-going", "a-r1-stays", "a-r2-other", "b-r1-other")]
    monkeypatch.chdir(tmp_path)
    runs = []
    for folder in folders:
        folder.mkdir()
        run = Run(folder)
        run.gate.cells[0], run.gate.cells[1] = IDLE, 1
        run.gate.turn({})  # all its workers are loaded: it has a door
        runs.append(run)
    going, stays = runs[:2]
    monkeypatch.chdir(going.folder)
    going.busy()
    asked = going.connect(request(b"as it is"))
    if read_before:
        going.until(lambda: going.gate.guests and going.gate.guests[0].whole)
    going.gate.end()
    monkeypatch.chdir(stays.folder)
    stays.until(lambda: stays.gate.guests and stays.gate.guests[0].worker)
    worker, _ = stays.gate.listener.accept()
    stays.busy()
    worker.setblocking(False)
    stays.until(lambda: select.select([worker], [], [], 0)[0])
    assert worker.recv(65536) == request(b"as it is")
    worker.send(b"HTTP/1.1 200 OK\r\n\r\n")
    worker.close()
    assert status(stays.answer(asked)) == 200
    for run in runs[1:]:
        monkeypatch.chdir(run.folder)
        run.gate.end()


def health(run: Run) -> tuple[int, float]:
    answer = asked(run)
    return status(answer), float(answer.partition(b"x-slipway-silent: ")[2].split(b"\r\n")[0])


def asked(run: Run, path: bytes = b"/") -> bytes:
    return run.answer(run.connect(b"GET %s HTTP/1.1\r\n\r\n" % path, health=True))


def test_it_is_well_once_all_workers_are_loaded_and_busy_or_not(start):
    run = start(workers=2)
    run.gate.cells[2] = 0
    assert health(run)[0] == 503
    run.gate.cells[2] = 1
    assert health(run) == (200, 0.0)
    run.busy(0)
    run.busy(1)
    run.pass_by(0.1)
    code, silent = health(run)
    assert code == 200
    assert silent > 0.1


def test_it_is_not_well_when_a_worker_has_been_in_one_request_for_too_long(start):
    run = start(workers=2, silence=1.0)
    run.gate.cells[0] = (time.monotonic_ns() - 900_000_000) // 1000
    assert health(run)[0] == 200
    run.pass_by(0.15)
    code, silent = health(run)
    assert code == 503
    assert silent > 1.0


def test_it_is_not_well_when_a_worker_stays_away_for_too_long(start):
    run = start(silence=0.3)
    run.pass_by(0.05)
    run.gate.cells[0] = 0
    assert health(run)[0] == 200
    run.pass_by(0.4)
    assert health(run)[0] == 503


def test_it_is_not_well_when_nobody_takes_connections(start):
    run = start(silence=0.3)
    asked = run.connect(request())
    run.pass_by(0.5)
    assert health(run)[0] == 503
    asked.close()


def test_checks_that_come_and_go_are_nothing(start):
    run = start()
    run.busy()
    for _ in range(200):
        run.connect(health=True).close()
    assert health(run)[0] == 200
    assert run.gate.health.asking == {}


def test_it_sleeps_while_nothing_comes(start):
    run = start()
    run.pass_by(1.2)
    assert run.gate.timeout() is None
    asked = run.connect(request())
    run.pass_by(0.05)
    assert run.gate.timeout() is not None
    asked.close()


def test_one_that_loads_or_leaves_may_live_and_one_that_is_silent_may_not(start):
    run = start(silence=0.3)
    run.gate.cells[1] = 0
    assert status(asked(run)) == 503
    assert status(asked(run, b"/live")) == 200
    run.gate.cells[1] = 1
    run.gate.cells[0] = (time.monotonic_ns() - 10**9) // 1000
    assert status(asked(run, b"/live")) == 503


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A gate on TCP, as in a pod, with one worker that is free."""
    monkeypatch.chdir(tmp_path)
    run = Run(tmp_path, tcp=TCP)
    run.gate.cells[0], run.gate.cells[1] = IDLE, 1
    yield run
    run.gate.cells[run.gate.workers] = 0  # nobody to turn away
    run.gate.end()


def leave(run: Run, seconds: float = 30.0) -> tuple[threading.Thread, list[bool]]:
    left: list[bool] = []
    going = threading.Thread(target=lambda: left.append(inside.drain(run.folder, seconds)))
    going.start()
    run.until(lambda: run.gate.leaving is not None and run.gate.leaving.since is not None)
    return going, left


def test_one_that_leaves_says_so_and_is_gone_once_all_could_see_it_and_nobody_is_inside(pod):
    pod.busy()
    began = time.monotonic()
    going, left = leave(pod)
    said = asked(pod)
    assert status(said) == 503
    assert b"\r\nx-slipway-draining: 1\r\n" in said
    assert status(asked(pod, b"/live")) == 200
    waits = pod.connect(b"GET /left HTTP/1.1\r\n\r\n", health=True)
    pod.until(lambda: time.monotonic() > began + LEAVE_FIRST + 0.3)
    assert going.is_alive()
    with pytest.raises(BlockingIOError):
        waits.recv(100)
    pod.gate.cells[0] = IDLE
    pod.until(lambda: not going.is_alive())
    assert left == [True]
    assert status(pod.answer(waits)) == 200
    began = time.monotonic()
    pod.gate.end()  # nobody comes any more: at once
    assert time.monotonic() - began < TURN_AWAY


def test_one_that_is_not_empty_in_time_is_left_to_its_end(pod):
    pod.busy()
    going, left = leave(pod, seconds=0.2)
    pod.until(lambda: not going.is_alive())
    assert left == [False]


def test_one_that_nobody_was_let_into_leaves_at_once(pod):
    pod.gate.cells[1] = 0
    began = time.monotonic()
    going, left = leave(pod)
    pod.until(lambda: not going.is_alive())
    assert left == [True]
    assert time.monotonic() - began < LEAVE_FIRST


def test_by_tcp_whoever_comes_until_the_router_has_seen_it_is_sent_on(pod):
    pod.busy()
    early = pod.connect(request(since=time.time()))
    health_at = pod.gate.health.sock.getsockname()
    ending = threading.Thread(target=pod.gate.end)
    ending.start()
    early.setblocking(True)
    assert early.recv(1000).startswith(b"HTTP/1.1 425 ")
    early.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(health_at, timeout=5)
    late = pod.connect(request(since=time.time()))
    late.setblocking(True)
    assert late.recv(1000).startswith(b"HTTP/1.1 425 ")
    late.close()
    ending.join()
    with pytest.raises(OSError, match="closed|Bad file"):
        pod.connect()


def test_where_no_gate_runs_there_is_nobody_to_wait_for(tmp_path):
    assert inside.drain(tmp_path, 1.0) is True


def test_a_connection_that_says_nothing_is_no_workers_to_take(pod):
    silent = pod.connect()
    with pytest.raises(BlockingIOError):
        pod.gate.listener.accept()
    silent.setblocking(True)
    silent.sendall(request())
    pod.until(lambda: select.select([pod.gate.listener], [], [], 0)[0])
    silent.close()
