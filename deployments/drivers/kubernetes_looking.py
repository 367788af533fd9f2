"""Asks a Kubernetes cluster what its checks need to know, and tells each result as soon as it is there.

Nothing is made but a pod (and its pull secret) that tries things from a node; it is removed whatever happens,
and where this process is killed the cluster ends it by itself and the next look removes it. What is decided
from the answers is `kubernetes_checks`' and `kubernetes_probe`'s.
"""

import logging
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from deployments.drivers import kubernetes_belongings as ours
from deployments.drivers import kubernetes_checks as checks
from deployments.drivers import kubernetes_names as names
from deployments.drivers import kubernetes_network, kubernetes_probe, kubernetes_router_checks
from deployments.drivers.kubernetes_checks import RegistryAsked, Wanted
from deployments.drivers.kubernetes_network import Network
from deployments.errors import NotFound, PermanentError, SlipwayError, TemporaryError
from deployments.kube.api import Kube
from deployments.types import Check, CheckStatus, KubeSettings

log = logging.getLogger(__name__)

_PROBE_SECONDS = 90.0  # a large image on a slow line takes its time
_LOOK_EVERY = 0.5
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class Looking:
    """One look at one cluster. `say` is told what goes on; `cluster` is its name here."""

    def __init__(
        self,
        kube: Kube,
        settings: KubeSettings,
        wanted: Wanted,
        *,
        cluster: str,
        mark: str = "",
        say: Callable[[str], None] = lambda words: None,
        probe_seconds: float = _PROBE_SECONDS,
    ) -> None:
        self._kube = kube
        self._settings = settings
        self._wanted = wanted
        self._cluster = cluster
        self._mark = mark
        self._say = say
        self._probe_seconds = probe_seconds
        self.nodes: tuple[checks.Node, ...] | None = None
        self._addresses: list[str] = []  # of pods that tried something

    # ---- looks only -------------------------------------------------------------------------------

    def outside(self) -> Iterator[Check]:
        """What is known without making anything there; ends early where nothing more can be asked."""
        kube, namespace = self._kube, self._settings.namespace
        self._say("asking the API server")
        resolves = _resolves(kube.spec.server)
        yield resolves
        if resolves.status is CheckStatus.FAIL:
            return
        began = time.monotonic()
        try:
            found = kube.version()
        except SlipwayError as error:
            yield Check(
                checks.ANSWERS,
                CheckStatus.FAIL,
                error.message,
                "Open the way from this machine to the API server, or give a kubeconfig whose credentials "
                "it knows.",
            )
            return
        took = 1000 * (time.monotonic() - began)
        yield Check(checks.ANSWERS, CheckStatus.PASS, f"{kube.spec.server} in {took:.0f} ms")
        yield checks.version(found)
        try:
            there = ours.exists(kube, namespace)
            marker = ours.marker(kube, namespace) if there else None
        except SlipwayError as error:
            there = True
            yield _could_not(checks.FREE, error)
        else:
            yield checks.free(marker, self._mark, namespace)
        self._say("asking for each permission")
        yield self._permissions(makes_namespace=not there)
        self._say("counting nodes")
        try:
            self.nodes = checks.nodes(kube.items("/api/v1/nodes").items)
        except SlipwayError as error:
            yield from (
                _could_not(name, error) for name in (checks.PURPOSE, checks.SIZE, checks.DEVICES)
            )
            return
        yield checks.purpose(self.nodes, self._wanted.purpose)
        yield checks.size(self.nodes, self._wanted.size)
        yield checks.devices(self.nodes, self._wanted.size)

    def _permissions(self, *, makes_namespace: bool) -> Check:
        asked = checks.permissions(makes_namespace=makes_namespace)
        namespace = self._settings.namespace
        missing: list[checks.Permission] = []
        try:
            for item in asked:
                found = self._kube.create(_REVIEWS, checks.review(item, namespace))
                if not found.get("status", {}).get("allowed"):
                    missing.append(item)
        except SlipwayError as error:
            return _could_not(checks.ALLOWED, error)
        return checks.allowed(asked, missing, namespace)

    # ---- makes a pod and removes it -----------------------------------------------------------------

    def inside(self) -> Iterator[Check]:
        """What a node and a pod reach. The namespace must be there."""
        try:
            self.sweep()
        except SlipwayError as error:
            log.warning("old probes of %s could not be removed: %s", self._cluster, error.message)
        targets = {checks.POD_API: "api"}
        if self._wanted.store_url:
            targets[checks.STORE] = self._wanted.store_url
        told: kubernetes_probe.Seen | None = None
        first: kubernetes_probe.Seen | None = None
        for registry in self._wanted.registries:
            self._say(f"a node pulls from {registry.address}")
            check, found = self._registry(registry, targets)
            first = first or found
            if found is not None and found.said:
                told = told or found
                self._addresses.append(found.address)
            yield check
        seen = told or first
        for name in (checks.POD_API, checks.STORE):
            if name == checks.STORE and not self._wanted.store_url:
                yield Check(
                    name,
                    CheckStatus.FAIL,
                    "no address is set by which pods reach this portal",
                    "Enter one for the cluster, or set SLIPWAY_NODE_URL.",
                )
            elif seen is None or not seen.started:
                yield Check(
                    name,
                    CheckStatus.UNKNOWN,
                    "no image is known yet that a pod could try it with; give the router's image",
                )
            else:
                yield kubernetes_probe.target_check(name, seen)
        yield from kubernetes_router_checks.run(
            self._kube, self._settings, self._cluster, say=self._say, seconds=self._probe_seconds
        )

    def _registry(
        self, registry: RegistryAsked, targets: dict[str, str]
    ) -> tuple[Check, kubernetes_probe.Seen | None]:
        name = checks.REGISTRY.format(address=registry.address)
        began = time.monotonic()
        try:
            found = self._try(registry, targets)
        except PermanentError as error:
            return Check(
                name, CheckStatus.FAIL, error.message, "See what the API server says."
            ), None
        except TemporaryError as error:
            return _could_not(name, error), None
        seconds = time.monotonic() - began
        return kubernetes_probe.registry_check(registry, found, seconds=seconds), found

    def _try(self, registry: RegistryAsked, targets: dict[str, str]) -> kubernetes_probe.Seen:
        kube, settings = self._kube, self._settings
        base = f"/api/v1/namespaces/{settings.namespace}"
        name = f"slipway-probe-{secrets.token_hex(4)}"
        pull_secrets = [settings.pull_secret] if settings.pull_secret else []
        try:
            if registry.username:
                kube.create(
                    f"{base}/secrets", kubernetes_probe.pull_secret(name, registry, self._cluster)
                )
                pull_secrets.append(name)
            pod = kubernetes_probe.pod(
                name,
                kubernetes_probe.image_of(registry),
                cluster=self._cluster,
                settings=settings,
                targets=targets,
                pull_secrets=pull_secrets,
            )
            self._create_pod(f"{base}/pods", pod)
            return self._follow(base, name)
        finally:
            self._remove([f"{base}/pods/{name}", f"{base}/secrets/{name}"])

    def _create_pod(self, path: str, pod: dict[str, Any]) -> None:
        """A namespace that was made just now gets its default service account a moment later."""
        until = time.monotonic() + 15.0
        while True:
            try:
                self._kube.create(path, pod)
                return
            except PermanentError as error:
                if "serviceaccount" not in error.message or time.monotonic() > until:
                    raise
            time.sleep(_LOOK_EVERY)

    def _follow(self, base: str, name: str) -> kubernetes_probe.Seen:
        until = time.monotonic() + self._probe_seconds
        words = ""
        while True:
            found = kubernetes_probe.seen(self._kube.get(f"{base}/pods/{name}"))
            words = found.words or words
            if found.ended:
                return found
            if found.node and found.words:
                # it waits for its next try: why the last one failed is in an event
                fields = f"involvedObject.name={name}"
                events = self._kube.items(f"{base}/events", fields=fields).items
                if why := kubernetes_probe.pull_words(events):
                    return kubernetes_probe.Seen(True, found.node, False, why)
            if time.monotonic() > until:
                return kubernetes_probe.Seen(True, found.node, False, words)
            time.sleep(_LOOK_EVERY)

    def _remove(self, paths: Iterable[str]) -> None:
        for path in paths:
            try:
                self._kube.delete(path)
            except SlipwayError as error:
                log.warning("%s could not be removed: %s", path, error.message)
                continue
        # a pod takes a moment to go; who looks next should not find it
        until = time.monotonic() + 20.0
        for path in paths:
            with suppress(NotFound, SlipwayError):
                while time.monotonic() < until:
                    self._kube.get(path)
                    time.sleep(0.2)

    def sweep(self) -> None:
        """Remove probes that a killed process left."""
        base = f"/api/v1/namespaces/{self._settings.namespace}"
        labels = names.query(part=names.PROBE, cluster=self._cluster)
        for resource in ("pods", "secrets"):
            for item in self._kube.items(f"{base}/{resource}", labels=labels).items:
                self._kube.delete(f"{base}/{resource}/{item['metadata']['name']}")

    # ---- the network ----------------------------------------------------------------------------------

    def network(self) -> Network | None:
        """What could be seen of it; None where not even nodes could."""
        self._say("looking at the network")
        kube = self._kube
        nodes = self._may("/api/v1/nodes")
        if nodes is None:
            return None
        return kubernetes_network.network(
            nodes,
            self._may("/api/v1/pods"),
            self._may("/api/v1/namespaces/kube-system/configmaps"),
            self._may("/api/v1/namespaces/kube-system/services"),
            _service_range(kube, self._settings.namespace),
            self._addresses,
        )

    def _may(self, path: str) -> list[dict[str, Any]] | None:
        try:
            return self._kube.items(path).items
        except SlipwayError:
            return None


def _resolves(server: str) -> Check:
    parts = urlsplit(server)
    host, port = parts.hostname or "", parts.port or 443
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return Check(
            checks.RESOLVES,
            CheckStatus.FAIL,
            f"{host}: {error.strerror or error}",
            "See this machine's name servers; a private cluster's name is known in its own network only.",
        )
    addresses = ", ".join(dict.fromkeys(str(item[4][0]) for item in found))
    return Check(checks.RESOLVES, CheckStatus.PASS, f"{host} is {addresses}")


def _service_range(kube: Kube, namespace: str) -> str:
    """No server takes an address out of its range, and in refusing it says the range."""
    try:
        made = kube.create(
            f"/api/v1/namespaces/{namespace}/services", kubernetes_network.out_of_range_service()
        )
    except SlipwayError as error:
        return kubernetes_network.range_in(error.message)
    with suppress(SlipwayError):
        kube.delete(f"/api/v1/namespaces/{namespace}/services/{made['metadata']['name']}")
    return ""


def _could_not(name: str, error: SlipwayError) -> Check:
    return Check(name, CheckStatus.UNKNOWN, error.message)
