"""A Docker cluster's Engine: its address as a person gives it, how it is reached from its row, the file that
tells the agent, and a first look.

An Engine's address is a door to its whole machine, so only an administrator gives one (the views see to
that), and plain TCP is for loopback addresses alone.
"""

import re
import socket
import ssl
import uuid
from contextlib import closing
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from django.conf import settings

from deployments import sealed
from deployments.clusters.models import Cluster
from deployments.drivers import engine_file
from deployments.drivers.engine_file import EngineFile, Login
from deployments.errors import InvalidInput, SlipwayError, Unavailable
from deployments.images.models import Registry
from deployments.types import EngineSpec, NodeCapacity

if TYPE_CHECKING:
    from deployments.engine.containers import About

URL, CA, CERT, KEY = "engine_url", "engine_ca", "engine_cert", "engine_key"
_SOCKET = re.compile(r"unix:///[^\s\0]+")
# not link-local, and yet where a cloud's machines are told who they are
_METADATA = frozenset(map(ip_address, ("fd00:ec2::254", "100.100.100.200", "168.63.129.16")))


@dataclass(frozen=True, slots=True)
class Found:
    """What an Engine said of itself, before it is attached."""

    about: "About"
    node: NodeCapacity

    @property
    def words(self) -> str:
        gpus = f", {self.node.gpu_total} GPU" if self.node.gpu_total else ", no GPU"
        return (
            f"Docker {self.about.version} (API {self.about.api}) on {self.about.name}, "
            f"{self.about.system}: {self.node.cpu_total:g} cores, "
            f"{self.node.memory_gb_total:.1f} GiB{gpus}."
        )


def checked(spec: EngineSpec) -> EngineSpec:
    """The address and certificates as they are kept. Raises InvalidInput with its field."""
    url = spec.url.strip().rstrip("/")
    if url.startswith("unix://"):
        if not _SOCKET.fullmatch(url):
            raise InvalidInput(
                "Write the socket's whole path: unix:///var/run/docker.sock.", field=URL
            )
        if spec.ca or spec.cert or spec.key:
            raise InvalidInput("A unix socket takes no certificates.", field=CA)
        return EngineSpec(url)
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "tcp" or not parts.hostname or not port or parts.path or parts.username:
        raise InvalidInput(
            "Write unix:///path/of/the/socket, or tcp://host:port such as tcp://10.0.0.5:2376.",
            field=URL,
        )
    _refuse_places(parts.hostname)
    ca, cert, key = (text.strip() for text in (spec.ca, spec.cert, spec.key))
    if not ca and not cert and not key:
        if EngineSpec(url).local:
            return EngineSpec(url)
        raise InvalidInput(
            "An Engine on another machine is reached over TLS alone: whoever connects to it without is "
            "root there. Give authority, certificate and key.",
            field=CA,
        )
    for text, field, name in (
        (ca, CA, "authority"),
        (cert, CERT, "certificate"),
        (key, KEY, "key"),
    ):
        if not text:
            raise InvalidInput(f"TLS needs all three; the {name} is missing.", field=field)
        if not text.startswith("-----BEGIN "):
            raise InvalidInput(
                f"The {name} is not in PEM, which begins with -----BEGIN.", field=field
            )
    if "ENCRYPTED" in key:
        raise InvalidInput("The key is encrypted; give it without a passphrase.", field=KEY)
    return EngineSpec(url, f"{ca}\n", f"{cert}\n", f"{key}\n")


def _refuse_places(host: str) -> None:
    """Where no Engine is, and where a cloud's machines tell their secrets. An address inside is an
    administrator's right: it is their machine."""
    try:
        found = [ip_address(host)]
    except ValueError:
        try:
            rows = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError:
            return  # a name that means nothing yet; the first look says so
        found = [ip_address(str(row[4][0]).partition("%")[0]) for row in rows]
    for item in found:
        plain = item.ipv4_mapped or item if isinstance(item, IPv6Address) else item
        if plain.is_link_local or plain.is_multicast or plain.is_unspecified or plain in _METADATA:
            raise InvalidInput(
                f"{host} is at {plain}, where no Engine is: link-local, metadata, multicast and "
                "unspecified addresses are not asked.",
                field=URL,
            )


def look(spec: EngineSpec) -> Found:
    """Ask an Engine what it is. Raises InvalidInput with the field that is wrong."""
    # the client library is slow to import, and most processes never need it
    from deployments.drivers import docker_checks
    from deployments.engine.containers import Engine

    try:
        with closing(Engine(spec)) as engine:
            about = engine.about()
    except (ssl.SSLError, ValueError) as error:
        raise InvalidInput(f"The certificates cannot be used: {error}", field=CA) from error
    except SlipwayError as error:
        raise InvalidInput(error.message, field=URL) from error
    return Found(about, docker_checks.node(about, spec.local, ()))


def spec_of(cluster: Cluster) -> EngineSpec:
    """From the row. Raises PermanentError (KeysUnreadable)."""
    key = ""
    if cluster.engine_key:
        key = sealed.unseal(
            cluster.engine_key,
            sealed.ENGINE_KEYS,
            what=f"The Engine's key of cluster {cluster.name}",
            remedy="attach the cluster again with its key",
        )
    return EngineSpec(cluster.engine_url, cluster.engine_ca, cluster.engine_cert, key)


def give(cluster: Cluster, spec: EngineSpec) -> None:
    """Set the row's fields; saves nothing."""
    cluster.engine_url, cluster.engine_ca, cluster.engine_cert = spec.url, spec.ca, spec.cert
    cluster.engine_key = sealed.seal(spec.key, sealed.ENGINE_KEYS) if spec.key else ""


def write_file(cluster: Cluster) -> None:
    """Tell the cluster's agent and driver how its Engine and the registries are reached.

    Changes nothing where that is what stands there. Raises PermanentError, Unavailable.
    """
    root = settings.HOME.cluster(cluster.name)
    try:
        name = engine_file.read(root).id
    except Unavailable:
        name = uuid.uuid4().hex
    logins, addresses = {}, []
    for registry in Registry.objects.all():
        if registry.role != Registry.Role.BASE:
            addresses.append(registry.address)
        if registry.password:
            password = sealed.unseal(
                registry.password,
                sealed.REGISTRY_PASSWORDS,
                what=f"The password of the registry {registry.name}",
                remedy="enter it again",
            )
            logins[registry.address] = Login(registry.username, password)
    value = EngineFile(name, spec_of(cluster), logins, tuple(sorted(addresses)))
    try:
        engine_file.write(root, value)
    except OSError as error:
        raise Unavailable(f"{engine_file.path_of(root)} cannot be written: {error}.") from error
