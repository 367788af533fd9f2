"""The driver of a Kubernetes cluster: the API server keeps what should run, and Kubernetes runs it.

What is asked for is objects (`kubernetes_objects`), what is seen is read from them (`kubernetes_reading`);
here is only who is told and asked, and when. Seen is what watches keep up to date
(`deployments.kube.watching`): `observe` asks the API server nothing. They begin with the first look, so who
only writes has none.

A version's count is changed through the scale subresource alone, and is in nothing that is applied. An object
that others made is never taken over, and of ours only the fields that we ask for are touched.
"""

import base64
import json
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from deployments.codec import from_json, to_json
from deployments.drivers import (
    kubernetes_caches,
    kubernetes_logs,
    kubernetes_reading,
    kubernetes_replicas,
    kubernetes_routers,
)
from deployments.drivers import kubernetes_names as names
from deployments.drivers import kubernetes_objects as objects
from deployments.drivers.base import BlobSource, Driver, LogPage
from deployments.drivers.kube_file import Login
from deployments.drivers.kubernetes_checks import Size, Wanted
from deployments.drivers.kubernetes_looking import Looking
from deployments.drivers.kubernetes_objects import Object, Place
from deployments.drivers.kubernetes_reading import Reader, Seen
from deployments.drivers.kubernetes_roomwatch import RoomWatch
from deployments.errors import Conflict, NotFound, PermanentError, SlipwayError
from deployments.kube.api import Kube
from deployments.kube.watching import Watched
from deployments.types import (
    Capacity,
    Check,
    ClusterKind,
    KubeSettings,
    NodeCapacity,
    Observation,
    RevisionSpec,
    RouteReport,
    RouterPods,
    RouterSpec,
    ServiceSpec,
    VersionSpec,
)

log = logging.getLogger(__name__)

_TAIL_LINES = 200
_PODS_FOR = 5.0  # seconds for which the router's pods are taken to be as many
_KEPT_FILES = 3600.0  # seconds for which the files of a revision nobody has stay
_DELETION_COST_SINCE = (1, 22)
# of a pod's events those that say what goes wrong, and what a cluster autoscaler does about it
_EVENTS = "involvedObject.kind=Pod," + ",".join(
    f"reason!={reason}"
    for reason in ("Scheduled", "Pulling", "Pulled", "Created", "Started", "Killing")
)
_NO_SETTINGS = RouterSpec()


class KubernetesDriver(Driver):
    """One cluster's namespace. `cluster` is its name, `logins` are the registries' passwords. Thread-safe."""

    kind: ClassVar[ClusterKind] = ClusterKind.KUBERNETES

    def __init__(
        self,
        kube: Kube,
        settings: KubeSettings,
        *,
        cluster: str = "",
        logins: Mapping[str, Login] | None = None,
    ) -> None:
        self.kube = kube
        self.settings = settings
        self.cluster = cluster
        self._logins = dict(logins or {})
        self._reader = Reader()
        self._lock = threading.Lock()
        self._watches: _Watches | None = None
        self._room: RoomWatch | None = None
        self._tails = _Tails(kube, settings.namespace)
        self._router: tuple[str, RouterSpec] = ("", _NO_SETTINGS)
        self._pods: tuple[float, RouterPods] | None = None
        self._compared: dict[str, tuple[object, frozenset[str]]] = {}
        # what the cluster's own rules made otherwise of what was applied: nobody fights those
        self._admitted: dict[str, frozenset[str]] = {}

    def close(self) -> None:
        """Ends its watches."""
        with self._lock:
            for watched in (self._watches, self._room):
                if watched is not None:
                    watched.close()
            self._watches = self._room = None
        self._tails.close()

    # ---- what should run --------------------------------------------------------------------------

    def stage(self, revision: RevisionSpec, blobs: BlobSource) -> None:
        data = kubernetes_caches.staged(self.kube, self.settings, revision, blobs)
        self._apply(objects.files_secret(revision, data, self._place()))

    def apply(self, spec: ServiceSpec) -> None:
        place = self._place()
        mine = names.query(service=spec.name)
        secrets = self._items("v1", "Secret", mine)
        standing = _named(secrets, names.service_secret(spec.name))
        if standing is not None:
            known = kubernetes_reading.spec_of(standing)
            if known is not None and known.generation > spec.generation:
                return  # a job that was held up must not undo a later one
        for item in objects.shared(place):
            self._apply(item)
        if self._logins:
            given = {name: (item.username, item.password) for name, item in self._logins.items()}
            self._apply(objects.pull_secret(given, place))
        owner = self._apply(objects.service_secret(spec, place))
        for item in objects.of_service(spec, place, owner):
            made = self._apply(item)
            if item["kind"] == "Deployment":
                self._admitted[item["metadata"]["name"]] = _differences(item, made)
                self._bring_in(spec, made)
        self._own_files(spec, secrets, owner)
        self._remove_others(spec, place, mine)

    def remove(self, name: str) -> None:
        mine = names.query(service=name)
        self.kube.delete(self._path("v1", "Secret", names.service_secret(name)))
        for version, kind in self._kinds():
            for item in self._items(version, kind, mine):
                if _ours(item):
                    self.kube.delete(objects.path(item))

    def scale(
        self, service: str, version: str, replicas: int, prefer_removing: Sequence[str] = ()
    ) -> None:
        path = self._path("apps/v1", "Deployment", self._deployment(service, version))
        if prefer_removing and self.kube.version() >= _DELETION_COST_SINCE:
            self._mark(prefer_removing)
        try:
            self.kube.patch(f"{path}/scale", {"spec": {"replicas": replicas}})
        except NotFound as error:
            raise NotFound(
                f"There is no version {version} of service {service} on this cluster."
            ) from error

    def apply_router(self, spec: RouterSpec) -> None:
        path = self._path("v1", "Secret", names.ROUTER_SECRET)
        try:
            standing = _router_spec(self.kube.get(path))
        except NotFound:
            standing = _NO_SETTINGS
        if standing == spec or standing.generation > spec.generation:
            return
        self._apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {
                    "name": names.ROUTER_SECRET,
                    "namespace": self.settings.namespace,
                    "labels": names.labels(names.ROUTER, cluster=self.cluster),
                },
                "type": "Opaque",
                "data": {names.ROUTER_KEY: _base64(json.dumps(to_json(spec), sort_keys=True))},
            }
        )

    def router_spec(self) -> RouterSpec:
        for secret in self._seen().secrets.objects().values():
            if secret["metadata"]["name"] == names.ROUTER_SECRET:
                version = secret["metadata"]["resourceVersion"]
                if self._router[0] != version:
                    self._router = (version, _router_spec(secret))
                return self._router[1]
        return _NO_SETTINGS

    # ---- what is seen -----------------------------------------------------------------------------

    def observe(self) -> Observation:
        watches = self._seen()
        pods, events = watches.pods.objects(), watches.events.objects()
        with self._lock:
            by_pod = self._reader.by_pod(events)
        seen = Seen(
            deployments=watches.deployments.objects(),
            pods=pods,
            secrets=watches.secrets.objects(),
            events=events,
            tails=self._tails.of(pods, by_pod),
            nodes=self._nodes_seen(),
        )
        with self._lock:
            return self._reader.observe(seen, time.time())

    def stamp(self) -> object:
        watches = self._seen()
        return (watches.moved(), self._tails.moved)

    def foreign_scalers(self) -> Mapping[tuple[str, str], str]:
        watches = self._seen()
        scalers = watches.scalers.objects()
        if not scalers:
            return {}
        specs = [item.spec for item in self.observe().services]
        return kubernetes_reading.other_scalers(scalers, watches.deployments.objects(), specs)

    def drifted(self) -> frozenset[str]:
        watches = self._seen()
        standing = watches.deployments.objects()
        by_name = {item["metadata"]["name"]: item for item in standing.values()}
        place = self._place()
        found = set()
        with self._lock:
            specs = self._reader.specs(watches.secrets.objects())
        for spec in specs.values():
            for version in spec.versions:
                item = by_name.get(names.deployment(spec.name, version.name))
                if item is None or (_ours(item) and self._differs(spec, version, item, place)):
                    found.add(spec.name)
        self._compared = {name: kept for name, kept in self._compared.items() if name in by_name}
        return frozenset(found)

    def publish_routes(self, report: RouteReport) -> None:
        """Nobody here waits for it: a pod that goes drains itself, and the router sees that it goes."""

    def routes(self) -> RouteReport | None:
        return kubernetes_routers.routes(self.kube, self.settings.namespace)

    def router_pods(self) -> RouterPods | None:
        """Asked each second by each of them; it changes rarely."""
        known = self._pods
        if known is None or time.monotonic() - known[0] > _PODS_FOR:
            try:
                nodes: tuple[NodeCapacity, ...] | None = self._nodes()
            except SlipwayError:
                nodes = None
            found = kubernetes_routers.router_pods(self.kube, self.settings, nodes)
            self._pods = known = (time.monotonic(), found)
        return known[1]

    def resize_router(self, pods: int) -> None:
        kubernetes_routers.resize_router(self.kube, self.settings, pods)
        self._pods = None

    def logs(
        self, replica: str, *, cursor: str = "", limit: int = 1000, previous: bool = False
    ) -> LogPage:
        pod = self.kube.get(self._path("v1", "Pod", replica))
        return kubernetes_logs.read(
            self.kube,
            self.settings.namespace,
            pod,
            cursor=cursor,
            limit=limit,
            previous=previous,
        )

    def log_replicas(self, service: str) -> Sequence[str]:
        mine = names.query(part=names.MODEL, service=service)
        pods = self._items("v1", "Pod", mine)
        pods.sort(key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))
        return [pod["metadata"]["name"] for pod in pods]

    def capacity(self) -> Capacity:
        return Capacity(time.time(), self._nodes())

    def check(self) -> Iterator[Check]:
        size = Size("any size", resource=self.settings.accelerator)
        wanted = Wanted(self.settings.purpose, size)
        yield from Looking(self.kube, self.settings, wanted, cluster=self.cluster).outside()

    def to_yaml(self, spec: ServiceSpec) -> str:
        """The objects of a service as text, without the values of Secrets. An API server that does not
        answer is taken for a new one."""
        try:
            place = self._place()
        except SlipwayError:
            place = Place(self.settings, self.cluster)
        return objects.to_yaml(spec, place)

    # ---- acting -----------------------------------------------------------------------------------

    def _apply(self, item: Object) -> Object:
        """Server-side apply. Raises Conflict where an object of that name is somebody else's."""
        path = objects.path(item)
        try:
            standing = self.kube.get(path)
        except NotFound:
            return self.kube.apply(path, item)
        if not _ours(standing):
            meta = item["metadata"]
            raise Conflict(
                f"There is a {item['kind']} {meta['name']} in namespace {meta['namespace']} that Slipway did "
                "not make. Remove it, or give the service another name.",
                code="NameTaken",
            )
        return self.kube.apply(path, item)

    def _bring_in(self, spec: ServiceSpec, deployment: Object) -> None:
        """The count of a new Deployment is 1, of one that stands what it was: into the limits with it."""
        for version in spec.versions:
            if names.deployment(spec.name, version.name) != deployment["metadata"]["name"]:
                continue
            scaling, count = version.scaling, int(deployment["spec"].get("replicas", 1))
            most = scaling.maximum if scaling.autoscale else scaling.minimum
            wanted = min(max(count, scaling.minimum), most)
            if wanted != count:
                self.scale(spec.name, version.name, wanted)

    def _own_files(self, spec: ServiceSpec, secrets: Iterable[Object], owner: Object) -> None:
        """Files go with their service; those of revisions that nothing is left of go after a while."""
        wanted = {names.files_secret(spec.name, item.revision.number) for item in spec.versions}
        mine = [item for item in secrets if _label(item, names.PART) == names.FILES]
        others = [item for item in mine if item["metadata"]["name"] not in wanted]
        used = set()
        if others:
            pods = self._items("v1", "Pod", names.query(part=names.MODEL, service=spec.name))
            used = {_label(pod, names.REVISION) for pod in pods}
        reference = objects.owner_reference(owner)
        for item in mine:
            made = kubernetes_replicas.at(item["metadata"].get("creationTimestamp"))
            if (
                item in others
                and _label(item, names.REVISION) not in used
                and time.time() - made > _KEPT_FILES
            ):
                self.kube.delete(objects.path(item))
            elif item["metadata"].get("ownerReferences") != [reference]:
                self.kube.patch(objects.path(item), {"metadata": {"ownerReferences": [reference]}})

    def _remove_others(self, spec: ServiceSpec, place: Place, mine: str) -> None:
        """Objects of versions that are gone, and budgets that are needed no more."""
        wanted = {
            (item["kind"], item["metadata"]["name"])
            for item in objects.of_service(spec, place, None)
        }
        for version, kind in (("apps/v1", "Deployment"), (place.budgets, "PodDisruptionBudget")):
            for item in self._items(version, kind, mine):
                if _ours(item) and (kind, item["metadata"]["name"]) not in wanted:
                    self.kube.delete(objects.path(item))

    def _deployment(self, service: str, version: str) -> str:
        """Its name: one that others made has another than ours would have."""
        if self._watches is not None:
            for item in self._watches.deployments.objects().values():
                named = (_label(item, names.SERVICE), kubernetes_replicas.version_label(item))
                if named == (service, version) and not _ours(item):
                    return str(item["metadata"]["name"])
        return names.deployment(service, version)

    def _mark(self, pods: Sequence[str]) -> None:
        """Have these go first; the first of them before all others."""
        for number, pod in enumerate(pods):
            cost = {names.DELETION_COST: str(number - len(pods) - 1000)}
            try:
                self.kube.patch(self._path("v1", "Pod", pod), {"metadata": {"annotations": cost}})
            except NotFound:
                continue  # it went by itself

    # ---- small things -----------------------------------------------------------------------------

    def _seen(self) -> "_Watches":
        if self._watches is None:
            with self._lock:
                if self._watches is None:
                    self._watches = _Watches(self.kube, self.settings.namespace)
        return self._watches

    def _nodes(self) -> tuple[NodeCapacity, ...]:
        if self._room is None:
            with self._lock:
                if self._room is None:
                    self._room = RoomWatch(self.kube, self.settings)
        return self._room.capacity()

    def _nodes_seen(self) -> tuple[NodeCapacity, ...]:
        """Without a look at the whole cluster, which a router may not be allowed, services are seen all the
        same."""
        try:
            return self._nodes() if self._room is not None else ()
        except SlipwayError:
            return ()

    def _differs(self, spec: ServiceSpec, version: VersionSpec, item: Object, place: Place) -> bool:
        name = item["metadata"]["name"]
        stamp = (spec, item["metadata"]["resourceVersion"])
        kept = self._compared.get(name)
        if kept is None or kept[0] != stamp:
            different = _differences(objects.deployment(spec, version, place), item)
            if different - self._admitted.get(name, frozenset()):
                listed = ", ".join(sorted(different))
                log.warning("Deployment %s is not as it was asked for: %s", name, listed)
            self._compared[name] = kept = (stamp, different)
        return bool(kept[1] - self._admitted.get(name, frozenset()))

    def _place(self) -> Place:
        pulls = [self.settings.pull_secret] if self.settings.pull_secret else []
        if self._logins:
            pulls.append(names.PULL_SECRET)
        return Place(self.settings, self.cluster, self._budgets(), tuple(pulls))

    def _budgets(self) -> str:
        newer, older = objects.BUDGETS
        return newer if self.kube.has(newer, "poddisruptionbudgets") else older

    def _kinds(self) -> tuple[tuple[str, str], ...]:
        """What a service has of, what is needed first last."""
        return (
            ("apps/v1", "Deployment"),
            (self._budgets(), "PodDisruptionBudget"),
            ("v1", "Service"),
            ("v1", "Secret"),
        )

    def _path(self, api_version: str, kind: str, name: str) -> str:
        return f"{objects.collection(kind, api_version, self.settings.namespace)}/{name}"

    def _items(self, api_version: str, kind: str, labels: str) -> list[Object]:
        """Complete, as a get of each would give them: a list leaves out what it says once."""
        where = objects.collection(kind, api_version, self.settings.namespace)
        found = self.kube.items(where, labels=labels).items
        return [{"apiVersion": api_version, "kind": kind, **item} for item in found]


class _Watches:
    """What `observe` goes by."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        core, apps = f"/api/v1/namespaces/{namespace}", f"/apis/apps/v1/namespaces/{namespace}"
        model = names.query(part=names.MODEL)
        parts = f"{names.PART} in ({names.SERVICES},{names.KEYS_PART},{names.ROUTER})"
        self.deployments = Watched(
            kube,
            f"{apps}/deployments",
            labels=model,
            keep=kubernetes_replicas.slim_deployment,
        )
        self.pods = Watched(kube, f"{core}/pods", labels=model, keep=kubernetes_replicas.slim)
        self.secrets = Watched(kube, f"{core}/secrets", labels=parts)
        self.events = Watched(
            kube, f"{core}/events", fields=_EVENTS, keep=kubernetes_replicas.event
        )
        self.scalers = Watched(
            kube, f"/apis/autoscaling/v1/namespaces/{namespace}/horizontalpodautoscalers"
        )
        self._all = (self.deployments, self.pods, self.secrets, self.events, self.scalers)

    def moved(self) -> tuple[int, ...]:
        return tuple(watched.moved() for watched in self._all)

    def close(self) -> None:
        for watched in self._all:
            watched.close()


class _Tails:
    """The last lines of runs that ended, asked for once each and beside whoever looks."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube, self._namespace = kube, namespace
        self._known: dict[tuple[str, int], str] = {}
        self._asked: set[tuple[str, int]] = set()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="last words")
        self._shown: tuple[Mapping[str, Object], object] = ({}, None)
        self.moved = 0

    def of(
        self, pods: Mapping[str, Object], events: Mapping[str, list[Object]]
    ) -> Mapping[tuple[str, int], str]:
        if self._shown[0] is not pods or self._shown[1] is not events:
            before, self._shown = self._shown[0], (pods, events)
            for uid, pod in pods.items():
                if before.get(uid) is pod and uid not in events:
                    continue  # one of thousands that are as they were
                ended = kubernetes_replicas.ended_container(pod, events.get(uid, ()))
                if ended is None:
                    continue
                key = (uid, ended.restarts)
                if key not in self._asked:
                    self._asked.add(key)
                    self._pool.submit(self._ask, key, pod["metadata"]["name"], ended)
            if len(self._asked) > 2 * len(pods) + 100:
                self._asked = {key for key in self._asked if key[0] in pods}
                self._known = {key: text for key, text in self._known.items() if key[0] in pods}
        return self._known

    def _ask(
        self, key: tuple[str, int], pod: str, ended: kubernetes_replicas.EndedContainer
    ) -> None:
        try:
            lines = self._kube.log(
                self._namespace, pod, ended.name, previous=ended.previous, tail=_TAIL_LINES
            )
            text = "\n".join(line.partition(" ")[2] for line in lines)
        except SlipwayError as error:
            # what the pod's status holds of it has to do
            log.info("%s: its last lines cannot be read: %s", pod, error.message)
            return
        self._known = {**self._known, key: text}
        self.moved += 1

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _differences(wanted: Object, standing: Object) -> frozenset[str]:
    """The fields of a Deployment that are not as they were asked for; annotations are not compared."""
    spec = objects.differences(wanted["spec"], standing["spec"], "spec")
    labels = objects.differences(
        wanted["metadata"]["labels"], standing["metadata"]["labels"], "labels"
    )
    return frozenset((*spec, *labels))


def _ours(item: Object) -> bool:
    return _label(item, "app.kubernetes.io/managed-by") == names.MANAGER


def _label(item: Object, name: str) -> str:
    return str((item["metadata"].get("labels") or {}).get(name, ""))


def _named(items: Iterable[Object], name: str) -> Object | None:
    return next((item for item in items if item["metadata"]["name"] == name), None)


def _router_spec(secret: Object) -> RouterSpec:
    """Raises PermanentError where somebody wrote something else into it."""
    try:
        text = base64.b64decode((secret.get("data") or {})[names.ROUTER_KEY])
        return from_json(RouterSpec, json.loads(text))
    except (KeyError, ValueError, TypeError) as error:
        raise PermanentError(
            f"The Secret {names.ROUTER_SECRET} cannot be read: {error}. Remove it; the portal writes it "
            "anew."
        ) from error


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
