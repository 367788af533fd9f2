"""What the checks of a Kubernetes cluster come to: from what was seen to pass, fail or unknown.

PURE. `kubernetes_looking` asks; here it is decided, with what was seen and what to do. The checks come in the
order in which things are needed (`NAMES`), so the first that fails is the one to mend.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployments.drivers.kubernetes_objects import quantity
from deployments.services.fits import purpose_problems
from deployments.types import Capacity, Check, CheckStatus, NodeCapacity, Purpose

RESOLVES = "API server's name resolves"
ANSWERS = "API server answers"
VERSION = "Kubernetes is new enough"
FREE = "nobody else attached it"
ALLOWED = "may do what is needed"
PURPOSE = "nodes suit the purpose"
SIZE = "nodes suit the SKU"
DEVICES = "GPUs and FPGAs suit the SKU"
REGISTRY = "a node pulls from {address}"
POD_API = "a pod reaches the API server"
STORE = "a pod reaches the model store"
ROUTER_STARTS = "router starts"
ROUTER_PEERS = "router finds its peers"
ROUTER_POD = "router reaches a pod"
NAMES = (
    RESOLVES,
    ANSWERS,
    VERSION,
    FREE,
    ALLOWED,
    PURPOSE,
    SIZE,
    DEVICES,
    REGISTRY,
    POD_API,
    STORE,
    ROUTER_STARTS,
    ROUTER_PEERS,
    ROUTER_POD,
)
LEAST_VERSION = (1, 20)
_NOMINAL = 0.85  # of a size's memory a node has left after the machine took its own


@dataclass(frozen=True, slots=True)
class Size:
    """A SKU: what its machines have. None is not said."""

    name: str
    vcpu: int | None = None
    memory_gb: float | None = None
    resource: str = ""  # the extended resource, such as nvidia.com/gpu
    accelerators: int = 0


@dataclass(frozen=True, slots=True)
class RegistryAsked:
    """A registry that nodes pull from; `image` is one that is known to be in it, "" where none is."""

    address: str
    repository: str = ""
    image: str = ""
    username: str = ""
    password: str = ""

    def __repr__(self) -> str:  # never with its password
        return f"RegistryAsked({self.address})"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a cluster is to be good for."""

    purpose: Purpose
    size: Size
    registries: tuple[RegistryAsked, ...] = ()
    store_url: str = ""


@dataclass(frozen=True, slots=True)
class Permission:
    """One verb on one resource. `namespaced` False is asked for the whole cluster."""

    verb: str
    resource: str  # "deployments", "deployments/scale"
    group: str = ""
    namespaced: bool = True

    @property
    def words(self) -> str:
        name = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {name}"


_READ = ("get", "list", "watch")
_ALL = (*_READ, "create", "patch", "delete")
# (group, resource, verbs): in the namespace
_NAMESPACED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("", "pods", (*_READ, "create", "patch", "delete")),
    ("", "pods/log", ("get",)),
    ("", "pods/proxy", ("get", "create")),
    ("", "services", _ALL),
    ("", "serviceaccounts", _ALL),
    ("", "secrets", _ALL),
    ("", "configmaps", _ALL),
    ("", "events", ("get", "list", "watch")),
    ("apps", "daemonsets", _ALL),
    ("apps", "deployments", _ALL),
    ("apps", "deployments/scale", ("get", "patch", "update")),
    ("apps", "replicasets", _READ),
    ("policy", "poddisruptionbudgets", _ALL),
    ("networking.k8s.io", "networkpolicies", _ALL),
    ("rbac.authorization.k8s.io", "roles", _ALL),
    ("rbac.authorization.k8s.io", "rolebindings", _ALL),
    ("coordination.k8s.io", "leases", (*_ALL, "update")),
    ("autoscaling", "horizontalpodautoscalers", _READ),
)
# of the whole cluster
_CLUSTER: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("", "nodes", _READ),
    ("", "pods", _READ),
    ("", "namespaces", ("get",)),
)


def permissions(*, makes_namespace: bool) -> tuple[Permission, ...]:
    """All that is needed, by verb. `makes_namespace`: it is not there yet."""
    found = [
        Permission(verb, resource, group)
        for group, resource, verbs in _NAMESPACED
        for verb in verbs
    ]
    found += [
        Permission(verb, resource, group, namespaced=False)
        for group, resource, verbs in _CLUSTER
        for verb in verbs
    ]
    if makes_namespace:
        found += [Permission(verb, "namespaces", namespaced=False) for verb in ("create", "delete")]
    return tuple(found)


def role_yaml(namespace: str, account: str = "slipway-portal") -> str:
    """The Role and ClusterRole that hold exactly `permissions`, bound to a service account: to copy."""
    return "---\n".join(
        (
            _role("Role", account, f"  namespace: {namespace}\n", _NAMESPACED),
            _binding("RoleBinding", "Role", account, namespace, f"  namespace: {namespace}\n"),
            _role("ClusterRole", account, "", _CLUSTER),
            _binding("ClusterRoleBinding", "ClusterRole", account, namespace, ""),
        )
    )


def _role(
    kind: str, name: str, where: str, rules: Iterable[tuple[str, str, tuple[str, ...]]]
) -> str:
    lines = [
        f"apiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: {name}\n{where}rules:\n"
    ]
    for group, resource, verbs in rules:
        lines.append(
            f'- apiGroups: ["{group}"]\n  resources: ["{resource}"]\n  verbs: [{", ".join(verbs)}]\n'
        )
    return "".join(lines)


def _binding(kind: str, of: str, name: str, namespace: str, where: str) -> str:
    return (
        f"apiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: {name}\n{where}"
        f"roleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: {of}\n  name: {name}\n"
        f"subjects:\n- kind: ServiceAccount\n  name: {name}\n  namespace: {namespace}\n"
    )


def review(permission: Permission, namespace: str) -> dict[str, Any]:
    """The SelfSubjectAccessReview that asks for it."""
    resource, _, sub = permission.resource.partition("/")
    attributes = {"verb": permission.verb, "group": permission.group, "resource": resource}
    if sub:
        attributes["subresource"] = sub
    if permission.namespaced:
        attributes["namespace"] = namespace
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }


def allowed(asked: Sequence[Permission], missing: Sequence[Permission], namespace: str) -> Check:
    """Every permission was asked for by itself; those that are missing are named."""
    if not missing:
        return Check(
            ALLOWED,
            CheckStatus.PASS,
            f"all {len(asked)} permissions, in {namespace} and of the cluster: {_listed(asked)}",
        )
    inside = [item for item in missing if item.namespaced]
    outside = [item for item in missing if not item.namespaced]
    words = []
    if inside:
        words.append(f"in the namespace {namespace}: {_listed(inside)}")
    if outside:
        words.append(f"in the whole cluster: {_listed(outside)}")
    return Check(
        ALLOWED,
        CheckStatus.FAIL,
        f"{len(missing)} of {len(asked)} permissions are missing; {'; '.join(words)}",
        "Give the kubeconfig's user these: docs/clusters.md has a Role to copy.",
    )


def _listed(items: Sequence[Permission]) -> str:
    """ "get, list pods; create secrets"."""
    by_resource: dict[tuple[str, str], list[str]] = {}
    for item in items:
        name = f"{item.resource}.{item.group}" if item.group else item.resource
        by_resource.setdefault((name, str(item.namespaced)), []).append(item.verb)
    return "; ".join(f"{', '.join(verbs)} {name}" for (name, _), verbs in by_resource.items())


def version(found: tuple[int, int]) -> Check:
    words = f"Kubernetes {found[0]}.{found[1]}"
    if found < LEAST_VERSION:
        least = ".".join(map(str, LEAST_VERSION))
        return Check(VERSION, CheckStatus.FAIL, words, f"Slipway works from Kubernetes {least}.")
    return Check(VERSION, CheckStatus.PASS, words)


def free(marker: Mapping[str, Any] | None, mark: str, namespace: str) -> Check:
    """`marker` is the ConfigMap's data that says who attached it; None where there is none."""
    if marker is None:
        return Check(FREE, CheckStatus.PASS, f"the namespace {namespace} has no marker of a portal")
    if mark and marker.get("mark") == mark:
        return Check(
            FREE, CheckStatus.PASS, f"it is attached by this portal as {marker.get('cluster')}"
        )
    return Check(FREE, CheckStatus.FAIL, taken_words(marker, namespace), TAKEN_REMEDY)


TAKEN_REMEDY = (
    "Detach it there first, or choose another namespace. If that portal is gone for good, delete the "
    "ConfigMap slipway-cluster in the namespace."
)


def taken_words(marker: Mapping[str, Any], namespace: str) -> str:
    """By whom and since when."""
    return (
        f"The namespace {namespace} is attached already: as {marker.get('cluster', 'a cluster')} of the "
        f"portal {marker.get('portal', 'that did not say its name')}, by {marker.get('by', 'somebody')}, "
        f"since {marker.get('since', 'a time that is not known')}."
    )


@dataclass(frozen=True, slots=True)
class Node:
    """What a check looks at of one node; amounts as the machine has them."""

    name: str
    ready: bool
    cpu: float
    memory_gb: float
    instance: str  # the provider's word for its size
    devices: Mapping[str, int]  # extended resources that pods may have

    @property
    def usable(self) -> bool:
        return self.ready


def nodes(items: Iterable[Mapping[str, Any]]) -> tuple[Node, ...]:
    """From the API server's objects, by name. One that takes no pods (cordoned, or a control plane) is not
    counted as ready."""
    found = []
    for item in items:
        status, spec = item.get("status", {}), item.get("spec", {})
        labels = item.get("metadata", {}).get("labels", {})
        capacity = status.get("capacity", {})
        conditions = {each["type"]: each["status"] for each in status.get("conditions", ())}
        tainted = any(
            taint.get("effect") in ("NoSchedule", "NoExecute")
            and taint.get("key", "").startswith("node-role.kubernetes.io/")
            for taint in spec.get("taints") or ()
        )
        found.append(
            Node(
                name=item["metadata"]["name"],
                ready=conditions.get("Ready") == "True"
                and not spec.get("unschedulable")
                and not tainted,
                cpu=quantity(capacity.get("cpu", "0")),
                memory_gb=quantity(capacity.get("memory", "0")) / 2**30,
                instance=labels.get("node.kubernetes.io/instance-type")
                or labels.get("beta.kubernetes.io/instance-type", ""),
                devices={
                    name: int(quantity(amount))
                    for name, amount in sorted(status.get("allocatable", {}).items())
                    if "/" in name and not name.startswith(("hugepages", "attachable-volumes"))
                },
            )
        )
    return tuple(sorted(found, key=lambda node: node.name))


def purpose(found: Sequence[Node], wanted: Purpose) -> Check:
    """Azure's rule for production purposes, in Azure's words."""
    usable = [node for node in found if node.usable]
    words = f"{len(usable)} of {len(found)} node{'s' * (len(found) != 1)} take pods"
    words += f", {sum(node.cpu for node in usable):g} cores altogether"
    if not usable:
        return Check(
            PURPOSE, CheckStatus.FAIL, words, "Have a node that is Ready and not cordoned."
        )
    capacity = Capacity(
        0.0,
        tuple(
            NodeCapacity(node.name, node.cpu, node.cpu, node.memory_gb, node.memory_gb)
            for node in usable
        ),
    )
    problems = purpose_problems(capacity, wanted.value)
    if problems:
        said = "; ".join(problem.message for problem in problems)
        return Check(
            PURPOSE, CheckStatus.FAIL, f"{said} ({words})", "Add nodes, or attach it as DevTest."
        )
    return Check(PURPOSE, CheckStatus.PASS, f"{words}; {wanted.value}")


def size(found: Sequence[Node], wanted: Size) -> Check:
    """At least one node is of the size that was chosen, by the provider's label or by what it has."""
    usable = [node for node in found if node.usable]
    seen = "; ".join(
        f"{node.name}: {node.instance + ', ' if node.instance else ''}{node.cpu:g} vCPU, "
        f"{node.memory_gb:.1f} GiB"
        for node in usable[:5]
    )
    if wanted.vcpu is None and wanted.memory_gb is None:
        return Check(SIZE, CheckStatus.PASS, seen or "no node takes pods")
    fitting = [
        node
        for node in usable
        if node.instance == wanted.name
        or (node.cpu >= (wanted.vcpu or 0) and node.memory_gb >= _NOMINAL * (wanted.memory_gb or 0))
    ]
    if not fitting:
        return Check(
            SIZE,
            CheckStatus.FAIL,
            f"No node has what {wanted.name} has ({wanted.vcpu} vCPU, {wanted.memory_gb:g} GiB). {seen}",
            'Choose the size your nodes have, or "this machine", which is read from them.',
        )
    return Check(SIZE, CheckStatus.PASS, f"{len(fitting)} of {len(usable)} have it. {seen}")


def devices(found: Sequence[Node], wanted: Size) -> Check:
    """Extended resources by node; the size's own must be offered by one."""
    seen = "; ".join(
        f"{node.name}: {', '.join(f'{count} × {name}' for name, count in node.devices.items())}"
        for node in found
        if node.devices
    )
    if not wanted.resource:
        return Check(DEVICES, CheckStatus.PASS, seen or "none, and the SKU has none")
    most = max((node.devices.get(wanted.resource, 0) for node in found if node.usable), default=0)
    if most == 0:
        return Check(
            DEVICES,
            CheckStatus.FAIL,
            f"No node offers {wanted.resource}, which {wanted.name} has. {seen}".strip(),
            "Install the device plugin of its maker, or choose a CPU size.",
        )
    if most < wanted.accelerators:
        return Check(
            DEVICES,
            CheckStatus.FAIL,
            f"{wanted.name} has {wanted.accelerators} × {wanted.resource}; the most on one node is {most}. "
            f"{seen}",
            "See the device plugin's log on the node, or choose a smaller size.",
        )
    return Check(DEVICES, CheckStatus.PASS, seen)


@dataclass(frozen=True, slots=True)
class RouterPod:
    """One pod of the router as seen. `words`: why it does not run, or the last it said when it ended."""

    name: str
    ready: bool
    node: str = ""
    words: str = ""


def router_starts(pods: Sequence[RouterPod], wanted: int, seconds: float) -> Check:
    """Whether all of them are ready."""
    ready = [pod for pod in pods if pod.ready]
    if len(ready) >= wanted:
        where = ", ".join(sorted({pod.node for pod in ready if pod.node}))
        words = f"{len(ready)} pod{'s' * (len(ready) != 1)} ready on {where}, after {seconds:.0f} s"
        return Check(ROUTER_STARTS, CheckStatus.PASS, words)
    words = f"{len(ready)} of {wanted} pods are ready after {seconds:.0f} s"
    if not pods:
        return Check(
            ROUTER_STARTS,
            CheckStatus.FAIL,
            f"{words}; none was made",
            "Look at the events of the namespace: a quota or a policy may refuse pods.",
        )
    why = "; ".join(f"{pod.name}: {pod.words}" for pod in pods if not pod.ready and pod.words)
    return Check(
        ROUTER_STARTS,
        CheckStatus.FAIL,
        f"{words}. {why}".strip(),
        "See that nodes can pull its image and have room for it, and that its pods reach the API server.",
    )


def router_peers(pods: Sequence[str], leader: str, complaints: Sequence[str]) -> Check:
    """Whether one leads, and nobody says of another that it cannot be read."""
    if complaints:
        return Check(
            ROUTER_PEERS,
            CheckStatus.FAIL,
            "; ".join(complaints[:3]),
            "Router pods must reach each other: see network policies and the nodes' firewalls.",
        )
    if leader not in pods:
        said = f"the Lease says {leader}, which is gone" if leader else "nobody holds the Lease"
        remedy = (
            "The pods must reach the API server and may write their Lease; see a router pod's log."
        )
        return Check(ROUTER_PEERS, CheckStatus.FAIL, said, remedy)
    others = len(pods) - 1
    words = f"{leader} leads" + (
        f" {others} other{'s' * (others != 1)}" if others else "; it is alone"
    )
    return Check(ROUTER_PEERS, CheckStatus.PASS, words)


def after(phase: str) -> tuple[str, ...]:
    """The checks of what a deployment was doing when it failed: a step or a phase of a replica."""
    return _OF_PHASE.get(phase, (ANSWERS, PURPOSE))


_OF_PHASE: dict[str, tuple[str, ...]] = {
    "applying": (RESOLVES, ANSWERS, ALLOWED),
    "scheduling": (PURPOSE, SIZE, DEVICES),
    "pulling": (REGISTRY,),
    "starting": (STORE, POD_API),
    "loading": (STORE, ROUTER_STARTS, ROUTER_PEERS, ROUTER_POD),
}
