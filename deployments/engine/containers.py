"""What an Engine is asked about containers, images and networks, in our own words.

Thin: each method is one or two calls, with a deadline, raising our own errors through `told`. Holds no
decision about what should run. Safe to use from several threads.
"""

import contextlib
import io
import json
import struct
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import docker
import requests
from docker.types import DeviceRequest, LogConfig, Mount
from docker.utils import parse_repository_tag

from deployments.engine.client import connect, told
from deployments.errors import Conflict, NotFound, PermanentError, SlipwayError, Unavailable
from deployments.types import EngineSpec

CLUSTER, NAME, REPLICA, RUN = (
    "slipway.cluster",
    "slipway.cluster-name",
    "slipway.replica",
    "slipway.run",
)
SERVICE, VERSION, REVISION, GPUS = (
    "slipway.service",
    "slipway.version",
    "slipway.revision",
    "slipway.gpus",
)
_CONNECTIONS = 32
# A registry's answers that say that it was reached, whatever it thinks of the question.
_ANSWERED = ("manifest unknown", "name unknown", "not found")
_STREAM_SILENCE = 3600.0  # seconds; a stream of logs or events that says nothing is opened anew
_PULL_SILENCE = 120.0  # seconds without a word of a pull's progress
_LOG = LogConfig(type=LogConfig.types.JSON, config={"max-size": "10m", "max-file": "3"})


@dataclass(frozen=True, slots=True)
class Container:
    """One container as the listing shows it. `state` is the Engine's word."""

    id: str
    name: str
    state: str
    labels: Mapping[str, str]
    created: float
    ip: str = ""
    ports: Mapping[int, int] = field(default_factory=dict)  # inside -> published

    @property
    def running(self) -> bool:
        return self.state in ("running", "paused", "restarting", "removing")

    @property
    def replica(self) -> str:
        return self.labels.get(REPLICA, "")

    @property
    def run(self) -> int:
        text = self.labels.get(RUN, "")
        return int(text) if text.isdecimal() else 0


@dataclass(frozen=True, slots=True)
class End:
    """How a container ended. `error` is the Engine's own word, of one that never began."""

    code: int
    at: float
    oom: bool
    error: str = ""


@dataclass(frozen=True, slots=True)
class About:
    """An Engine and its machine, in cores and GiB."""

    name: str
    version: str
    api: str
    cpu: float
    memory_gb: float
    storage: str
    root: str
    runtimes: tuple[str, ...]
    live_restore: bool
    system: str
    cgroups: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A container to be made. `binds` is folder here -> (folder inside, may be written), `volumes` the same
    by a volume's name; each folder of `fresh` gets a volume of the container's own, gone with it."""

    name: str
    image: str
    labels: Mapping[str, str]
    entrypoint: tuple[str, ...] = ()  # () keeps the image's own
    user: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    binds: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    volumes: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    fresh: tuple[str, ...] = ()
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    network: str = ""
    publish: tuple[int, ...] = ()
    cpu: float = 0.0
    cpu_limit: float | None = None
    memory_gb: float = 0.0
    memory_gb_limit: float | None = None
    gpus: tuple[str, ...] = ()
    pids: int = 4096
    read_only: bool = True


class Engine:
    """One Engine; connects on first use, and anew after it was away."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self._client: docker.DockerClient | None = None
        self._one_network = threading.Lock()

    @property
    def local(self) -> bool:
        """Whether it shares this machine's files and sockets."""
        return self.spec.local

    def _api(self) -> Any:
        if self._client is None:
            self._client = connect(self.spec, connections=_CONNECTIONS)
        return self._client.api

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    # ---- looking ------------------------------------------------------------------------------

    def about(self) -> About:
        """Raises Unavailable."""
        with told(f"The Docker Engine at {self.spec.url}"):
            api = self._api()
            found = api.info()
            version = api.api_version
        return About(
            name=found.get("Name", ""),
            version=found.get("ServerVersion", ""),
            api=version,
            cpu=float(found.get("NCPU", 0)),
            memory_gb=found.get("MemTotal", 0) / 2**30,
            storage=found.get("Driver", ""),
            root=found.get("DockerRootDir", ""),
            runtimes=tuple(sorted(found.get("Runtimes") or {})),
            live_restore=bool(found.get("LiveRestoreEnabled")),
            system=found.get("OperatingSystem", ""),
            cgroups=found.get("CgroupVersion", "1"),
        )

    def containers(self, cluster: str) -> list[Container]:
        """All of a cluster's, running or not. Raises Unavailable."""
        with told(f"The Docker Engine at {self.spec.url}"):
            rows = self._api().containers(all=True, filters={"label": [f"{CLUSTER}={cluster}"]})
        return [_container(row) for row in rows]

    def end(self, container: str) -> End:
        """How one that does not run ended. Raises NotFound, Unavailable."""
        with told(f"Container {container[:12]}"):
            state = self._api().inspect_container(container)["State"]
        return End(
            code=int(state.get("ExitCode", 0)),
            at=_epoch(state.get("FinishedAt", "")) or time.time(),
            oom=bool(state.get("OOMKilled")),
            error=state.get("Error", ""),
        )

    def address(self, container: str) -> Container:
        """One container with where it is reached now. Raises NotFound, Unavailable."""
        with told(f"Container {container[:12]}"):
            found = self._api().inspect_container(container)
        networks = (found["NetworkSettings"].get("Networks") or {}).values()
        ports = {}
        for inside, places in (found["NetworkSettings"].get("Ports") or {}).items():
            if places and inside.endswith("/tcp"):
                ports[int(inside.partition("/")[0])] = int(places[0]["HostPort"])
        return Container(
            id=found["Id"],
            name=found["Name"].lstrip("/"),
            state=found["State"]["Status"],
            labels=found["Config"].get("Labels") or {},
            created=_epoch(found["Created"]),
            ip=next((item["IPAddress"] for item in networks if item.get("IPAddress")), ""),
            ports=ports,
        )

    # ---- containers ---------------------------------------------------------------------------

    def create(self, asked: Asked) -> str:
        """Its id; the standing one's where the name is taken. Raises SlipwayError."""
        with told(f"Container {asked.name}"):
            api = self._api()
            host = api.create_host_config(
                mounts=[
                    Mount(inside, here, type="bind", read_only=not writable)
                    for here, (inside, writable) in asked.binds.items()
                ]
                + [
                    Mount(inside, name, type="volume", read_only=not writable)
                    for name, (inside, writable) in asked.volumes.items()
                ]
                + [
                    Mount(inside, None, type="volume", labels=dict(asked.labels))
                    for inside in asked.fresh
                ],
                tmpfs=dict(asked.tmpfs),
                network_mode=asked.network or "none",
                port_bindings=dict.fromkeys(asked.publish),
                cpu_shares=max(2, round(asked.cpu * 1024)) if asked.cpu else None,
                nano_cpus=round(asked.cpu_limit * 1e9) if asked.cpu_limit else None,
                mem_limit=_bytes(asked.memory_gb_limit),
                memswap_limit=_bytes(asked.memory_gb_limit),
                device_requests=[DeviceRequest(device_ids=list(asked.gpus), capabilities=[["gpu"]])]
                if asked.gpus
                else None,
                pids_limit=asked.pids,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges:true"],
                read_only=asked.read_only,
                log_config=_LOG,
                restart_policy={"Name": "no"},
            )
            try:
                made = api.create_container(
                    asked.image,
                    name=asked.name,
                    entrypoint=list(asked.entrypoint) or None,
                    command=[] if asked.entrypoint else None,
                    user=asked.user or None,
                    environment=dict(asked.environment),
                    working_dir=asked.folder or None,
                    labels=dict(asked.labels),
                    ports=list(asked.publish) or None,
                    host_config=host,
                    stdin_open=False,
                    tty=False,
                )
            except docker.errors.APIError as error:
                if error.status_code != 409:
                    raise
                made = api.inspect_container(asked.name)  # an agent was killed after it made this
        return str(made["Id"])

    def start(self, container: str) -> None:
        """Raises PermanentError with the Engine's words when its program cannot be run."""
        with told(f"Container {container[:12]}"):
            self._api().start(container)

    def kill(self, container: str, signal: str) -> None:
        """Not an error when it does not run any more."""
        try:
            with told(f"Container {container[:12]}"):
                self._api().kill(container, signal)
        except (NotFound, Conflict):
            return
        except PermanentError as error:
            if "not running" not in error.message:
                raise

    def remove(self, container: str) -> None:
        """With what it holds, whether it runs or not. Not an error when it is gone."""
        try:
            with told(f"Container {container[:12]}"):
                self._api().remove_container(container, force=True, v=True)
        except (NotFound, Conflict):
            return  # gone, or being removed

    def run(self, asked: Asked, *, deadline: float = 30.0) -> tuple[End, str]:
        """Make, start, await and remove one; how it ended, and its output. Raises SlipwayError."""
        container = self.create(asked)
        try:
            return self.run_made(container, deadline=deadline)
        finally:
            self.remove(container)

    def run_made(self, container: str, *, deadline: float) -> tuple[End, str]:
        """Start one that was made, and await its end. Raises SlipwayError."""
        self.start(container)
        with told(f"Container {container[:12]}"):
            self._api().wait(container, timeout=deadline)
            output = self._api().logs(container, stdout=True, stderr=True)
        return self.end(container), output.decode("utf-8", "replace")

    # ---- streams ------------------------------------------------------------------------------

    def logs(self, container: str, since: str = "") -> Iterator[tuple[str, str, str]]:
        """(stream "o" or "e", the Engine's own time of the line, text) from `since` on, until it ends.
        A piece of a long line ends without a newline, and so does its text; others end with one.

        Raises Unavailable when the Engine goes away, NotFound.
        """
        query = {"stdout": 1, "stderr": 1, "follow": 1, "timestamps": 1}
        if since:
            query["since"] = _seconds(since)  # type: ignore[assignment]
        with told(f"The log of container {container[:12]}"):
            api = self._api()
            answer = api.get(
                api._url("/containers/{0}/logs", container),
                params=query,  # joins both streams into one and cuts lines where packets end
                stream=True,
                timeout=(10.0, _STREAM_SILENCE),
            )
            with answer:
                api._raise_for_status(answer)
                for kind, payload in _frames(answer.iter_content(chunk_size=None)):
                    stamp, _, text = payload.decode("utf-8", "replace").partition(" ")
                    yield ("e" if kind == 2 else "o"), stamp, text

    def events(self, cluster: str) -> Iterator[str]:
        """A word for each thing that happens to a cluster's containers. Raises Unavailable."""
        with told(f"The events of the Docker Engine at {self.spec.url}"):
            api = self._api()
            filters = {"type": ["container"], "label": [f"{CLUSTER}={cluster}"]}
            answer = api.get(
                api._url("/events"),
                params={"filters": json.dumps(filters)},
                stream=True,
                timeout=(10.0, _STREAM_SILENCE),
            )
            with answer:
                api._raise_for_status(answer)
                for line in answer.iter_lines(chunk_size=None):
                    if line:
                        yield str(json.loads(line).get("Action", ""))

    # ---- images -------------------------------------------------------------------------------

    def has_image(self, reference: str) -> bool:
        """Raises Unavailable."""
        try:
            with told(f"Image {reference}"):
                self._api().inspect_image(reference)
        except NotFound:
            return False
        return True

    def reaches(self, registry: str, login: tuple[str, str] | None) -> str:
        """ "" when the Engine itself gets an answer of a registry, else why not."""
        auth = {"username": login[0], "password": login[1]} if login else None
        try:
            with told(f"The registry {registry}"):
                self._api().inspect_distribution(f"{registry}/slipway/none:none", auth)
        except NotFound:
            return ""  # it answered: there is no such image
        except SlipwayError as error:
            text = error.message
            return "" if any(word in text for word in _ANSWERED) else text
        return ""

    def pull(
        self,
        reference: str,
        login: tuple[str, str] | None,
        progress: Callable[[str], None],
    ) -> None:
        """Bring an image to the Engine. `progress` gets a word from time to time.

        Raises PermanentError with the registry's words, Unavailable.
        """
        repository, tag = parse_repository_tag(reference)
        auth = {"username": login[0], "password": login[1]} if login else None
        sizes: dict[str, tuple[int, int]] = {}
        client = connect(self.spec, deadline=_PULL_SILENCE)
        try:
            with told(f"Image {reference}"):
                for step in client.api.pull(
                    repository, tag=tag or "latest", stream=True, decode=True, auth_config=auth
                ):
                    if words := step.get("error"):
                        raise PermanentError(str(words))
                    detail = step.get("progressDetail") or {}
                    if detail.get("total"):
                        sizes[step.get("id", "")] = (detail.get("current", 0), detail["total"])
                        done = sum(item[0] for item in sizes.values())
                        total = sum(item[1] for item in sizes.values())
                        progress(f"pulling {done / 2**20:.0f} of {total / 2**20:.0f} MiB")
        finally:
            client.close()

    # ---- networks and volumes -----------------------------------------------------------------

    def ensure_network(self, name: str, labels: Mapping[str, str]) -> None:
        """A bridge on which containers do not reach each other. Raises SlipwayError."""
        with self._one_network, told(f"Network {name}"):
            api = self._api()
            if any(row["Name"] == name for row in api.networks(names=[name])):
                return
            try:
                api.create_network(
                    name,
                    driver="bridge",
                    check_duplicate=True,
                    labels=dict(labels),
                    options={"com.docker.network.bridge.enable_icc": "false"},
                )
            except docker.errors.APIError as error:
                if error.status_code != 409:
                    raise
            # Names are not unique there: of two that were made at once, in two processes, the same one
            # stays for both.
            same = [row for row in api.networks(names=[name]) if row["Name"] == name]
            for row in sorted(same, key=lambda row: (row["Created"], row["Id"]))[1:]:
                with contextlib.suppress(docker.errors.APIError):
                    api.remove_network(row["Id"])

    def networks(self, cluster: str) -> dict[str, str]:
        """Name by id."""
        with told(f"The networks of the Docker Engine at {self.spec.url}"):
            rows = self._api().networks(filters={"label": [f"{CLUSTER}={cluster}"]})
        return {row["Id"]: row["Name"] for row in rows}

    def remove_network(self, network: str) -> None:
        """By its id. Not an error when it is gone."""
        try:
            with told(f"Network {network[:12]}"):
                self._api().remove_network(network)
        except NotFound:
            return

    def volumes(self, cluster: str) -> list[str]:
        with told(f"The volumes of the Docker Engine at {self.spec.url}"):
            rows = self._api().volumes(filters={"label": [f"{CLUSTER}={cluster}"]})
        return sorted(row["Name"] for row in rows.get("Volumes") or [])

    def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        with told(f"Volume {name}"):
            self._api().create_volume(name, labels=dict(labels))

    def fill(self, container: str, folder: str, archive: Iterator[bytes]) -> None:
        """Unpack a tar stream in a container's folder, also in one that was never started."""
        client = connect(self.spec, deadline=300.0)
        try:
            with told(f"Container {container[:12]}"):
                client.api.put_archive(container, folder, archive)
        finally:
            client.close()

    def read(self, container: str, path: str) -> bytes | None:
        """A small file of a container, running or not; None where there is none."""
        try:
            with told(f"Container {container[:12]}"):
                chunks, _ = self._api().get_archive(container, path)
                data = b"".join(chunks)
        except NotFound:
            return None
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            file = archive.extractfile(archive.getmembers()[0])
            return file.read() if file is not None else None

    def left_over(self, label: str, value: str) -> list[str]:
        """Ids of containers with this mark, running or not."""
        with told(f"The Docker Engine at {self.spec.url}"):
            rows = self._api().containers(all=True, filters={"label": [f"{label}={value}"]})
        return [row["Id"] for row in rows]

    def remove_volume(self, name: str) -> None:
        """Not an error when it is gone. Raises Conflict while a container uses it."""
        try:
            with told(f"Volume {name}"):
                self._api().remove_volume(name)
        except NotFound:
            return


def _container(row: Mapping[str, Any]) -> Container:
    networks = ((row.get("NetworkSettings") or {}).get("Networks") or {}).values()
    ports = {
        int(item["PrivatePort"]): int(item["PublicPort"])
        for item in row.get("Ports") or ()
        if item.get("PublicPort") and item.get("Type") == "tcp"
    }
    return Container(
        id=row["Id"],
        name=next((name.lstrip("/") for name in row.get("Names") or ()), ""),
        state=row["State"],
        labels=row.get("Labels") or {},
        created=float(row["Created"]),
        ip=next((item["IPAddress"] for item in networks if item.get("IPAddress")), ""),
        ports=ports,
    )


def _frames(chunks: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """The Engine's multiplexed stream: a head of 8 bytes (stream, length), then that much."""
    rest = b""
    for chunk in chunks:
        rest += chunk
        while len(rest) >= 8:
            kind, length = struct.unpack(">BxxxL", rest[:8])
            if len(rest) < 8 + length:
                break
            yield kind, rest[8 : 8 + length]
            rest = rest[8 + length :]


def _epoch(stamp: str) -> float:
    """Seconds of the Engine's RFC 3339 time, which has nanoseconds; 0 for its zero time."""
    if not stamp or stamp.startswith("0001-"):
        return 0.0
    return datetime.fromisoformat(stamp).timestamp()


def _seconds(stamp: str) -> str:
    """The Engine's time as it wants it asked: whole seconds, a dot and nanoseconds."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    at = datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()
    return f"{at:.0f}.{fraction:0<9}"


def _bytes(gib: float | None) -> int | None:
    return round(gib * 2**30) if gib else None


# What a stream raises when its Engine goes away between two pieces.
BROKEN = (requests.exceptions.RequestException, Unavailable, OSError)
