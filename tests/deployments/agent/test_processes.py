"""Only the process that is meant is taken for a replica, asked or killed."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from deployments.agent import processes
from deployments.agent.prober import Answers, Prober
from deployments.agent.record import Process
from deployments.drivers.process_layout import write_json

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def sleeper(tmp_path):
    environment = {"SLIPWAY_REPLICA_FOLDER": str(tmp_path)}
    process = subprocess.Popen([*SLEEP, str(tmp_path)], env=environment)
    yield process
    process.kill()
    process.wait()


def shim_file(folder: Path, pid: int, start: int, run: int = 1) -> None:
    who = {"pid": pid, "start": start}
    write_json(folder / "shim.json", {"run": run, "shim": who, "child": None, "note": ""})


def exit_file(folder: Path, run: int) -> None:
    write_json(
        folder / "exit.json",
        {"run": run, "code": 3, "signal": 0, "at": 5.0, "oom": False, "log_tail": "last"},
    )


def test_a_folder_without_a_word_has_no_process(tmp_path):
    assert processes.look(tmp_path, 1).process is Process.NONE


def test_a_shim_is_known_by_pid_start_and_folder_together(tmp_path, sleeper):
    start = processes.start_ticks(sleeper.pid)
    assert start is not None
    shim_file(tmp_path, sleeper.pid, start)
    assert processes.look(tmp_path, 1).process is Process.RUNNING
    assert processes.look(tmp_path, 2).process is Process.NONE
    shim_file(tmp_path, sleeper.pid, start - 1)
    assert processes.look(tmp_path, 1).process is Process.VANISHED
    shim_file(tmp_path, os.getpid(), processes.start_ticks(os.getpid()) or 0)
    assert processes.look(tmp_path, 1).process is Process.VANISHED


def test_a_run_that_was_written_down_has_ended_whoever_still_lives(tmp_path, sleeper):
    shim_file(tmp_path, sleeper.pid, processes.start_ticks(sleeper.pid) or 0)
    exit_file(tmp_path, run=1)
    run = processes.look(tmp_path, 1)
    assert (run.process, run.exit.code, run.exit.log_tail) == (Process.ENDED, 3, "last")


def test_the_end_of_an_earlier_run_is_not_this_ones(tmp_path, sleeper):
    shim_file(tmp_path, sleeper.pid, processes.start_ticks(sleeper.pid) or 0, run=2)
    exit_file(tmp_path, run=1)
    assert processes.look(tmp_path, 2).process is Process.RUNNING


def test_only_processes_of_that_replica_are_killed(tmp_path, sleeper):
    assert processes.kill_all_of(tmp_path / "other") is False
    assert sleeper.poll() is None
    assert processes.kill_all_of(tmp_path) is True
    assert sleeper.wait(timeout=30) == -signal.SIGKILL


def test_a_zombie_is_no_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    until = time.monotonic() + 30
    while processes.start_ticks(process.pid) is not None and time.monotonic() < until:
        time.sleep(0.02)
    assert processes.start_ticks(process.pid) is None
    process.wait()


def _answers(prober: Prober, folder: Path, run: int = 1, *, until) -> Answers:
    end = time.monotonic() + 30
    while True:
        answers = prober.watch("r", run, folder, every=0.02, deadline=0.2)
        if until(answers) or time.monotonic() > end:
            return answers
        time.sleep(0.01)


@pytest.fixture
def prober():
    prober = Prober()
    yield prober
    prober.close()


def test_a_good_answer_gone_sockets_and_silence_are_three_things(prober, tmp_path):
    quiet = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "health.sock"))
        server.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    if quiet.is_set():
                        time.sleep(0.3)
                    else:
                        connection.sendall(b"HTTP/1.1 200 OK\r\nx-slipway-silent: 7.5\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        good = _answers(prober, tmp_path, until=lambda answers: answers.streak >= 2)
        assert good.streak >= 2
        assert good.good_at == pytest.approx(time.time() - 7.5, abs=5.0)  # as the gate says
        assert good.good_at < time.time() - 7.5
        assert not good.refused
        quiet.set()
        silent = _answers(prober, tmp_path, until=lambda answers: answers.streak == 0)
        assert (silent.streak, silent.refused) == (0, False)
        assert silent.good_at is not None
        server.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=30)
    assert _answers(prober, tmp_path, until=lambda answers: answers.refused).refused
    assert _answers(prober, tmp_path, run=2, until=lambda answers: True).good_at is None
