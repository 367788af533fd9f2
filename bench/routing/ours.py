"""The product's own data plane, with its readings going on while it is measured.

HAProxy is configured, started, told and read by `router.dataplane.DataPlane` itself, so a change of
`render.py` is measured as it is. The only thing decided here is the connection mode.
"""

import asyncio
import csv
import hashlib
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bench.routing.processes import BenchError, family, pin
from deployments.errors import Unavailable
from deployments.home import Home
from deployments.types import (
    AuthSpec,
    EnvironmentSpec,
    FileSpec,
    RevisionSpec,
    RouterSpec,
    Scaling,
    ServiceSpec,
    TokenKey,
    VersionSpec,
)
from router.dataplane import DataPlane, Reading, Settings
from router.haproxy.pool import Key
from router.haproxy.process import HAProxy, find_binary
from router.haproxy.slots import Wanted
from router.loop import TICK
from router.run import Place

KEY = "a-key-of-the-bench-as-long-as-real-ones-are-0123456789"
TOKEN_SERVICE = "bench-token"
REPLICAS, CONCURRENCY = 4, 16
_KID = "bench"
_SILENT_SECONDS = 10.0


@dataclass
class Ours:
    """Lives in a thread of its own. `close` ends HAProxy too."""

    folder: Path  # a short path: sockets stand below it
    port: int
    core: int
    addresses: tuple[str, ...]  # of the replicas
    server_close: bool = False
    trouble: BaseException | None = None
    ready: bool = False
    reloaded: bool = False  # while it was measured

    def __post_init__(self) -> None:
        home = Home(self.folder)
        home.ensure()
        self._place = Place("bench", home)
        self.haproxy = HAProxy(find_binary(), self._place.paths)
        self._signing = ec.generate_private_key(ec.SECP256R1())
        self._reading: Reading | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="data plane", daemon=True)

    def start(self) -> tuple[int, ...]:
        """Pids of HAProxy, once the replicas are in rotation."""
        self._thread.start()
        end = time.monotonic() + 30
        while not self.ready:
            if self.trouble is not None or time.monotonic() > end:
                raise BenchError(
                    f"our router does not start: {self.trouble or 'no replica in 30 s'}"
                )
            time.sleep(0.05)
        master = self.haproxy.running()
        if master is None:
            raise BenchError("our HAProxy ended")
        pids = tuple(process.pid for process in family(master.pid))
        for pid in pids:
            pin(pid, self.core)
        return pids

    def steady(self) -> None:
        """Raises BenchError when what was measured is not one worker with its readings going on."""
        if self.trouble is not None:
            raise BenchError(f"our data plane ended while it was measured: {self.trouble!r}")
        if self.reloaded:
            raise BenchError("our HAProxy was reloaded while it was measured")

    def close(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(10)
        self.haproxy.stop(soft=1)

    def token(self) -> str:
        """A token of `TOKEN_SERVICE`, as the portal issues them, that lives for longer than any run."""
        now = int(time.time())
        claims = {"iss": "slipway", "aud": TOKEN_SERVICE, "sub": "bench", "jti": uuid.uuid4().hex}
        return jwt.encode(
            {**claims, "iat": now, "exp": now + 12 * 3600},
            self._signing,
            algorithm="ES256",
            headers={"kid": _KID},
        )

    def counted(self) -> tuple[int, int]:
        """From a reading that begins after now: requests answered 2xx, and those whose time is in the
        histogram, since HAProxy began."""
        asked, end = time.monotonic(), time.monotonic() + 10
        while self._reading is None or self._reading.begun < asked:
            self.steady()
            if time.monotonic() > end:
                raise BenchError("our data plane's readings have stopped")
            time.sleep(0.02)
        found = [
            item for worker in (self._reading.counted or {}).values() for item in worker.values()
        ]
        return sum(item.ok for item in found), sum(sum(item.histogram) for item in found)

    def links(self) -> dict[str, int]:
        """Connections to replicas since HAProxy began: made (`connect`), and failed (`econ`)."""
        answer = asyncio.run(self.haproxy.runtime.ask(["show stat -1 4 -1"]))[0]
        rows = list(csv.DictReader(answer.lstrip("# ").splitlines()))
        return {
            name: sum(int(row[name] or 0) for row in rows if row["pxname"].startswith("be_"))
            for name in ("connect", "econ")
        }

    def _run(self) -> None:
        try:
            asyncio.run(self._ticks())
        except Exception as error:  # noqa: BLE001 - told to whoever waits
            self.trouble = error

    async def _ticks(self) -> None:
        """As the product's loop does: figures at every tick, counters once a second."""
        links = self._place.slots if self.addresses[0].startswith("unix:") else None
        settings = Settings(
            "127.0.0.1", self.port, slot_folder=links, server_close=self.server_close
        )
        plane = DataPlane(self.haproxy, settings)
        services = (
            _service("bench", AuthSpec(key_digests=_digests(KEY, f"second-{KEY}"))),
            _service(TOKEN_SERVICE, AuthSpec(key_enabled=False, token_enabled=True)),
        )
        wanted = {
            Key(service.name, "default"): tuple(
                Wanted(f"{service.name}-{index}", address, CONCURRENCY)
                for index, address in enumerate(self.addresses)
            )
            for service in services
        }
        public = self._signing.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        spec = RouterSpec(generation=1, token_keys=(TokenKey(_KID, public.decode()),))
        second, answered = 0, time.monotonic()
        while not self._stopping.is_set():
            turned = int(time.time()) != second
            second = int(time.time())
            try:
                await plane.prepare(services, wanted, spec)
                reading = await plane.read(wanted, counters=turned)
                await plane.apply(reading, services, wanted, {})
            except Unavailable:
                # as the product's loop does: without a core of its own HAProxy may be late once
                if time.monotonic() - answered > _SILENT_SECONDS:
                    raise
                await asyncio.sleep(TICK)
                continue
            answered = time.monotonic()
            if reading.counted is not None:
                self._reading = reading
            if not self.ready and len(plane.held()) == len(services) * len(self.addresses):
                # the settings may take a reload: only the worker after it is the one to measure
                self.ready = plane.following.due() is None and not plane.old_workers
                self._reloads = plane.reloads
            self.reloaded = self.ready and plane.reloads != self._reloads
            await asyncio.sleep(TICK)


def _service(name: str, auth: AuthSpec) -> ServiceSpec:
    revision = RevisionSpec(
        service=name,
        number=1,
        source=FileSpec("source.zip", "0" * 64, 1),
        entry_script="score.py",
        models=(),
        environment=EnvironmentSpec("e" * 64, "/nowhere"),
        concurrency=CONCURRENCY,
        max_request_wait_ms=5000,
    )
    count = Scaling(autoscale=False, minimum=REPLICAS, maximum=REPLICAS)
    return ServiceSpec(
        name=name,
        versions=(VersionSpec("default", revision, count),),
        auth=auth,
    )


def _digests(*keys: str) -> tuple[str, ...]:
    return tuple(hashlib.sha256(key.encode()).hexdigest() for key in keys)
