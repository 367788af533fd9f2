"""What a service is made of on a Kubernetes cluster: a ServiceSpec in, objects out.

    Secret slipway-service-<service>    the ServiceSpec itself; it owns all the others
    Service <service>                   headless: its pods by name
    Deployment <service>-<version>      one for each version
    PodDisruptionBudget                 where two replicas or more are always wanted
    Secret slipway-files-<service>-rN   what a revision's pods fetch and start (`kubernetes_pod`)
and once in a namespace
    ServiceAccount slipway-model        without rights, its token never mounted
    NetworkPolicy slipway-models        only the router's pods reach a model's
    Secret slipway-pull                 passwords of image registries

The purposes differ: FastProd asks for all that it may use and spreads a version over nodes, DenseProd asks
for little and packs, DevTest does neither and has no budgets.

PURE. `spec.replicas` is never in a Deployment: whoever applies one must not undo the autoscaler's count.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from deployments.codec import to_json
from deployments.drivers import kubernetes_names as names
from deployments.drivers import kubernetes_pod
from deployments.drivers.kubernetes_placing import where
from deployments.types import (
    KubeSettings,
    Purpose,
    Resources,
    RevisionSpec,
    ServiceSpec,
    VersionSpec,
)

Object = dict[str, Any]

BUDGETS = ("policy/v1", "policy/v1beta1")  # the newer first
_COLLECTIONS = {
    "ConfigMap": "configmaps",
    "Deployment": "deployments",
    "NetworkPolicy": "networkpolicies",
    "Pod": "pods",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "Secret": "secrets",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
}
_HOST = "kubernetes.io/hostname"
_ZONE = "topology.kubernetes.io/zone"
_HIDDEN = "(not shown)"


@dataclass(frozen=True, slots=True)
class Place:
    """The cluster that objects are made for. `budgets` is the API version of disruption budgets, `pulls` are
    the names of Secrets for image registries."""

    settings: KubeSettings
    cluster: str = ""
    budgets: str = BUDGETS[0]
    pulls: tuple[str, ...] = ()


def collection(kind: str, api_version: str, namespace: str) -> str:
    """The path of a namespace's objects of a kind."""
    base = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    return f"{base}/namespaces/{namespace}/{_COLLECTIONS[kind]}"


def path(found: Object) -> str:
    """An object's own."""
    meta = found["metadata"]
    where = collection(found["kind"], found["apiVersion"], meta["namespace"])
    return f"{where}/{meta['name']}"


def service_secret(spec: ServiceSpec, place: Place) -> Object:
    """Its data is the service's truth."""
    return _sealed(
        _object(
            "v1",
            "Secret",
            names.service_secret(spec.name),
            place,
            names.labels(names.SERVICES, cluster=place.cluster, service=spec.name),
            type="Opaque",
            data={names.SPEC_KEY: _base64(json.dumps(to_json(spec), sort_keys=True))},
        )
    )


def of_service(spec: ServiceSpec, place: Place, owner: Object | None) -> Iterator[Object]:
    """All but its own Secret and its files. `owner` is that Secret as it stands in the cluster."""
    found = [_headless(spec, place)]
    for version in spec.versions:
        found.append(deployment(spec, version, place))
        if version.scaling.minimum >= 2 and place.settings.purpose is not Purpose.DEV_TEST:
            found.append(_budget(spec, version, place))
    for item in found:
        sealed = _sealed(item)
        if owner is not None:
            sealed["metadata"]["ownerReferences"] = [owner_reference(owner)]
        yield sealed


def owner_reference(owner: Object) -> Object:
    """With it an object goes when its owner does."""
    meta = owner["metadata"]
    return {"apiVersion": "v1", "kind": "Secret", "name": meta["name"], "uid": meta["uid"]}


def shared(place: Place) -> Iterator[Object]:
    """What a namespace has once, for all of its services."""
    labels = names.labels(names.MODEL, cluster=place.cluster)
    yield _object(
        "v1", "ServiceAccount", names.ACCOUNT, place, labels, automountServiceAccountToken=False
    )
    ports = (kubernetes_pod.PORT, kubernetes_pod.HEALTH_PORT)
    yield _object(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        names.NETWORK_POLICY,
        place,
        labels,
        spec={
            "podSelector": {"matchLabels": {names.PART: names.MODEL}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [{"podSelector": {"matchLabels": {names.PART: names.ROUTER}}}],
                    "ports": [{"port": port, "protocol": "TCP"} for port in ports],
                }
            ],
        },
    )


def pull_secret(logins: Mapping[str, tuple[str, str]], place: Place) -> Object:
    """User names and passwords, by a registry's address, as nodes take them."""
    auths = {
        address: {
            "username": user,
            "password": password,
            "auth": _base64(f"{user}:{password}"),
        }
        for address, (user, password) in sorted(logins.items())
    }
    return _object(
        "v1",
        "Secret",
        names.PULL_SECRET,
        place,
        names.labels(names.PULL, cluster=place.cluster),
        type="kubernetes.io/dockerconfigjson",
        data={".dockerconfigjson": _base64(json.dumps({"auths": auths}, sort_keys=True))},
    )


def files_secret(revision: RevisionSpec, data: Mapping[str, str], place: Place) -> Object:
    """What a revision's pods fetch and start; `data` is `kubernetes_pod.files_data`."""
    return _object(
        "v1",
        "Secret",
        names.files_secret(revision.service, revision.number),
        place,
        names.labels(
            names.FILES,
            cluster=place.cluster,
            service=revision.service,
            revision=revision.number,
        ),
        type="Opaque",
        data={name: _base64(text) for name, text in sorted(data.items())},
    )


def deployment(spec: ServiceSpec, version: VersionSpec, place: Place) -> Object:
    """A version's. A pod of it is the same whatever its share of requests or its limits are."""
    revision, settings = version.revision, place.settings
    labels = names.labels(
        names.MODEL,
        cluster=place.cluster,
        service=spec.name,
        version=version.name,
        revision=revision.number,
    )
    selector = names.selector(spec.name, version.name)
    return _object(
        "apps/v1",
        "Deployment",
        names.deployment(spec.name, version.name),
        place,
        labels,
        spec={
            "selector": {"matchLabels": selector},
            "revisionHistoryLimit": 2,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"},
            },
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": {
                        names.REVISION_KEY: revision_key(revision),
                        names.CONCURRENCY: str(revision.concurrency),
                    },
                },
                "spec": _pod(version.revision, selector, place, settings),
            },
        },
    )


def resources(asked: Resources, settings: KubeSettings) -> dict[str, dict[str, str]]:
    """What a replica's container requests and may use."""
    cpu, memory = asked.cpu, asked.memory_gb
    most_cpu, most_memory = asked.cpu_limit, asked.memory_gb_limit
    if settings.purpose is Purpose.FAST_PROD:
        # a node never promises the same core or byte to two
        cpu, memory = most_cpu or cpu, most_memory or memory
        most_cpu, most_memory = cpu, memory
    requests = {"cpu": _cores(cpu), "memory": _bytes(memory)}
    limits = {}
    if most_cpu is not None:
        limits["cpu"] = _cores(most_cpu)
    if most_memory is not None:
        limits["memory"] = _bytes(most_memory)
    if asked.gpu:
        requests[settings.accelerator] = limits[settings.accelerator] = str(asked.gpu)
    return {"requests": requests, "limits": limits} if limits else {"requests": requests}


def to_yaml(spec: ServiceSpec, place: Place) -> str:
    """The objects of a service for people who keep them elsewhere: kubectl apply takes them as they are,
    once the values of Secrets are filled in, which are not shown."""
    parts = [*shared(place), service_secret(spec, place)]
    for version in spec.versions:
        data = dict.fromkeys(kubernetes_pod.files_data(version.revision, lambda _: ""), "")
        parts.append(files_secret(version.revision, data, place))
    parts += of_service(spec, place, None)
    return "---\n".join(
        yaml.safe_dump(_without_secrets(item), sort_keys=False, allow_unicode=True)
        for item in parts
    )


def differences(wanted: object, standing: object, at: str = "") -> Iterator[str]:
    """The paths of fields that we asked for and that stand otherwise. What we did not ask for may be as it
    is: defaults, and what others added."""
    if isinstance(wanted, dict) and isinstance(standing, dict):
        for key, value in wanted.items():
            if key in standing or value not in ({}, [], None, ""):
                yield from differences(value, standing.get(key), f"{at}.{key}" if at else key)
    elif isinstance(wanted, list) and isinstance(standing, list):
        yield from _list_differences(wanted, standing, at)
    elif wanted != standing and not _same_quantity(wanted, standing):
        yield at


def quantity(text: object) -> float:
    """A number as Kubernetes writes it ("100m", "2", "512Mi", "1e3"), in cores or bytes; 0 for none."""
    given = str(text or "0")
    for suffix, factor in _SUFFIXES.items():
        if given.endswith(suffix):
            return float(given.removesuffix(suffix)) * factor
    return float(given)


_SUFFIXES = {
    **{f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", 1)},
    "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
}  # fmt: skip


def revision_key(revision: RevisionSpec) -> str:
    """Another one when anything a replica is started from is."""
    text = json.dumps(to_json(revision), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _pod(
    revision: RevisionSpec, selector: Mapping[str, str], place: Place, settings: KubeSettings
) -> Object:
    parts = kubernetes_pod.pod_containers(
        revision,
        files_secret=names.files_secret(revision.service, revision.number),
        router_image=settings.router_image,
        resources=resources(revision.resources, settings),
    )
    for container in (*parts.init_containers, *parts.containers):
        # the last words of a container stay with its pod
        container["terminationMessagePolicy"] = "FallbackToLogsOnError"
        for port in container.get("ports", ()):
            port.setdefault("protocol", "TCP")  # older servers' apply needs it said
    pod: Object = {
        "serviceAccountName": names.ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": parts.grace_seconds,
        "securityContext": parts.security_context,
        "initContainers": parts.init_containers,
        "containers": parts.containers,
        "volumes": parts.volumes,
    }
    if place.pulls:
        pod["imagePullSecrets"] = [{"name": name} for name in place.pulls]
    pod |= where(settings)
    if settings.purpose is Purpose.FAST_PROD:
        pod["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": dict(selector)},
            }
            for key in (_HOST, _ZONE)
        ]
    elif settings.purpose is Purpose.DENSE_PROD:
        beside = {
            "labelSelector": {"matchLabels": {names.PART: names.MODEL}},
            "topologyKey": _HOST,
        }
        pod["affinity"] = {
            "podAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 100, "podAffinityTerm": beside}
                ]
            }
        }
    return pod


def _headless(spec: ServiceSpec, place: Place) -> Object:
    return _object(
        "v1",
        "Service",
        names.service(spec.name),
        place,
        names.labels(names.MODEL, cluster=place.cluster, service=spec.name),
        spec={
            "clusterIP": "None",
            "selector": {
                names.PART: names.MODEL,
                names.SERVICE: names.selector(spec.name, "")[names.SERVICE],
            },
            "ports": [
                {
                    "name": "score",
                    "port": kubernetes_pod.PORT,
                    "targetPort": kubernetes_pod.PORT,
                    "protocol": "TCP",
                }
            ],
        },
    )


def _budget(spec: ServiceSpec, version: VersionSpec, place: Place) -> Object:
    return _object(
        place.budgets,
        "PodDisruptionBudget",
        names.deployment(spec.name, version.name),
        place,
        names.labels(names.MODEL, cluster=place.cluster, service=spec.name, version=version.name),
        spec={
            "maxUnavailable": 1,
            "selector": {"matchLabels": names.selector(spec.name, version.name)},
        },
    )


def _object(
    api_version: str,
    kind: str,
    name: str,
    place: Place,
    labels: Mapping[str, str],
    **rest: object,
) -> Object:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": place.settings.namespace,
            "labels": dict(labels),
        },
        **rest,
    }


def _sealed(found: Object) -> Object:
    """With the checksum of what was asked for, so that a change of ours is told from one of others'."""
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    meta = {**found["metadata"], "annotations": {names.SPEC_SHA256: digest}}
    return {**found, "metadata": meta}


def _list_differences(wanted: Sequence[Any], standing: Sequence[Any], at: str) -> Iterator[str]:
    """Things with names are compared by name, whatever was put beside them."""
    for name in ("name", "mountPath", "containerPort", "topologyKey"):
        if all(isinstance(item, dict) and name in item for item in wanted):
            there = {item.get(name): item for item in standing if isinstance(item, dict)}
            for item in wanted:
                yield from differences(item, there.get(item[name]), f"{at}[{item[name]}]")
            return
    if len(wanted) != len(standing):
        yield at
        return
    for number, (one, other) in enumerate(zip(wanted, standing, strict=True)):
        yield from differences(one, other, f"{at}[{number}]")


def _same_quantity(one: object, other: object) -> bool:
    if not isinstance(one, str) or not isinstance(other, str):
        return False
    try:
        return math.isclose(quantity(one), quantity(other))
    except ValueError:
        return False


def _without_secrets(found: Object) -> Object:
    if found["kind"] != "Secret":
        return found
    shown = {key: value for key, value in found.items() if key != "data"}
    return {**shown, "stringData": dict.fromkeys(found["data"], _HIDDEN)}


def _cores(cores: float) -> str:
    return f"{max(1, round(cores * 1000))}m"


def _bytes(gib: float) -> str:
    return f"{max(1, math.ceil(gib * 1024))}Mi"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
