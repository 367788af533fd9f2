"""The objects that make a cluster's router on Kubernetes, and what its pods are.

PURE. The router runs in the services' own namespace: HAProxy and its loop in each of its pods. What it may do
is said in `role`; nothing in here is a secret but the token that its pods know each other by.

    Deployment, Service, ServiceAccount, Role, RoleBinding, Lease, NetworkPolicy    always
    PodDisruptionBudget                                                             from two pods on
    ClusterRole, ClusterRoleBinding        where that is allowed: what room the nodes have
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployments.drivers import kubernetes_names as names
from deployments.drivers import kubernetes_restricted as restricted
from deployments.drivers.kubernetes_objects import quantity
from deployments.types import (
    KubeSettings,
    NodeCapacity,
    Purpose,
    ReplicaRoute,
    RouteReport,
    RouterPods,
    RouteState,
)

Object = dict[str, Any]

NAME = "slipway-router"  # of the Deployment, its Service, its account and its Lease
PEERS_SECRET = "slipway-router-peers"  # noqa: S105  holds the token that its pods know each other by
PEERS_KEY = "token"
PEERS_SHA256 = names.PREFIX + "peers-sha256"  # of a pod: the token that it was started with
CONTAINER = "router"
SCORE_PORT, TLS_PORT = 8080, 8443
ADMIN_PORT = 8090  # health, figures; for the API server's proxy, the kubelet and the other pods
PEER_PORT = 8091  # where pods hand requests to each other
LEAVE_SECONDS = 8  # a pod that goes still takes requests for so long: nobody may know of it yet
GRACE_SECONDS = 150  # for what is inside it then
_USER = 1000
_HOME = "/var/lib/slipway"
_TOKENS = "/etc/slipway/peers"

# least and most pods; the least is what it begins with
PODS = {Purpose.DEV_TEST: (1, 1), Purpose.FAST_PROD: (3, 10), Purpose.DENSE_PROD: (3, 10)}


@dataclass(frozen=True, slots=True)
class Place:
    """One object of ours: `path` is its own, `folder` the collection's."""

    path: str
    body: Object

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]


def objects(
    settings: KubeSettings,
    cluster: str,
    token: str,
    *,
    budgets: str | None = "policy/v1",
    api_addresses: Sequence[str] = (),
) -> list[Place]:
    """All of the namespace, in the order to make them. `budgets` is the version of disruption budgets
    that the server has, `api_addresses` whence the API server's proxy may come (IP addresses)."""
    space = settings.namespace
    core, apps = f"/api/v1/namespaces/{space}", f"/apis/apps/v1/namespaces/{space}"
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{space}"
    labels = names.labels(names.ROUTER, cluster=cluster)

    def made(folder: str, version: str, kind: str, name: str, **rest: Any) -> Place:
        body = {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels}}
        return Place(f"{folder}/{name}", {**body, **rest})

    found = [
        made(f"{core}/serviceaccounts", "v1", "ServiceAccount", NAME),
        made(f"{rbac}/roles", "rbac.authorization.k8s.io/v1", "Role", NAME, rules=role()),
        made(
            f"{rbac}/rolebindings",
            "rbac.authorization.k8s.io/v1",
            "RoleBinding",
            NAME,
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME},
            subjects=[{"kind": "ServiceAccount", "name": NAME, "namespace": space}],
        ),
        made(
            f"{core}/secrets", "v1", "Secret", PEERS_SECRET,
            type="Opaque", stringData={PEERS_KEY: token},
        ),
        made(
            f"/apis/coordination.k8s.io/v1/namespaces/{space}/leases",
            "coordination.k8s.io/v1", "Lease", NAME,
        ),
        made(
            f"/apis/networking.k8s.io/v1/namespaces/{space}/networkpolicies",
            "networking.k8s.io/v1", "NetworkPolicy", NAME, spec=_policy(api_addresses),
        ),
        made(f"{core}/services", "v1", "Service", NAME, spec=_service(settings)),
        made(
            f"{apps}/deployments", "apps/v1", "Deployment", NAME,
            spec=_deployment(settings, cluster, labels),
        ),
    ]  # fmt: skip
    if budgets is not None and PODS[settings.purpose][0] > 1:
        found.append(
            made(
                f"/apis/{budgets}/namespaces/{space}/poddisruptionbudgets",
                budgets, "PodDisruptionBudget", NAME,
                spec={"maxUnavailable": 1, "selector": {"matchLabels": selector()}},
            )
        )  # fmt: skip
    return [_known_by(_stamped(place), token) for place in found]


def cluster_objects(namespace: str, cluster: str) -> list[Place]:
    """What the router would like to see of the whole cluster: the nodes, and what is asked of them."""
    name, rbac = f"{NAME}-{namespace}", "/apis/rbac.authorization.k8s.io/v1"
    metadata = {
        "name": name,
        "labels": names.labels(names.ROUTER, cluster=cluster),
        "annotations": {names.PREFIX + "namespace": namespace},
    }
    version = "rbac.authorization.k8s.io/v1"
    rules = [{"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["get", "list", "watch"]}]
    found = [
        Place(
            f"{rbac}/clusterroles/{name}",
            {"apiVersion": version, "kind": "ClusterRole", "metadata": metadata, "rules": rules},
        ),
        Place(
            f"{rbac}/clusterrolebindings/{name}",
            {
                "apiVersion": version,
                "kind": "ClusterRoleBinding",
                "metadata": metadata,
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io",
                    "kind": "ClusterRole",
                    "name": name,
                },
                "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}],
            },
        ),
    ]
    return [_stamped(place) for place in found]


def stamp(body: Mapping[str, Any]) -> str:
    """Another one when another version of Slipway, or other settings, ask for something else. The addresses
    of nodes come and go, and count for nothing; neither does a secret."""
    asked = {key: value for key, value in body.items() if key not in ("metadata", "stringData")}
    if body["kind"] == "NetworkPolicy":
        asked["spec"] = _policy(())
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _stamped(place: Place) -> Place:
    metadata = dict(place.body["metadata"])
    notes = {**metadata.get("annotations", {}), names.SPEC_SHA256: stamp(place.body)}
    return Place(place.path, {**place.body, "metadata": {**metadata, "annotations": notes}})


def _known_by(place: Place, token: str) -> Place:
    """Pods read the token once: with another one they have to be started anew."""
    if place.body["kind"] != "Deployment" or not token:
        return place
    spec = place.body["spec"]
    metadata = {
        **spec["template"]["metadata"],
        "annotations": {PEERS_SHA256: hashlib.sha256(token.encode()).hexdigest()[:16]},
    }
    template = {**spec["template"], "metadata": metadata}
    return Place(place.path, {**place.body, "spec": {**spec, "template": template}})


def selector() -> dict[str, str]:
    """The labels by which the router's pods are its own."""
    return {names.PART: names.ROUTER}


def role() -> list[Object]:
    """All that the router may do, in its own namespace."""
    see = ["get", "list", "watch"]
    return [
        {"apiGroups": [""], "resources": ["pods", "secrets", "events"], "verbs": see},
        # what a scale down would take first
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]},
        {"apiGroups": ["apps"], "resources": ["deployments", "replicasets"], "verbs": see},
        {
            "apiGroups": ["apps"],
            "resources": ["deployments/scale"],
            "verbs": ["get", "patch", "update"],
        },
        {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": see},
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": [NAME],
            "verbs": ["get", "patch", "update"],
        },
    ]


def _policy(api_addresses: Sequence[str]) -> Object:
    pods = {"podSelector": {"matchLabels": selector()}}
    blocks = [
        {"ipBlock": {"cidr": f"{address}/{128 if ':' in address else 32}"}}
        for address in sorted(set(api_addresses))
    ]
    # where the API server reaches pods through an agent, that is one of kube-system's
    agents = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
    return {
        "podSelector": {"matchLabels": selector()},
        "policyTypes": ["Ingress"],
        "ingress": [
            {"ports": [_tcp(SCORE_PORT), _tcp(TLS_PORT)]},
            {"ports": [_tcp(ADMIN_PORT), _tcp(PEER_PORT)], "from": [pods]},
            {"ports": [_tcp(ADMIN_PORT)], "from": [*blocks, agents]},
        ],
    }


def _tcp(port: int) -> Object:
    return {"protocol": "TCP", "port": port}


def _service(settings: KubeSettings) -> Object:
    http: Object = {"name": "http", "port": 80, "targetPort": SCORE_PORT, "protocol": "TCP"}
    if settings.node_port is not None and settings.service_type == "NodePort":
        http["nodePort"] = settings.node_port
    tls = {"name": "https", "port": 443, "targetPort": TLS_PORT, "protocol": "TCP"}
    return {"type": settings.service_type, "selector": selector(), "ports": [http, tls]}


def _deployment(settings: KubeSettings, cluster: str, labels: Mapping[str, str]) -> Object:
    several = PODS[settings.purpose][0] > 1
    # where each pod has a node of its own there may be none for one more of them
    strategy = (
        {"maxUnavailable": 1, "maxSurge": 0} if several else {"maxUnavailable": 0, "maxSurge": 1}
    )
    return {
        "selector": {"matchLabels": selector()},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": strategy},
        "template": {"metadata": {"labels": dict(labels)}, "spec": _pod(settings, cluster)},
    }


def _pod(settings: KubeSettings, cluster: str) -> Object:
    apart = _apart(settings.purpose)
    pull = {"imagePullSecrets": [{"name": settings.pull_secret}]} if settings.pull_secret else {}
    return {
        "serviceAccountName": NAME,
        # a Service of ours would make variables that look like settings of ours
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": restricted.pod(_USER, owns_files=True),
        **({"affinity": {"podAntiAffinity": apart}} if apart else {}),
        **pull,
        "containers": [_container(settings, cluster)],
        "volumes": [
            {"name": "home", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "peers", "secret": {"secretName": PEERS_SECRET, "defaultMode": 0o440}},
        ],
    }


def _container(settings: KubeSettings, cluster: str) -> Object:
    cpu, memory = _asked(settings.purpose)
    given = (
        ("POD", "metadata.name"), ("POD_IP", "status.podIP"), ("NODE", "spec.nodeName"),
        ("NAMESPACE", "metadata.namespace"),
    )  # fmt: skip
    return {
        "name": CONTAINER,
        "image": settings.router_image,
        "command": ["python", "-m", "router.pod_init"],
        "args": [
            cluster, "--pod", "$(POD)", "--pod-ip", "$(POD_IP)", "--node", "$(NODE)",
            "--namespace", "$(NAMESPACE)", "--purpose", settings.purpose.value, "--peer-token-file",
            f"{_TOKENS}/{PEERS_KEY}",
        ],
        "env": [
            *(
                {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
                for name, path in given
            ),
            {"name": "SLIPWAY_HOME", "value": _HOME},
        ],
        "ports": [
            {"name": "score", "containerPort": SCORE_PORT},
            {"name": "tls", "containerPort": TLS_PORT},
            {"name": "admin", "containerPort": ADMIN_PORT},
            {"name": "peer", "containerPort": PEER_PORT},
        ],
        "readinessProbe": _probe("/ready", periodSeconds=1, failureThreshold=3, timeoutSeconds=2),
        # a router that is slow is better than none: only one that hangs for minutes is started anew
        "livenessProbe": _probe(
            "/live", initialDelaySeconds=30, periodSeconds=10, failureThreshold=6, timeoutSeconds=5
        ),
        "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": "2Gi"}},
        "securityContext": restricted.container(),
        "volumeMounts": [
            {"name": "home", "mountPath": _HOME},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  a folder of the pod's own
            {"name": "peers", "mountPath": _TOKENS, "readOnly": True},
        ],
    }  # fmt: skip


def _asked(purpose: Purpose) -> tuple[str, str]:
    """CPU and memory that a pod asks for."""
    return ("100m", "256Mi") if purpose is Purpose.DEV_TEST else ("500m", "512Mi")


def _probe(path: str, **times: int) -> Object:
    return {"httpGet": {"path": path, "port": ADMIN_PORT}, **times}


def _apart(purpose: Purpose) -> Object:
    term = {"labelSelector": {"matchLabels": selector()}, "topologyKey": "kubernetes.io/hostname"}
    if purpose is Purpose.FAST_PROD:
        return {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    if purpose is Purpose.DENSE_PROD:
        weighted = {"weight": 100, "podAffinityTerm": term}
        return {"preferredDuringSchedulingIgnoredDuringExecution": [weighted]}
    return {}


# ---- what is seen of its pods ---------------------------------------------------------------------


def pod_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def leaving(pod: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def size(
    deployment: Mapping[str, Any], purpose: Purpose, nodes: Sequence[NodeCapacity] | None
) -> RouterPods:
    """How many pods there are, may be, and would find a place: as many as nodes are left where each has a
    node of its own, else as many as there is free room for. `nodes` None is unknown."""
    pods = int(deployment.get("spec", {}).get("replicas", 1))
    least, most = PODS[purpose]
    free: int | None = None
    if nodes is not None and purpose is Purpose.FAST_PROD:
        free = max(len(nodes) - pods, 0)
    elif nodes is not None:
        free = sum(_fitting(node, *_asked(purpose)) for node in nodes)
    return RouterPods(pods, least, max(most, least), free)


def _fitting(node: NodeCapacity, cpu: str, memory: str) -> int:
    """How many pods that ask for so much have room on a node."""
    cores = node.cpu_free / quantity(cpu)
    gib = node.memory_gb_free / (quantity(memory) / 2**30)
    return max(int(min(cores, gib)), 0)


def together(reports: Sequence[RouteReport]) -> RouteReport | None:
    """Where replicas stand in all pods: in rotation where every pod has it so, out where every one has;
    None without any report."""
    if not reports:
        return None
    by_replica: dict[str, list[ReplicaRoute]] = {}
    for report in reports:
        for route in report.routes:
            by_replica.setdefault(route.replica, []).append(route)
    found = []
    for name, stands in sorted(by_replica.items()):
        states = {route.state for route in stands}
        if len(stands) < len(reports):
            states.add(RouteState.OUT)
        state = states.pop() if len(states) == 1 else RouteState.DRAINING
        found.append(ReplicaRoute(name, state, sum(route.busy for route in stands)))
    return RouteReport(min(report.at for report in reports), tuple(found))
