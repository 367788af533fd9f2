"""How a Docker cluster is: its folder, its Engine, what that can reach, its room, its agent.

Asks the Engine; changes nothing there but one container that it makes and removes again, and the
cluster's own network, which the agent would make anyway. An Engine on another machine is reached on a
port that it publishes, one here through a socket in a folder that both see.
"""

import contextlib
import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from deployments.drivers import engine_file, process_checks
from deployments.drivers.engine_file import EngineFile
from deployments.drivers.process_layout import ClusterFolder, read_json
from deployments.engine import containers
from deployments.engine.containers import About, Asked, Engine
from deployments.errors import SlipwayError
from deployments.types import Check, CheckStatus, NodeCapacity, Resources

_GIB = 2**30
_LEAST_DISK = 2 * _GIB
_LEAST_VERSION = (19, 3)
_BAD_DRIVERS = ("vfs",)
_TRY_SECONDS = 15.0
_NEW = 60.0  # seconds after it was attached, for which a cluster's agent may be on its way
# Run by the image's Python: answers one connection on a socket in a folder that the host sees.
_ANSWER = (
    "import socket; s = socket.socket(socket.AF_UNIX); s.bind('/slipway/try/s'); s.listen(1); "
    f"s.settimeout({_TRY_SECONDS:g}); c, _ = s.accept(); c.sendall(b'slipway'); c.close()"
)
# The same on a port, for an Engine on another machine; whoever proxies it may ask more than once.
_ANSWER_FAR = (
    f"import socket; s = socket.create_server(('', 5001)); s.settimeout({_TRY_SECONDS:g})\n"
    "while True: c, _ = s.accept(); c.sendall(b'slipway'); c.close()"
)
_FAR_PORT = 5001
SANDBOX_ID = 10001


def network_of(cluster: str, cluster_id: str) -> str:
    """The name of the cluster's own network."""
    return f"slipway-{cluster}-{cluster_id[:6]}"


def sandbox_user() -> int:
    """Who a container's processes are, inside and out; never root."""
    return os.getuid() or SANDBOX_ID


def gpus_of(about: About, *, local: bool) -> int:
    """NVIDIA devices that containers may be given; none where the Engine has no runtime for them, or
    stands where they cannot be counted."""
    if "nvidia" not in about.runtimes or not local:
        return 0
    return sum(1 for _ in Path("/dev").glob("nvidia[0-9]*"))


def node(about: About, local: bool, asked: Sequence[Resources]) -> NodeCapacity:
    """The Engine's machine, less what replicas ask for."""
    gpus = gpus_of(about, local=local)
    return NodeCapacity(
        name=about.name,
        cpu_total=about.cpu,
        cpu_free=max(0.0, about.cpu - sum(item.cpu for item in asked)),
        memory_gb_total=round(about.memory_gb, 2),
        memory_gb_free=round(max(0.0, about.memory_gb - sum(item.memory_gb for item in asked)), 2),
        gpu_total=gpus,
        gpu_free=max(0, gpus - sum(item.gpu for item in asked)),
    )


def run(folder: ClusterFolder) -> Iterator[Check]:
    """The checks, in the order they are needed; what cannot be asked any more is left out."""
    yield process_checks.folder_check(folder)
    try:
        file = engine_file.read(folder.root)
    except SlipwayError as error:
        yield Check("Engine answers", CheckStatus.FAIL, error.message, "Attach the cluster anew.")
        return
    with closing(Engine(file.engine)) as engine:
        yield from _of_engine(engine, file, folder)
    yield _agent(folder)


def _agent(folder: ClusterFolder) -> Check:
    """It is started when the cluster was attached, which is only just being done the first time."""
    found = process_checks.agent_check(folder)
    attached = engine_file.path_of(folder.root).stat().st_mtime
    if process_checks.heartbeat(folder) is None and time.time() - attached < _NEW:
        return replace(found, status=CheckStatus.UNKNOWN, evidence="it is being started", remedy="")
    return found


def _of_engine(engine: Engine, file: EngineFile, folder: ClusterFolder) -> Iterator[Check]:
    name = "Engine answers"
    try:
        about = engine.about()
    except SlipwayError as error:
        remedy = "Start the Engine, and see that this user may use its socket (group docker)."
        yield Check(name, CheckStatus.FAIL, error.message, remedy)
        return
    yield Check(name, CheckStatus.PASS, f"{file.engine.url}: {about.name}, {about.system}")
    yield _version(about)
    yield _storage(about, local=engine.local)
    for address in file.registries:
        yield _registry(engine, file, address)
    yield _network(engine, file, folder)
    yield _container(engine, file, folder)


def _version(about: About) -> Check:
    name = "Engine is new enough"
    evidence = f"Docker {about.version}, API {about.api}, cgroup v{about.cgroups}"
    numbers = [int(part) for part in about.version.split(".")[:2] if part.isdecimal()]
    if tuple(numbers) < _LEAST_VERSION:
        return Check(name, CheckStatus.FAIL, evidence, "Install Docker 19.03 or newer.")
    return Check(name, CheckStatus.PASS, evidence)


def _storage(about: About, *, local: bool) -> Check:
    name = "Engine's disk has room"
    evidence = f"{about.storage} in {about.root}"
    if about.storage in _BAD_DRIVERS:
        remedy = "Use overlay2: this driver copies each image for each container."
        return Check(name, CheckStatus.FAIL, evidence, remedy)
    if not local:
        return Check(name, CheckStatus.UNKNOWN, f"{evidence}, on another machine")
    try:
        free = shutil.disk_usage(about.root).free
    except OSError as error:
        return Check(name, CheckStatus.UNKNOWN, f"{evidence}: {error}")
    evidence = f"{evidence}, {free / _GIB:.1f} GiB free"
    if free < _LEAST_DISK:
        return Check(name, CheckStatus.FAIL, evidence, "Free some space: `docker system df`.")
    return Check(name, CheckStatus.PASS, evidence)


def _registry(engine: Engine, file: EngineFile, address: str) -> Check:
    name = f"Engine reaches the registry {address}"
    login = file.logins.get(address)
    words = engine.reaches(address, (login.username, login.password) if login else None)
    if words:
        remedy = (
            "The Engine itself must reach it: by this name, and by https unless it is listed in the "
            "Engine's insecure-registries."
        )
        return Check(name, CheckStatus.FAIL, words, remedy)
    return Check(name, CheckStatus.PASS, "it answers")


def _network(engine: Engine, file: EngineFile, folder: ClusterFolder) -> Check:
    name = "cluster has a network of its own"
    network = network_of(folder.root.name, file.id)
    labels = {containers.CLUSTER: file.id, containers.NAME: folder.root.name}
    try:
        engine.ensure_network(network, labels)
    except SlipwayError as error:
        remedy = "The Engine found no free addresses, or may not make bridges; see its log."
        return Check(name, CheckStatus.FAIL, error.message, remedy)
    return Check(name, CheckStatus.PASS, f"{network}, traffic between containers is off")


def _container(engine: Engine, file: EngineFile, folder: ClusterFolder) -> Check:
    """Runs one of the images that services here use; before there is any, nothing is known."""
    name = "a container runs and is reached"
    image = next((item for item in _images(folder) if _has(engine, item)), "")
    if not image:
        return Check(
            name,
            CheckStatus.UNKNOWN,
            "no image of a service is there yet; the first deployment will tell",
        )
    began = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="try-", dir=folder.root))
    try:
        if os.getuid() == 0:
            os.chown(scratch, SANDBOX_ID, SANDBOX_ID)
        said = _answer(engine, file, folder, image, scratch)
    except SlipwayError as error:
        return Check(name, CheckStatus.FAIL, error.message, "See the Engine's own log.")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if said != b"slipway":
        return _not_reached(name, engine, folder)
    took = time.monotonic() - began
    return Check(name, CheckStatus.PASS, f"in {took:.1f} s, from {image}")


def _not_reached(name: str, engine: Engine, folder: ClusterFolder) -> Check:
    evidence, remedy = (
        "it ran, and its socket was not reached",
        f"The Engine must run on this machine and see {folder.root} under the same path; one in "
        "a virtual machine (Docker Desktop) cannot share sockets with it.",
    )
    if not engine.local:
        evidence, remedy = (
            "it ran, and its port was not reached",
            f"{engine.spec.host} publishes each replica on a port that its kernel chooses "
            "(net.ipv4.ip_local_port_range there); its firewall must let this machine connect to them.",
        )
    return Check(name, CheckStatus.FAIL, evidence, remedy)


def _has(engine: Engine, image: str) -> bool:
    try:
        return engine.has_image(image)
    except SlipwayError:
        return False


def _images(folder: ClusterFolder) -> list[str]:
    found = []
    for path in sorted(folder.services.glob("[!.]*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            for version in read_json(path)["versions"]:
                if not version["revision"].get("container"):
                    found.append(version["revision"]["environment"]["location"])
    return found


def _answer(
    engine: Engine, file: EngineFile, folder: ClusterFolder, image: str, scratch: Path
) -> bytes:
    container = engine.create(
        Asked(
            name=f"slipway-check-{file.id[:6]}-{scratch.name[4:]}",
            image=image,
            labels={"slipway.check": file.id},
            entrypoint=("python", "-I", "-S", "-c", _ANSWER if engine.local else _ANSWER_FAR),
            user=f"{sandbox_user()}:{sandbox_user()}",
            binds={str(scratch): ("/slipway/try", True)} if engine.local else {},
            publish=() if engine.local else (_FAR_PORT,),
            network=network_of(folder.root.name, file.id),
        )
    )
    try:
        engine.start(container)
        until = time.monotonic() + _TRY_SECONDS
        path = scratch / "s"
        while time.monotonic() < until:
            try:
                if not engine.local:
                    if said := _ask_far(engine, container):
                        return said
                elif stat.S_ISSOCK(path.lstat().st_mode):
                    return _ask(path)
            except OSError:
                pass  # not there yet
            time.sleep(0.05)
        return b""
    finally:
        engine.remove(container)


def _ask_far(engine: Engine, container: str) -> bytes:
    """Raises OSError."""
    port = engine.address(container).ports.get(_FAR_PORT)
    if port is None:
        return b""
    with socket.create_connection((engine.spec.host, port), timeout=5.0) as asking:
        return asking.recv(64)


def _ask(path: Path) -> bytes:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(5.0)
            asking.connect(f"/proc/self/fd/{folder}/{path.name}")
            return asking.recv(64)
    finally:
        os.close(folder)
