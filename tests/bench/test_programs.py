"""What the bench starts it also ends, and what it measures by is right."""

import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench.routing import bodies, load, openloop, peers
from bench.routing.processes import BenchError, Programs, cpu_seconds, family, free_port

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")


def core() -> int:
    return min(psutil.Process().cpu_affinity())


def test_leaving_ends_a_program_with_all_that_it_started(tmp_path: Path) -> None:
    with Programs(tmp_path) as programs:
        pid = programs.start("nest", ["sh", "-c", "sleep 300 & exec sleep 300"], core())
        programs.wait("nest", 10, "did not start both", lambda: len(family(pid)) == 2)
        members = family(pid)
    assert not any(member.is_running() for member in members)


def test_closers_and_programs_are_ended_whatever_ends_the_run(tmp_path: Path) -> None:
    closed: list[str] = []
    with pytest.raises(KeyboardInterrupt), Programs(tmp_path) as programs:
        pid = programs.start("sleeper", ["sleep", "300"], core())
        programs.on_exit(lambda: closed.append("first"))
        programs.on_exit(lambda: closed.append("second"))
        raise KeyboardInterrupt
    assert closed == ["second", "first"]
    assert not psutil.pid_exists(pid)


def test_a_program_that_ends_too_early_is_told_with_its_last_words(tmp_path: Path) -> None:
    with Programs(tmp_path) as programs:
        programs.start("peer", ["sh", "-c", "echo the port is taken; exit 1"], core())
        with pytest.raises(BenchError, match="peer ended: the port is taken"):
            programs.answering("peer", free_port())


def test_cpu_time_is_of_the_processes_named() -> None:
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert cpu_seconds([child.pid]) >= 0.25
        child.kill()
    assert cpu_seconds([child.pid]) == 0


def test_wrks_summary_gives_rate_latency_and_the_proxys_cost() -> None:
    told = {"requests": 1010, "us": 2_000_000, "p50_us": 1500, "p99_us": 4000,
            "connect": 1, "read": 2, "write": 0, "status": 10, "timeout": 3}  # fmt: skip
    found = load.read_summary(told, 0.5, "ours")
    assert (found.rps, found.p50_ms, found.p99_ms) == (500, 1.5, 4)
    assert (found.cpu_us, found.busy, found.failed) == (500, 0.25, 16)


def test_a_target_that_answers_nothing_well_is_no_figure() -> None:
    told = dict.fromkeys(("connect", "read", "write", "timeout"), 0)
    told |= {"requests": 50, "status": 50, "us": 1_000_000, "p50_us": 1, "p99_us": 1}
    with pytest.raises(BenchError, match="ours answered no request"):
        load.read_summary(told, 0.1, "ours")


class Stalling:
    """Answers each request at once, but for one moment in which it answers nobody."""

    def __init__(self, stall_at: float, stall_for: float) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port = self.listener.getsockname()[1]
        self.free_again = threading.Event()
        self.free_again.set()
        threading.Thread(target=self._accept, daemon=True).start()
        self.timers = [
            threading.Timer(stall_at, self.free_again.clear),
            threading.Timer(stall_at + stall_for, self.free_again.set),
        ]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            while connection.recv(4096):
                self.free_again.wait(10)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")


@pytest.fixture
def stalling() -> Iterator[Stalling]:
    made = Stalling(0.5, 0.5)
    yield made
    for timer in made.timers:
        timer.cancel()
    made.listener.close()


@needs_wrk
def test_requests_that_came_due_while_nobody_answered_carry_their_wait(stalling: Stalling) -> None:
    loop = openloop.OpenLoop(core(), rounds=1, seconds=1.5)
    try:
        for timer in stalling.timers:
            timer.start()
        found = loop.run([load.Target("stalling", stalling.port, ())], 400)["stalling"]
    finally:
        loop.close()
    assert len(found) == 1
    assert found[0]["failed"] == 0
    # 200 requests of 450 came due in that half second, more than there are connections
    assert found[0]["p99_ms"] > 300


@needs_wrk
def test_load_and_replica_are_one_process_that_measures_its_targets_in_turn() -> None:
    loop = openloop.OpenLoop(core(), rounds=2, seconds=0.4)
    try:
        found = loop.run([load.Target("first", 0, ()), load.Target("second", loop.port, ())], 500)
    finally:
        loop.close()
    assert list(found) == ["first", "second"]
    for rounds in found.values():
        assert [item["timed"] > 100 and item["failed"] == 0 for item in rounds] == [True, True]


@needs_wrk
def test_a_replica_answers_on_both_its_sockets_once_the_body_is_there(tmp_path: Path) -> None:
    with Programs(tmp_path) as programs:
        port, path = peers.upstream(programs, core())
        over_unix = socket.socket(socket.AF_UNIX)
        over_unix.connect(str(path))
        for connection in (socket.create_connection(("127.0.0.1", port)), over_unix):
            with connection:
                connection.settimeout(0.2)
                connection.sendall(b"POST /score HTTP/1.1\r\ncontent-length: 35\r\n\r\n")
                with pytest.raises(TimeoutError):
                    connection.recv(1)
                connection.settimeout(10)
                connection.sendall(load.BODY.encode())
                assert connection.recv(4096).startswith(b"HTTP/1.1 200")


@pytest.fixture
def reader() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        connection, _ = listener.accept()
        thread = threading.Thread(target=bodies.serve, args=(connection,), daemon=True)
        thread.start()
        with client:
            yield client
        thread.join(5)


def test_a_body_is_answered_once_the_whole_of_it_was_read(reader: socket.socket) -> None:
    half = b"x" * 100_000
    reader.settimeout(0.2)
    for _ in range(2):  # the connection is kept
        reader.sendall(b"POST / HTTP/1.1\r\nContent-Length: 200000\r\n\r\n" + half)
        with pytest.raises(TimeoutError):
            reader.recv(1)
        reader.sendall(half)
        end = time.monotonic() + 10
        answer = b""
        while not answer.endswith(b"}") and time.monotonic() < end:
            try:
                answer += reader.recv(4096)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 200")


def test_a_target_that_refuses_is_told_by_its_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = load.Target("jwt", listener.getsockname()[1], ())
        answers = [b"200 OK", b"401 Unauthorized"]

        def serve() -> None:
            for status in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(
                        b"HTTP/1.1 " + status + b"\r\ncontent-length: 9\r\n\r\nwrong key"
                    )

        threading.Thread(target=serve, daemon=True).start()
        assert load.answering(target) is target
        with pytest.raises(BenchError, match="jwt answers 401: wrong key"):
            load.answering(target)
    with pytest.raises(BenchError, match="jwt does not answer"):
        load.answering(target)
