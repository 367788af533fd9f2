"""Looking whether a cluster's router stands as it was made, and putting right what does not.

What it comes to is decided in `kubernetes_router_drift`. Safety rules: nothing is made in a namespace that
does not say that it is ours; what another version of Slipway asked for otherwise is no drift and stays until
an administrator has the cluster checked; only what drifted is written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployments.drivers import kubernetes_belongings as ours
from deployments.drivers import kubernetes_names as names
from deployments.drivers import kubernetes_router as shapes
from deployments.drivers import kubernetes_router_drift as drift
from deployments.drivers import kubernetes_routers as routers
from deployments.drivers.kubernetes_router import Place
from deployments.drivers.kubernetes_router_drift import Drift
from deployments.errors import NotFound, PermanentError
from deployments.kube.api import Kube
from deployments.types import KubeSettings

Object = Mapping[str, Any]


@dataclass(slots=True)
class Known:
    """What was learnt of one cluster, and may be forgotten."""

    admitted: dict[str, frozenset[str]] = field(default_factory=dict)
    forbidden: set[str] = field(default_factory=set)  # paths of what we may not make or see


def look(
    kube: Kube, settings: KubeSettings, cluster: str, mark: str, known: Known
) -> tuple[Drift, ...] | None:
    """What drifted; None while something is on its way out still. The API server's addresses in the
    network policy follow the nodes without a word. Raises SlipwayError; PermanentError (NotOurs) where the
    namespace does not say that it is ours."""
    _ours(kube, settings.namespace, mark)
    places = _places(kube, settings, cluster, known)
    standing = {place.path: _get(kube, place.path, known) for place in places}
    compared = [
        place
        for place in places
        if place.path not in known.forbidden and not _of_others(place, standing[place.path])
    ]
    if any(
        item is not None and "deletionTimestamp" in item["metadata"] for item in standing.values()
    ):
        return None
    found = drift.found(compared, standing, known.admitted)
    return _follow_nodes(kube, compared, standing, found)


def mend(
    kube: Kube,
    settings: KubeSettings,
    cluster: str,
    drifted: Sequence[Drift],
    known: Known,
) -> None:
    """Write what drifted. Raises SlipwayError."""
    paths = {item.path for item in drifted}
    places = _places(kube, settings, cluster, known)
    if any(item.name == shapes.PEERS_SECRET for item in drifted):
        # its pods have the token that is gone: they start anew with the new one
        paths |= {place.path for place in places if place.body["kind"] == "Deployment"}
    mended = [place for place in places if place.path in paths]
    for place in mended:
        try:
            routers.make(kube, place, settings.purpose)
        except PermanentError as error:
            if error.code != "KubernetesUnaccessible" or "/namespaces/" in place.path:
                raise
            known.forbidden.add(place.path)  # what room the nodes have stays unknown to it
    standing = {place.path: _get(kube, place.path, known) for place in mended}
    known.admitted |= drift.still_other(mended, standing)


def _ours(kube: Kube, namespace: str, mark: str) -> None:
    said = ours.marker(kube, namespace)
    if said is None or said.get("mark") != mark:
        raise PermanentError(
            f"The ConfigMap {names.MARKER_NAME} of the namespace {namespace} does not say that it is this "
            "cluster's; nothing is made there.",
            code="NotOurs",
        )


def _places(kube: Kube, settings: KubeSettings, cluster: str, known: Known) -> list[Place]:
    found = routers.wanted(kube, settings, cluster)
    found += shapes.cluster_objects(settings.namespace, cluster)
    return [place for place in found if place.path not in known.forbidden]


def _get(kube: Kube, path: str, known: Known) -> dict[str, Any] | None:
    try:
        return kube.get(path)
    except NotFound:
        return None
    except PermanentError as error:
        if error.code != "KubernetesUnaccessible" or "/namespaces/" in path:
            raise
        known.forbidden.add(path)
        return None


def _of_others(place: Place, item: Object | None) -> bool:
    """Whether another version of Slipway, or one with other settings, asked for it as it stands."""
    if item is None:
        return False
    notes = item["metadata"].get("annotations") or {}
    return notes.get(names.SPEC_SHA256) != place.body["metadata"]["annotations"][names.SPEC_SHA256]


def _follow_nodes(
    kube: Kube,
    places: Sequence[Place],
    standing: Mapping[str, Object | None],
    found: tuple[Drift, ...],
) -> tuple[Drift, ...]:
    """A network policy that differs by nothing but the addresses in it is written, and is no drift."""
    rest = []
    for item in found:
        place = next(place for place in places if place.path == item.path)
        there = standing[item.path]
        if there is not None and drift.only_addresses(place.body, there):
            kube.apply(place.path, place.body)
        else:
            rest.append(item)
    return tuple(rest)
