"""Concurrency at replicas stays exact, and none idles, whatever HAProxy has given up.

With a real HAProxy and gunicorn.

A replica here is a shim with gunicorn and the agent's own configuration; only the application is a small
one that writes down when it begins and ends a request.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deployments.agent import command, processes
from deployments.agent.record import Process
from deployments.sockets import HEALTH, address_of, within
from deployments.types import EnvironmentSpec
from tests.deployments.agent.conftest import scoring_venv  # noqa: F401
from tests.router.conftest import Rig, eventually
from tests.router.fakes import replica, revision, service

pytestmark = pytest.mark.daemons

APPLICATION = """
import os, time
_notes = os.open(os.environ["SLIPWAY_REPLICA_FOLDER"] + "/events", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def app(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    what = body[:20].split()
    os.write(_notes, b"%d + %s\\n" % (time.monotonic_ns(), environ["HTTP_X_REQUEST_ID"].encode()))
    time.sleep(float(what[0]))
    os.write(_notes, b"%d - %s\\n" % (time.monotonic_ns(), environ["HTTP_X_REQUEST_ID"].encode()))
    status = what[1].decode() if len(what) > 1 else "200"
    start_response(status + " X", [("Content-Length", "2")])
    return [b"ok"]
"""


class GatedReplica:
    """One shim with its workers, in a folder of its own."""

    def __init__(self, folder: Path, venv: Path, *, gate: bool = True, **changes: object) -> None:
        self.folder = folder
        (folder / "work" / "app").mkdir(parents=True)
        for name in ("home", "tmp"):
            (folder / "work" / name).mkdir()
        (folder / "work" / "app" / "app.py").write_text(APPLICATION)
        environment = EnvironmentSpec("e" * 64, str(venv))
        told = command.build(
            revision("demo", environment=environment, **changes),
            replica=folder.name,
            run=1,
            silence=60.0,
            work=folder / "work",
            staged=folder,
            cgroups=[],
        )
        told["command"][-1] = "app:app"
        told["gate"]["refuse"] = gate
        self.address = address_of(folder)
        self.spawn(told)

    def spawn(self, told: dict[str, Any]) -> None:
        (self.folder / "run.json").write_text(json.dumps(told))
        self.shim = processes.spawn_shim(self.folder)

    def well(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
            asked.settimeout(5)
            try:
                with within(self.folder / HEALTH) as path:
                    asked.connect(path)
                asked.sendall(b"GET / HTTP/1.1\r\n\r\n")
                return asked.recv(100).startswith(b"HTTP/1.1 200 ")
            except OSError:
                return False

    def events(self) -> list[tuple[float, str, str]]:
        """(seconds, "+" or "-", request id), in order."""
        with contextlib.suppress(FileNotFoundError):
            rows = (line.split() for line in (self.folder / "events").read_text().splitlines())
            return sorted((int(at) / 1e9, sign, name) for at, sign, name in rows)
        return []

    def master(self) -> int:
        return processes.look(self.folder, 1).child_pid

    def end(self) -> None:
        run = processes.look(self.folder, 1)
        if run.process is Process.RUNNING:
            processes.terminate(run)
        try:
            self.shim.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.shim.kill()
            self.shim.wait()


@dataclass
class Told:
    """What one client was told. Times are monotonic seconds."""

    id: str
    sent: float
    code: int = 0  # 0: it left
    until: float = 0.0


@dataclass
class Town:
    """A router, gated replicas behind it, and clients."""

    rig: Rig
    root: Path
    venv: Path
    changes: dict[str, object]
    gate: bool = True
    replicas: dict[str, GatedReplica] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    routed: dict[str, float] = field(default_factory=dict)  # since when, monotonic seconds

    async def add(self, name: str) -> GatedReplica:
        made = self.replicas[name] = GatedReplica(
            self.root / name, self.venv, gate=self.gate, **self.changes
        )
        await eventually(made.well, f"{name} well")
        return made

    async def join(self, *names: str) -> None:
        spec = service("demo", **self.changes)
        for name in names:
            self.rig.driver.put(spec, replica(name, "demo", self.replicas[name].address))
        if self.rig.loop is None:
            self.rig.start()
        await self.rig.routed(*names)
        self.routed |= dict.fromkeys(names, time.monotonic())

    async def begin(self, count: int) -> None:
        names = [f"demo-{number}" for number in range(count)]
        await asyncio.gather(*(self.add(name) for name in names))
        await self.join(*names)

    async def ask(self, body: str, leave_after: float | None = None, size: int = 0) -> Told:
        told = Told(f"id-{len(self.told)}", time.monotonic())
        self.told.append(told)
        data = body.encode().ljust(size or len(body))
        reader, writer = await asyncio.open_connection("127.0.0.1", self.rig.settings.port)
        try:
            writer.write(
                b"POST /api/v1/service/demo/score HTTP/1.1\r\nHost: x\r\n"
                b"x-request-id: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
                % (told.id.encode(), len(data))
                + data
            )
            async with asyncio.timeout(leave_after or 60):
                head = await reader.readuntil(b"\r\n\r\n")
            told.code = int(head.split(b" ")[1])
        except TimeoutError:
            assert leave_after is not None, "no answer within a minute"
        finally:
            told.until = time.monotonic()
            writer.close()
        return told

    def inside(self) -> int:
        return sum(
            1 if sign == "+" else -1
            for item in self.replicas.values()
            for _, sign, _ in item.events()
        )

    def most(self) -> dict[str, int]:
        """The most requests at a time in each replica, by its own count."""
        found = {}
        for name, item in self.replicas.items():
            now = most = 0
            for _, sign, _ in item.events():
                now += 1 if sign == "+" else -1
                most = max(most, now)
            found[name] = most
        return found

    def idle(self, limit: int, noise: float) -> float:
        """Seconds for which a replica in rotation had a worker free while a request waited that nobody
        had begun, in pieces longer than `noise`."""
        began = {
            id_: at
            for item in self.replicas.values()
            for at, sign, id_ in item.events()[::-1]
            if sign == "+"
        }
        steps: list[tuple[float, int, int]] = []  # at, change of waiting, change of busy
        for told in self.told:
            steps += [(told.sent, 1, 0), (min(began.get(told.id, told.until), told.until), -1, 0)]
        wasted = 0.0
        for name in self.replicas:
            own = [
                (at, 0, 1 if sign == "+" else -1) for at, sign, _ in self.replicas[name].events()
            ]
            waiting = busy = 0
            since: float | None = None
            began_here = self.routed[name]
            for at, one, other in sorted([*steps, *own]):
                waiting, busy = waiting + one, busy + other
                idle = waiting > 0 and busy < limit and at >= began_here
                if idle and since is None:
                    since = at
                elif not idle and since is not None:
                    wasted += at - since if at - since > noise else 0.0
                    since = None
        return wasted


Start = Callable[..., AsyncIterator[Town]]


@contextlib.asynccontextmanager
async def town(
    rig: Rig, root: Path, venv: Path, *, gate: bool = True, **changes: object
) -> AsyncIterator[Town]:
    made = Town(rig, root / ("r" * 40), venv, changes, gate)
    try:
        yield made
    finally:
        for item in made.replicas.values():
            await asyncio.to_thread(item.end)


CHANGES = {"concurrency": 2, "scoring_timeout_ms": 800, "max_request_wait_ms": 20_000}


async def crowd(made: Town, rig: Rig) -> None:
    """200 clients: most ask three times, some leave early and some are told 504, while a replica joins
    and HAProxy is reloaded."""
    assert rig.loop is not None

    async def patient(first: float) -> None:
        await asyncio.sleep(first)
        for _ in range(3):
            await made.ask("0.02")

    waits = random.Random(7)
    clients = [asyncio.create_task(patient(waits.random())) for _ in range(186)]
    clients += [asyncio.create_task(made.ask("2.0")) for _ in range(6)]
    clients += [asyncio.create_task(made.ask("1.2", leave_after=0.5)) for _ in range(8)]
    await asyncio.sleep(0.4)
    await made.join("late-1")
    rig.driver.put(service("other", max_request_wait_ms=900))
    await eventually(lambda: rig.loop.plane.reloads == 1, "the reload")
    await asyncio.gather(*clients)
    # and now that there is room for everybody, with replicas still at work on what was given up
    given_up = [asyncio.create_task(made.ask("2.0")) for _ in range(3)]
    await asyncio.gather(*given_up)
    for _ in range(10):
        await asyncio.gather(*(made.ask("0.02") for _ in range(2)))
    await eventually(lambda: made.inside() == 0, "all done")


async def test_concurrency_is_exact_and_nobody_idles_whatever_was_given_up(
    unix_rig: Rig,
    tmp_path: Path,
    scoring_venv: Path,  # noqa: F811
) -> None:
    async with town(unix_rig, tmp_path, scoring_venv, **CHANGES) as made:
        await asyncio.gather(made.begin(3), made.add("late-1"))
        await crowd(made, unix_rig)
        idle = made.idle(2, noise=0.15)
        print("at most", made.most(), "idle while others waited", round(idle, 2), "s")
        assert set(made.most().values()) == {2}
        codes = sorted(told.code for told in made.told)
        assert set(codes) == {0, 200, 504}
        assert codes.count(504) <= 9
        assert codes.count(200) == 186 * 3 + 20
        assert idle < 0.5
        begun = [
            id_ for item in made.replicas.values() for _, sign, id_ in item.events() if sign == "+"
        ]
        assert len(begun) == len(set(begun))  # nothing that was begun was sent again


async def test_a_dead_replica_takes_nobody_elses_request_with_it(
    unix_rig: Rig,
    tmp_path: Path,
    scoring_venv: Path,  # noqa: F811
) -> None:
    changes = {**CHANGES, "scoring_timeout_ms": 10_000}
    async with town(unix_rig, tmp_path, scoring_venv, **changes) as made:
        await made.begin(3)

        async def often() -> None:
            for _ in range(6):
                await made.ask("0.05")

        clients = [asyncio.create_task(often()) for _ in range(30)]
        await eventually(lambda: sum(told.code == 200 for told in made.told) > 40, "at work")
        os.kill(made.replicas["demo-1"].master(), signal.SIGKILL)
        await asyncio.gather(*clients)
        open_ids = set()
        for _, sign, id_ in made.replicas["demo-1"].events():
            open_ids ^= {id_} if sign == "+" or id_ in open_ids else set()
        failed = {told.id: told.code for told in made.told if told.code != 200}
        assert set(failed.values()) <= {502}
        assert set(failed) <= open_ids
        assert len(failed) <= 2


async def test_with_one_replica_a_request_waits_as_long_as_it_may(
    unix_rig: Rig,
    tmp_path: Path,
    scoring_venv: Path,  # noqa: F811
) -> None:
    changes = {"concurrency": 1, "scoring_timeout_ms": 300, "max_request_wait_ms": 700}
    async with town(unix_rig, tmp_path, scoring_venv, **changes) as made:
        await made.begin(1)
        assert (await made.ask("1.8")).code == 504  # and the replica is at work for 1.5 s more
        refused = await made.ask("0.02")
        assert refused.code == 503
        assert 0.6 < refused.until - refused.sent < 1.1
        served = await made.ask("0.02")
        assert served.code == 503 or served.until - served.sent < 1.0
        assert (await made.ask("0.02")).code == 200
        # a script's own 425 is its answer, and is not asked twice
        assert (await made.ask("0.0 425")).code == 425
        begun = [id_ for _, sign, id_ in made.replicas["demo-0"].events() if sign == "+"]
        assert len(begun) == len(set(begun))
        assert made.most() == {"demo-0": 1}


async def test_a_body_that_the_router_cannot_keep_waits_for_a_worker_where_it_is(
    unix_rig: Rig,
    tmp_path: Path,
    scoring_venv: Path,  # noqa: F811
) -> None:
    changes = {"concurrency": 1, "scoring_timeout_ms": 10_000, "max_request_wait_ms": 5_000}
    async with town(unix_rig, tmp_path, scoring_venv, **changes) as made:
        await made.begin(1)
        left = asyncio.create_task(made.ask("0.8", leave_after=0.2))
        assert (await left).code == 0
        large = await asyncio.gather(*(made.ask("0.0", size=3_000_000) for _ in range(3)))
        assert [told.code for told in large] == [200] * 3
        assert made.most() == {"demo-0": 1}
