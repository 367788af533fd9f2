"""Stand-ins for the router's tests: a cluster in memory, one in a file, and tiny replicas."""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from deployments.codec import from_json, to_json
from deployments.drivers.base import BlobSource, Driver, LogPage
from deployments.errors import Unavailable
from deployments.sockets import LISTEN, address_of, within
from deployments.types import (
    AuthSpec,
    Capacity,
    Check,
    ClusterKind,
    EnvironmentSpec,
    FileSpec,
    NodeCapacity,
    Observation,
    ObservedService,
    ObservedVersion,
    Phase,
    Replica,
    RevisionSpec,
    RouteReport,
    RouterSpec,
    Scaling,
    ServiceSpec,
    VersionSpec,
)


def revision(service: str, number: int = 1, **changes: object) -> RevisionSpec:
    base = RevisionSpec(
        service=service,
        number=number,
        source=FileSpec("source.zip", "0" * 64, 1),
        entry_script="score.py",
        models=(),
        environment=EnvironmentSpec("e" * 64, "/nowhere"),
    )
    return replace(base, **changes)


def service(
    name: str,
    *,
    auth: AuthSpec | None = None,
    scaling: Scaling | None = None,
    **changes: object,
) -> ServiceSpec:
    """A service of one version with a fixed count, open to all unless `auth` says otherwise."""
    return ServiceSpec(
        name=name,
        versions=(
            VersionSpec(
                "default",
                revision(name, **changes),
                scaling or Scaling(autoscale=False, minimum=1, maximum=1),
            ),
        ),
        auth=auth or AuthSpec(key_enabled=False),
    )


def replica(
    name: str, service_name: str, address: str, phase: Phase = Phase.READY, **changes: object
) -> Replica:
    base = Replica(
        id=name,
        service=service_name,
        version="default",
        revision=1,
        phase=phase,
        address=address,
        created_at=1.0,
        started_at=1.0,
        ready_at=2.0,
    )
    return replace(base, **changes)


class MemoryDriver(Driver):
    """A cluster that is what the test says, and keeps what the router told it."""

    kind = ClusterKind.PROCESS

    def __init__(self) -> None:
        self.services: dict[str, ServiceSpec] = {}
        self.replicas: dict[str, Replica] = {}
        self.desired: dict[tuple[str, str], int] = {}
        self.reports: list[RouteReport] = []
        self.scaled: list[tuple[str, str, int, tuple[str, ...]]] = []
        self.reachable = True
        self.router = RouterSpec()
        self.others: dict[tuple[str, str], str] = {}

    def foreign_scalers(self) -> dict[tuple[str, str], str]:
        return dict(self.others)

    def put(self, spec: ServiceSpec, *replicas: Replica) -> None:
        self.services[spec.name] = spec
        for item in replicas:
            self.replicas[item.id] = item

    def phase(self, name: str, phase: Phase) -> None:
        self.replicas[name] = replace(self.replicas[name], phase=phase)

    def observe(self) -> Observation:
        if not self.reachable:
            raise Unavailable("the cluster is away")
        return Observation(
            at=time.time(),
            services=tuple(
                ObservedService(
                    spec=spec,
                    desired=tuple(
                        ObservedVersion(
                            version.name,
                            self.desired.get((spec.name, version.name), version.scaling.minimum),
                        )
                        for version in spec.versions
                    ),
                    replicas=tuple(
                        item for item in list(self.replicas.values()) if item.service == spec.name
                    ),
                )
                for spec in list(self.services.values())
            ),
        )

    def apply_router(self, spec: RouterSpec) -> None:
        self.router = spec

    def router_spec(self) -> RouterSpec:
        return self.router

    def publish_routes(self, report: RouteReport) -> None:
        self.reports.append(report)
        del self.reports[:-200]

    def route(self, name: str) -> str | None:
        """The last report's word on a replica."""
        if not self.reports:
            return None
        return {item.replica: item.state.value for item in self.reports[-1].routes}.get(name)

    def scale(
        self, service: str, version: str, replicas: int, prefer_removing: Sequence[str] = ()
    ) -> None:
        self.desired[service, version] = replicas
        self.scaled.append((service, version, replicas, tuple(prefer_removing)))

    def capacity(self) -> Capacity:
        return Capacity(time.time(), (NodeCapacity("here", 64, 64, 64, 64),))

    def stage(self, revision: RevisionSpec, blobs: BlobSource) -> None:
        raise NotImplementedError

    def apply(self, spec: ServiceSpec) -> None:
        raise NotImplementedError

    def remove(self, name: str) -> None:
        raise NotImplementedError

    def logs(
        self, replica: str, *, cursor: str = "", limit: int = 1000, previous: bool = False
    ) -> LogPage:
        raise NotImplementedError

    def log_replicas(self, service: str) -> Sequence[str]:
        raise NotImplementedError

    def check(self) -> Iterator[Check]:
        raise NotImplementedError


class FileDriver(MemoryDriver):
    """The same, seen from another process: the cluster is a file, and so is the last report."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def write(self) -> None:
        _swap(self.folder / "cluster.json", to_json(super().observe()))

    def observe(self) -> Observation:
        text = (self.folder / "cluster.json").read_text(encoding="utf-8")
        return replace(from_json(Observation, json.loads(text)), at=time.time())

    def publish_routes(self, report: RouteReport) -> None:
        _swap(self.folder / "report.json", to_json(report))

    def report(self) -> RouteReport | None:
        with contextlib.suppress(FileNotFoundError):
            text = (self.folder / "report.json").read_text(encoding="utf-8")
            return from_json(RouteReport, json.loads(text))
        return None


def _swap(path: Path, content: object) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(content), encoding="utf-8")
    beside.replace(path)


class TinyReplica:
    """An HTTP server of a few lines that counts how many requests it has at a time.

    The body says what to do: "sleep 0.2", "fail", "die" (close without an answer), "status 418".
    With a folder it listens on a unix socket there, else on a port.
    """

    def __init__(self, work: float = 0.0, folder: Path | None = None) -> None:
        self.work = work
        self.folder = folder
        self.now = self.most = self.served = 0
        self.heads: list[str] = []
        self.address = ""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> "TinyReplica":
        if self.folder is not None:
            with within(self.folder / LISTEN) as path:
                self._server = await asyncio.start_unix_server(self._serve, path, backlog=1024)
            self.address = address_of(self.folder)
            return self
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    async def kill(self) -> None:
        """As kill -9 does: every connection and the port are gone at once."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            body = await _body(reader, head)
            self.heads.append(head)
            del self.heads[:-50]
            if self.work:
                await asyncio.sleep(self.work)
            status, words = 200, body.decode("latin-1").split()
            if words[:1] == ["sleep"]:
                await asyncio.sleep(float(words[1]))
            elif words[:1] == ["fail"]:
                status = 500
            elif words[:1] == ["status"]:
                status = int(words[1])
            elif words[:1] == ["die"]:
                writer.transport.abort()
                return
            self.served += 1
        finally:
            # before the answer: HAProxy gives the slot to the next one as soon as it has it
            self.now -= 1
        answer = json.dumps({"bytes": len(body), "path": head.split(" ")[1]}).encode()
        writer.write(
            f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(answer)}\r\nConnection: close\r\n\r\n".encode()
            + answer
        )
        await writer.drain()


async def _body(reader: asyncio.StreamReader, head: str) -> bytes:
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
    }
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    parts = []
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            parts.append((await reader.readexactly(size + 2))[:-2])
        await reader.readline()
    return b"".join(parts)


class QuickClient:
    """One keep-alive connection that posts and tells the answer's code: load at little cost."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._path = path
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes = b"{}") -> int:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(
            f"POST {self._path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = head.partition("content-length:")[2].partition("\r\n")[0]
        await reader.readexactly(int(length))
        if "connection: close" in head:
            self.close()
        return int(head.split(" ")[1])

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Load:
    """Clients that ask again and again until told to stop; every answer's code is kept."""

    def __init__(self, port: int, service_name: str, body: bytes, clients: int) -> None:
        self.codes: list[int] = []
        self._done = asyncio.Event()
        path = f"/api/v1/service/{service_name}/score"
        self._tasks = [
            asyncio.create_task(self._ask(QuickClient(port, path), body)) for _ in range(clients)
        ]

    async def _ask(self, client: QuickClient, body: bytes) -> None:
        while not self._done.is_set():
            self.codes.append(await client.post(body))
        client.close()

    async def more(self, count: int = 30) -> None:
        """Wait for so many more answers."""
        target = len(self.codes) + count
        async with asyncio.timeout(30):
            while len(self.codes) < target:
                await asyncio.sleep(0.02)

    async def stop(self) -> set[int]:
        self._done.set()
        await asyncio.gather(*self._tasks)
        return set(self.codes)
