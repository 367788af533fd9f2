"""What of a namespace is ours: the marker that says who attached it, and all that goes when it is given up.

Safety rule: only what carries our labels (managed-by=slipway, and a part) is ever removed, and the namespace
only if its own labels say that we made it. What a person deployed with kubectl stays. The marker goes last: a
cluster that is half taken apart still says whose it is.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployments.drivers import kubernetes_checks
from deployments.drivers import kubernetes_names as names
from deployments.errors import Conflict, NotFound, PermanentError, SlipwayError, Unavailable
from deployments.kube.api import Kube

CHECKER = f"{names.MANAGER}-check"  # manages what a check makes for a moment
OURS = f"app.kubernetes.io/managed-by in ({names.MANAGER},{CHECKER}),{names.PART}"
_GONE_SECONDS = 180.0
_LOOK_EVERY = 0.5
# group and version, resource, kind; what others are made by goes before these
_KINDS = (
    ("apps/v1", "daemonsets", "DaemonSet"),
    ("apps/v1", "deployments", "Deployment"),
    ("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget"),
    ("policy/v1beta1", "poddisruptionbudgets", "PodDisruptionBudget"),
    ("v1", "services", "Service"),
    ("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy"),
    ("coordination.k8s.io/v1", "leases", "Lease"),
    ("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "roles", "Role"),
    ("v1", "serviceaccounts", "ServiceAccount"),
    ("v1", "pods", "Pod"),
    ("v1", "secrets", "Secret"),
    ("v1", "configmaps", "ConfigMap"),
)
_OF_CLUSTER = (
    ("rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole"),
)


@dataclass(frozen=True, slots=True)
class Belonging:
    """One object that would be removed."""

    kind: str
    name: str
    path: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """Who attaches a namespace. `mark` tells this attachment from every other one."""

    mark: str
    cluster: str
    portal: str
    by: str
    since: str  # in words


def marker(kube: Kube, namespace: str) -> dict[str, str] | None:
    """What the namespace's marker says; None where it has none. Raises Unavailable, PermanentError."""
    try:
        found = kube.get(f"/api/v1/namespaces/{namespace}/configmaps/{names.MARKER_NAME}")
    except NotFound:
        return None
    return {str(key): str(text) for key, text in (found.get("data") or {}).items()}


def exists(kube: Kube, namespace: str) -> bool:
    """Whether the namespace is there and not on its way out. Raises PermanentError while it goes."""
    try:
        found = kube.get(f"/api/v1/namespaces/{namespace}")
    except NotFound:
        return False
    if found.get("status", {}).get("phase") == "Terminating":
        raise PermanentError(
            f"The namespace {namespace} is being deleted; try again when it is gone.",
            code="NamespaceNotFound",
        )
    return True


def take(kube: Kube, namespace: str, mark: Mark) -> None:
    """Make the namespace where it is missing, and mark it as ours. The API server lets one do it.

    Raises Conflict (by whom and since when) where another portal, or another cluster of ours, has it.
    """
    made = False
    if not exists(kube, namespace):
        # the labels tell later that it is ours to remove, also when we are killed now
        labels = names.labels(names.MARKER, cluster=mark.cluster)
        metadata = {"name": namespace, "labels": labels}
        with contextlib.suppress(Conflict):  # somebody made it just now
            kube.create(
                "/api/v1/namespaces",
                {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata},
            )
            made = True
    try:
        kube.create(
            f"/api/v1/namespaces/{namespace}/configmaps",
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": names.MARKER_NAME,
                    "labels": names.labels(names.MARKER, cluster=mark.cluster),
                },
                "data": {
                    "mark": mark.mark,
                    "cluster": mark.cluster,
                    "portal": mark.portal,
                    "by": mark.by,
                    "since": mark.since,
                },
            },
        )
    except Conflict as error:
        found = marker(kube, namespace) or {}
        if found.get("mark") == mark.mark:
            return
        raise Conflict(
            f"{kubernetes_checks.taken_words(found, namespace)} {kubernetes_checks.TAKEN_REMEDY}"
        ) from error
    except SlipwayError:
        if made:
            kube.delete(f"/api/v1/namespaces/{namespace}")
        raise


def belongings(kube: Kube, namespace: str, cluster: str) -> tuple[Belonging, ...]:
    """All that detaching removes, in the order it goes. Raises Unavailable, PermanentError."""
    found: list[Belonging] = []
    for version, resource, kind in _KINDS:
        if not kube.has(version, resource):
            continue
        folder = f"{_base(version)}/namespaces/{namespace}/{resource}"
        for item in _listed(kube, folder, kind):
            name = item["metadata"]["name"]
            one = Belonging(kind, name, f"{folder}/{name}", namespace)
            if (kind, name) != ("ConfigMap", names.MARKER_NAME) and not _owned(item):
                found.append(one)
    mine = f"{OURS},{names.CLUSTER}={cluster}"
    for version, resource, kind in _OF_CLUSTER:
        folder = f"{_base(version)}/{resource}"
        for item in _allowed(kube, folder, mine):
            if item["metadata"].get("annotations", {}).get(NAMESPACE) == namespace:
                name = item["metadata"]["name"]
                found.append(Belonging(kind, name, f"{folder}/{name}"))
    mark = marker(kube, namespace)
    if mark is not None:
        path = f"/api/v1/namespaces/{namespace}/configmaps/{names.MARKER_NAME}"
        found.append(Belonging("ConfigMap", names.MARKER_NAME, path, namespace))
    if _made_by_us(kube, namespace):
        found.append(Belonging("Namespace", namespace, f"/api/v1/namespaces/{namespace}"))
    return tuple(found)


# of a cluster-wide object of ours: the namespace it is for
NAMESPACE = names.PREFIX + "namespace"


def _listed(kube: Kube, folder: str, kind: str) -> list[dict[str, Any]]:
    if kind == "DaemonSet":  # older Roles do not have it
        return _allowed(kube, folder, OURS)
    return kube.items(folder, labels=OURS).items


def _allowed(kube: Kube, folder: str, labels: str) -> list[dict[str, Any]]:
    """What is there; nothing where we may not look, for then we made nothing there either."""
    try:
        return kube.items(folder, labels=labels).items
    except PermanentError:
        return []


def remove(
    kube: Kube,
    namespace: str,
    cluster: str,
    mark: str,
    *,
    seconds: float = _GONE_SECONDS,
    listed: Callable[[Sequence[Belonging]], None] = lambda all_of_it: None,
    asked: Callable[[Belonging], None] = lambda item: None,
    left: Callable[[Sequence[Belonging]], None] = lambda still_there: None,
) -> tuple[Belonging, ...]:
    """Take it all apart and wait until it is gone; what was removed. Idempotent; may be killed.

    Who watches is told all that will go (`listed`), each of it as it is to go (`asked`), and, while that is
    waited for, what of it is still there (`left`).

    Raises Conflict where the marker is another's (nothing is removed then), Unavailable when the cluster does
    not answer or something does not go in time.
    """
    found = marker(kube, namespace)
    if found is not None and found.get("mark") != mark:
        raise Conflict(
            f"{kubernetes_checks.taken_words(found, namespace)} Nothing of it was removed."
        )
    if found is None and not exists(kube, namespace):
        return ()
    removed = belongings(kube, namespace, cluster)
    listed(removed)
    until = time.monotonic() + seconds
    last = [item for item in removed if _is_last(item)]
    for item in (item for item in removed if not _is_last(item)):
        asked(item)
        kube.delete(item.path)
    _end_pods(kube, namespace)
    _wait(kube, namespace, cluster, until, lambda there: left([*there, *last]))
    for item in last:
        asked(item)
        kube.delete(item.path)
    while last:
        _wait_for(kube, last.pop(0), until)
        left(tuple(last))
    return removed


def _made_by_us(kube: Kube, namespace: str) -> bool:
    try:
        labels = kube.get(f"/api/v1/namespaces/{namespace}")["metadata"].get("labels") or {}
    except NotFound:
        return False
    return (labels.get("app.kubernetes.io/managed-by"), labels.get(names.PART)) == (
        names.MANAGER,
        names.MARKER,
    )


def _is_last(item: Belonging) -> bool:
    return item.kind == "Namespace" or (item.kind, item.name) == ("ConfigMap", names.MARKER_NAME)


def _end_pods(kube: Kube, namespace: str) -> None:
    """No service runs here any more: nothing is inside the router that it would have to wait for."""
    folder = f"/api/v1/namespaces/{namespace}/pods"
    for pod in kube.items(folder, labels=OURS).items:
        kube.delete(f"{folder}/{pod['metadata']['name']}", grace=1)


def _wait(
    kube: Kube,
    namespace: str,
    cluster: str,
    until: float,
    told: Callable[[Sequence[Belonging]], None],
) -> None:
    """Until nothing of ours is left but the marker; pods that others' going ends included."""
    while True:
        left = [item for item in belongings(kube, namespace, cluster) if not _is_last(item)]
        told(left)
        pods = kube.items(f"/api/v1/namespaces/{namespace}/pods", labels=OURS).items
        if not left and not pods:
            return
        if time.monotonic() > until:
            words = ", ".join(
                [f"{item.kind} {item.name}" for item in left]
                + [f"Pod {pod['metadata']['name']}" for pod in pods]
            )
            raise Unavailable(
                f"The cluster has not removed these yet: {words}. Detach again.", code="NotGone"
            )
        time.sleep(_LOOK_EVERY)


def _wait_for(kube: Kube, item: Belonging, until: float) -> None:
    while True:
        try:
            kube.get(item.path)
        except NotFound:
            return
        except PermanentError:
            return  # with a namespace the right to look into it may go
        if time.monotonic() > until:
            raise Unavailable(
                f"{item.kind} {item.name} has not gone yet. Detach again.", code="NotGone"
            )
        time.sleep(_LOOK_EVERY)


def _owned(item: Mapping[str, Any]) -> bool:
    """Whether it goes with the object that made it."""
    return any(owner.get("controller") for owner in item["metadata"].get("ownerReferences") or ())


def _base(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"
