"""A Kubernetes cluster's row: how its API server is reached, how it is used, what it must be good for, and
the file that tells the driver.

A kubeconfig's credentials are sealed as soon as they come and are shown to nobody again. What a person gives
is checked here, with the field that is wrong; the cluster itself is looked at by `attaching`.
"""

import base64
import hashlib
import hmac
import json
import re
import ssl
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings

from deployments import sealed
from deployments.clusters.models import Cluster, Sku
from deployments.codec import from_json, to_json
from deployments.drivers import kube_file
from deployments.drivers.kube_file import KubeFile, Login
from deployments.drivers.kubernetes_checks import RegistryAsked, Size, Wanted
from deployments.environments.models import BuildState
from deployments.errors import InvalidInput, PermanentError, SlipwayError, Unavailable
from deployments.images import references
from deployments.images.models import ImageBuild, Registry
from deployments.kube import access
from deployments.types import KubeSettings, KubeSpec, Purpose, Toleration

NAMESPACE, TYPE, PORT = "kube_namespace", "kube_service_type", "kube_node_port"
PULL_SECRET, ROUTER_IMAGE, BLOB_URL = "kube_pull_secret", "kube_router_image", "kube_blob_url"
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_IMAGE = re.compile(r"[a-zA-Z0-9][\w.:/@-]{0,398}")
_NODE_PORTS = range(1, 65536)
_SYSTEM = ("kube-system", "kube-public", "kube-node-lease")
_LONGEST_CA = 65_536  # pods get it as a variable
_DEFAULT_ACCELERATOR = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True)
class Use:
    """How a person wants a cluster to be used; `use` checks it."""

    namespace: str
    service_type: str = Cluster.ServiceType.CLUSTER_IP.value
    node_port: int | None = None
    pull_secret: str = ""
    router_image: str = ""
    blob_url: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What a kubeconfig names and its API server said of itself, before it is attached."""

    contexts: tuple[str, ...]
    server: str
    namespace: str
    version: str = ""
    problem: str = ""


def parse(text: str, context: str) -> KubeSpec:
    """See `access.parse`; programs only where the administrator's setting lets them in."""
    return access.parse(text, context, allow_programs=settings.ENV.kubeconfig_programs)


def look(text: str, context: str) -> Found:
    """Read a kubeconfig and ask its API server for its version. Raises InvalidInput with its field."""
    from deployments.kube.api import Kube

    spec = parse(text, context)
    found = Found(access.contexts(text), spec.server, spec.namespace)
    try:
        with closing(Kube(spec, seconds=5.0)) as kube:
            version = kube.version()
    except SlipwayError as error:
        return Found(found.contexts, found.server, found.namespace, problem=error.message)
    return Found(found.contexts, found.server, found.namespace, ".".join(map(str, version)))


def is_namespace(text: str) -> bool:
    return bool(_DNS_LABEL.fullmatch(text))


def use(given: Use) -> Use:
    """As it is kept. Raises InvalidInput with its field."""
    if not _DNS_LABEL.fullmatch(given.namespace):
        raise InvalidInput(
            "Use at most 63 of a-z, 0-9 and '-', with no '-' at the ends.", field=NAMESPACE
        )
    if given.namespace in _SYSTEM:
        raise InvalidInput(
            f"{given.namespace} is Kubernetes' own; give Slipway a namespace of its own.",
            field=NAMESPACE,
        )
    if given.service_type not in Cluster.ServiceType.values:
        raise InvalidInput("Choose how the router is reached.", field=TYPE)
    if given.node_port is not None:
        if given.service_type != Cluster.ServiceType.NODE_PORT:
            raise InvalidInput("Only a NodePort service has a port of the nodes.", field=PORT)
        if given.node_port not in _NODE_PORTS:
            raise InvalidInput(
                "A port is 1 to 65535; most clusters give 30000 to 32767.", field=PORT
            )
    if given.pull_secret and not _DNS_NAME.fullmatch(given.pull_secret):
        raise InvalidInput("This cannot be the name of a Secret.", field=PULL_SECRET)
    if not given.router_image:
        raise InvalidInput(
            "Build the image with scripts/router-image, and write here what it prints last.",
            field=ROUTER_IMAGE,
        )
    if not _IMAGE.fullmatch(given.router_image):
        raise InvalidInput(
            "Write an image such as registry.example.com/slipway/router:1.", field=ROUTER_IMAGE
        )
    blob_url = given.blob_url.strip().rstrip("/")
    if blob_url:
        parts = urlsplit(blob_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise InvalidInput(
                "Write scheme, host and port, such as https://slipway.example.com.", field=BLOB_URL
            )
    return Use(
        given.namespace,
        given.service_type,
        given.node_port,
        given.pull_secret,
        given.router_image,
        blob_url,
    )


def seal(spec: KubeSpec) -> str:
    """For a row. What it holds is shown to nobody again."""
    return sealed.seal(json.dumps(to_json(spec)), sealed.KUBECONFIGS)


def unseal(text: str, name: str) -> KubeSpec:
    """Raises PermanentError (KeysUnreadable)."""
    opened = sealed.unseal(
        text,
        sealed.KUBECONFIGS,
        what=f"The credentials of cluster {name}",
        remedy="attach the cluster again with its kubeconfig",
    )
    return from_json(KubeSpec, json.loads(opened))


def sealed_kubeconfig(spec: KubeSpec) -> str:
    """What was read of a kubeconfig as one again, sealed: for a form that is filled in a second time."""
    cluster: dict[str, str] = {"server": spec.server}
    if spec.ca:
        cluster["certificate-authority-data"] = _base64(spec.ca)
    if spec.tls_server_name:
        cluster["tls-server-name"] = spec.tls_server_name
    user: dict[str, object] = {}
    if spec.token:
        user["token"] = spec.token
    if spec.cert:
        user["client-certificate-data"] = _base64(spec.cert)
        user["client-key-data"] = _base64(spec.key)
    if spec.program:
        user["exec"] = json.loads(spec.program)
    context = {"cluster": "it", "user": "it", "namespace": spec.namespace}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "as given before",
        "contexts": [{"name": "as given before", "context": context}],
        "clusters": [{"name": "it", "cluster": cluster}],
        "users": [{"name": "it", "user": user}],
    }
    return sealed.seal(json.dumps(config), sealed.KUBECONFIGS)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def give(cluster: Cluster, spec: KubeSpec, given: Use) -> None:
    """Set the row's fields; saves nothing."""
    cluster.kube_server = spec.server
    cluster.kube_spec = seal(spec)
    cluster.kube_namespace = given.namespace
    cluster.kube_service_type = given.service_type
    cluster.kube_node_port = given.node_port
    cluster.kube_pull_secret = given.pull_secret
    cluster.kube_router_image = given.router_image
    cluster.kube_blob_url = given.blob_url
    cluster.kube_mark = mark_of(spec.server, given.namespace, cluster.name)


def mark_of(server: str, namespace: str, name: str) -> str:
    """Tells an attachment of this portal from every other: the same one again has the same mark, so that
    what a killed attempt left is known for ours."""
    text = "\0".join(("slipway mark", server, namespace, name))
    return hmac.new(settings.SECRET_KEY.encode(), text.encode(), hashlib.sha256).hexdigest()[:32]


def spec_of(cluster: Cluster) -> KubeSpec:
    """From the row. Raises PermanentError (KeysUnreadable)."""
    if not cluster.kube_spec:
        raise PermanentError(f"{cluster.name} has no credentials; attach it again.")
    return unseal(cluster.kube_spec, cluster.name)


def settings_of(cluster: Cluster) -> KubeSettings:
    """How services are made on it; its SKU says where models may go."""
    sku: Sku = cluster.sku
    return KubeSettings(
        namespace=cluster.kube_namespace,
        purpose=Purpose(cluster.purpose),
        service_type=cluster.kube_service_type or Cluster.ServiceType.CLUSTER_IP.value,
        node_port=cluster.kube_node_port,
        pull_secret=cluster.kube_pull_secret,
        router_image=cluster.kube_router_image,
        blob_url=(cluster.kube_blob_url or settings.ENV.node_url).rstrip("/"),
        blob_ca=blob_ca(),
        files_cache_gb=settings.ENV.node_cache_gb,
        accelerator=sku.resource_name or _DEFAULT_ACCELERATOR,
        node_selector=dict(sku.node_selector),
        tolerations=tuple(
            Toleration(item.get("key", ""), item.get("value", ""), item.get("effect", ""))
            for item in sku.tolerations
        ),
    )


def blob_ca() -> str:
    """The certificates of SLIPWAY_BLOB_CA, PEM; "" without. Raises PermanentError (BlobCaUnreadable)."""
    path = settings.ENV.blob_ca
    if not path:
        return ""
    try:
        text = Path(path).read_text(encoding="ascii")
        if len(text) > _LONGEST_CA:
            raise ValueError(f"it has more than {_LONGEST_CA:,} characters")
        ssl.create_default_context(cadata=text)
    except (OSError, ValueError) as error:  # ssl's own among them
        raise PermanentError(
            f"SLIPWAY_BLOB_CA: {path} cannot be used: {error}. Give a PEM file with the company's own "
            "certificates alone.",
            code="BlobCaUnreadable",
        ) from error
    return text


def wanted_of(cluster: Cluster) -> Wanted:
    """What its checks hold it against. Raises PermanentError (KeysUnreadable) for a registry's password."""
    sku: Sku = cluster.sku
    store = cluster.kube_blob_url or settings.ENV.node_url
    return Wanted(
        purpose=Purpose(cluster.purpose),
        size=Size(sku.name, sku.vcpu, sku.memory_gb, sku.resource_name, sku.accelerators),
        registries=_registries(cluster.kube_router_image),
        store_url=f"{store}/healthz" if store else "",
    )


def _registries(router_image: str) -> tuple[RegistryAsked, ...]:
    """Those that nodes pull from, the router's first: its image has what a probe needs."""
    host = references.parse(router_image).host if router_image else ""
    found = []
    for registry in Registry.objects.exclude(role=Registry.Role.BASE):
        mine = registry.address == host
        latest = (
            ImageBuild.objects.filter(registry=registry, state=BuildState.READY)
            .exclude(reference="")
            .order_by("-last_used_at")
            .values_list("reference", flat=True)
            .first()
        )
        image = router_image if mine else latest or ""
        found.append(
            RegistryAsked(
                registry.address, registry.repository, image, registry.username, _password(registry)
            )
        )
    if host and host not in {item.address for item in found}:
        found.append(RegistryAsked(host, image=router_image))
    return tuple(sorted(found, key=lambda item: (item.address != host, item.address)))


def _password(registry: Registry) -> str:
    if not registry.password:
        return ""
    return sealed.unseal(
        registry.password,
        sealed.REGISTRY_PASSWORDS,
        what=f"The password of the registry {registry.name}",
        remedy="enter it again",
    )


def write_file(cluster: Cluster) -> None:
    """Tell the driver how its API server and the registries are reached.

    Changes nothing where that is what stands there. Raises PermanentError, Unavailable.
    """
    root = settings.HOME.cluster(cluster.name)
    logins = {
        registry.address: Login(registry.username, _password(registry))
        for registry in Registry.objects.exclude(password="")
    }
    value = KubeFile(spec_of(cluster), settings_of(cluster), logins)
    try:
        kube_file.write(root, value)
    except OSError as error:
        raise Unavailable(f"{kube_file.path_of(root)} cannot be written: {error}.") from error
