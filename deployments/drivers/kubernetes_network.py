"""What network a Kubernetes cluster has, and what must reach what on it.

PURE: from objects of the API server, as far as they could be read. What is not known is None or empty, and
said to be unknown; nothing is guessed without saying from what.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from deployments.types import KubeSettings

# A part of the name of the pods or ConfigMaps of each kind of network, the telling ones first.
_CNIS = (
    ("canal", "Canal (Calico on Flannel)"),
    ("calico-node", "Calico"),
    ("cilium", "Cilium"),
    ("antrea-agent", "Antrea"),
    ("aws-node", "Amazon VPC CNI"),
    ("azure-cns", "Azure CNI"),
    ("azure-cni", "Azure CNI"),
    ("azure-vnet", "Azure CNI"),
    ("kube-flannel", "Flannel"),
    ("flannel", "Flannel"),
    ("weave-net", "Weave Net"),
    ("kube-router", "kube-router"),
    ("kube-ovn", "Kube-OVN"),
    ("ovnkube", "OVN-Kubernetes"),
    ("kindnet", "kindnet"),
    ("netd", "GKE"),
)
_RANGE = re.compile(r"range of valid IPs is ([0-9a-fA-F.:/]+)")
SCORE_PORT, HEALTH_PORT = 5001, 5002


@dataclass(frozen=True, slots=True)
class Network:
    """`pods` and `services` are ranges (CIDR); empty is unknown. `kubenet` None is unknown."""

    pods: tuple[str, ...] = ()
    pods_from: str = ""  # where that is known from
    services: tuple[str, ...] = ()
    services_from: str = ""
    cni: str = ""
    cni_from: str = ""
    kubenet: bool | None = None
    dns: str = ""  # the cluster's name server; "" is none seen
    provider: str = ""  # as nodes say it: "azure", "aws", "gce", "kind"
    nodes: tuple[str, ...] = ()  # their addresses


@dataclass(frozen=True, slots=True)
class Way:
    """One line of what must be reachable. `check` names the check that tries it; "" where none does."""

    source: str
    target: str
    what_for: str
    check: str = ""


def out_of_range_service() -> dict[str, Any]:
    """A Service that every API server refuses, and says its range of services in doing so."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"generateName": "slipway-range-"},
        "spec": {"clusterIP": "0.0.0.1", "ports": [{"port": 1}]},
    }


def range_in(words: str) -> str:
    """The range that such a refusal names; "" where it names none."""
    found = _RANGE.search(words)
    return found[1].rstrip(".") if found else ""


def network(
    nodes: Sequence[Mapping[str, Any]],
    pods: Sequence[Mapping[str, Any]] | None,
    maps: Sequence[Mapping[str, Any]] | None,
    services: Sequence[Mapping[str, Any]] | None,
    service_range: str,
    also: Sequence[str] = (),
) -> Network:
    """`pods` of all namespaces, ConfigMaps and Services of kube-system; None is not allowed to be read.
    `also`: addresses of pods that are gone."""
    kubeadm = _kubeadm(maps or ())
    given, given_from = _pod_ranges(nodes, kubeadm, pods, also)
    cni, cni_from = _cni(nodes, pods, maps)
    ranges: tuple[str, ...] = ()
    ranges_from = ""
    by_args = _argument(pods or (), "kube-apiserver", "--service-cluster-ip-range")
    if service_range:
        ranges, ranges_from = (service_range,), "the API server's word"
    elif by_args:
        ranges, ranges_from = tuple(by_args.split(",")), "the API server's arguments"
    elif kubeadm.get("serviceSubnet"):
        ranges, ranges_from = (
            tuple(kubeadm["serviceSubnet"].split(",")),
            "kubeadm's configuration",
        )
    return Network(
        pods=given,
        pods_from=given_from,
        services=ranges,
        services_from=ranges_from,
        cni=cni,
        cni_from=cni_from,
        kubenet=_kubenet(nodes, cni, seen=pods is not None and maps is not None),
        dns=_dns(services or ()),
        provider=_provider(nodes),
        nodes=tuple(
            address["address"]
            for node in nodes
            for address in node.get("status", {}).get("addresses", ())
            if address.get("type") == "InternalIP"
        ),
    )


def _pod_ranges(
    nodes: Sequence[Mapping[str, Any]],
    kubeadm: Mapping[str, str],
    pods: Sequence[Mapping[str, Any]] | None,
    also: Sequence[str],
) -> tuple[tuple[str, ...], str]:
    if kubeadm.get("podSubnet"):
        return tuple(kubeadm["podSubnet"].split(",")), "kubeadm's configuration"
    of_nodes = [
        text
        for node in nodes
        for text in node.get("spec", {}).get("podCIDRs") or [node.get("spec", {}).get("podCIDR")]
        if text
    ]
    if of_nodes:
        return tuple(dict.fromkeys(of_nodes)), "the nodes' own ranges"
    seen = sorted(
        {
            str(pod["status"]["podIP"])
            for pod in pods or ()
            if pod.get("status", {}).get("podIP") and not pod.get("spec", {}).get("hostNetwork")
        }
        | {text for text in also if text}
    )
    if not seen:
        return (), ""
    count = f"{len(seen)} pod{'s' * (len(seen) != 1)}"
    return _around(seen), f"the address{'es' * (len(seen) != 1)} of {count}"


def _around(addresses: Iterable[str]) -> tuple[str, ...]:
    """The /16 (IPv6: /64) of each."""
    found: dict[str, None] = {}
    for text in addresses:
        bits = 16 if ip_address(text).version == 4 else 64
        found[str(ip_network(f"{text}/{bits}", strict=False))] = None
    return tuple(found)


def _cni(
    nodes: Sequence[Mapping[str, Any]],
    pods: Sequence[Mapping[str, Any]] | None,
    maps: Sequence[Mapping[str, Any]] | None,
) -> tuple[str, str]:
    system = [item for item in pods or () if _space(item).startswith(_SYSTEM)]
    for kind, items in (("pod", system), ("ConfigMap", maps or ())):
        for part, word in _CNIS:
            for item in items:
                name = str(item["metadata"]["name"])
                if name.startswith(part):
                    return word, f"the {kind} {_space(item)}/{name}"
    labels = [node.get("metadata", {}).get("labels", {}) for node in nodes]
    if any(
        "kubernetes.azure.com/podnetwork-type" in each
        or "kubernetes.azure.com/azure-cni-overlay" in each
        for each in labels
    ):
        return "Azure CNI", "the nodes' labels"
    return "", ""


_SYSTEM = ("kube-", "calico-", "cilium", "tigera-", "canal", "openshift-ovn", "cattle-")


def _kubenet(nodes: Sequence[Mapping[str, Any]], cni: str, *, seen: bool) -> bool | None:
    """kubenet runs no pod: each node has a range of its own, and nobody else sees to the network."""
    if cni:
        return False
    if not seen or not nodes:
        return None
    return all(node.get("spec", {}).get("podCIDR") for node in nodes)


def _kubeadm(maps: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    for item in maps:
        if item["metadata"]["name"] == "kubeadm-config":
            text = str((item.get("data") or {}).get("ClusterConfiguration", ""))
            return {
                key: found[1]
                for key in ("podSubnet", "serviceSubnet")
                if (
                    found := re.search(
                        rf"^\s*{key}:\s*[\"']?([0-9a-fA-F.:/,]+)", text, re.MULTILINE
                    )
                )
            }
    return {}


def _argument(pods: Iterable[Mapping[str, Any]], name: str, flag: str) -> str:
    for pod in pods:
        if not pod["metadata"]["name"].startswith(name):
            continue
        for container in pod.get("spec", {}).get("containers", ()):
            for text in [*(container.get("command") or ()), *(container.get("args") or ())]:
                if text.startswith(f"{flag}="):
                    return str(text).partition("=")[2]
    return ""


def _dns(services: Iterable[Mapping[str, Any]]) -> str:
    for item in services:
        labels = item["metadata"].get("labels") or {}
        if labels.get("k8s-app") == "kube-dns" or item["metadata"]["name"] in (
            "kube-dns",
            "coredns",
        ):
            return str(item.get("spec", {}).get("clusterIP", ""))
    return ""


def _provider(nodes: Iterable[Mapping[str, Any]]) -> str:
    for node in nodes:
        name = str(node.get("spec", {}).get("providerID", "")).partition(":")[0]
        if name:
            return name
    return ""


def _space(item: Mapping[str, Any]) -> str:
    return str(item.get("metadata", {}).get("namespace", ""))


def ways(
    network: Network | None,
    settings: KubeSettings,
    server: str,
    registries: Sequence[str],
    *,
    router_ports: Sequence[int] = (),
    peer_port: int | None = None,
    clients_at: str = "",
) -> tuple[Way, ...]:
    """Every host and port that must be reachable: from where, and for what."""
    from deployments.drivers import kubernetes_cache
    from deployments.drivers import kubernetes_checks as checks

    pods = ", ".join(network.pods) if network and network.pods else "the pods' range"
    services = (
        ", ".join(network.services) if network and network.services else "the services' range"
    )
    found = [
        Way("this portal", _host_port(server), "all it does: deployments, figures, logs, checks; "
            "also the router's figures, by the API server's proxy", checks.ANSWERS),
    ]  # fmt: skip
    for address in registries:
        found.append(
            Way(
                "each node",
                address if ":" in address else f"{address}:443",
                "images of services and of the router",
                checks.REGISTRY.format(address=address),
            )
        )
        found.append(
            Way("this portal's image builder", address if ":" in address else f"{address}:443",
                "pushing the images it builds")
        )  # fmt: skip
    found.append(
        Way("router pods", f"the API server, as kubernetes.default ({services}), 443",
            "finding services and replicas, and their counts", checks.POD_API)
    )  # fmt: skip
    found.append(
        Way("model pods, as they start", _host_port(settings.blob_url) or "this portal's address for nodes",
            "files of models and projects", checks.STORE)
    )  # fmt: skip
    found.append(
        Way("router pods", f"model pods ({pods}), {SCORE_PORT} and {HEALTH_PORT}",
            "requests, and whether a replica may have them", checks.ROUTER_POD)
    )  # fmt: skip
    if kubernetes_cache.wanted(settings):
        port = kubernetes_cache.PORT
        found.append(
            Way("model pods, as they start", f"caches of files ({services}; {pods}), {port}",
                "the same files, from their own node")
        )  # fmt: skip
        found.append(
            Way("caches of files", f"{_host_port(settings.blob_url)}; each other ({pods}), {port}",
                "files that a node does not have yet", checks.STORE)
        )  # fmt: skip
    if peer_port is not None:
        found.append(
            Way("router pods", f"each other ({pods}), {peer_port}", "sharing replicas and adding figures up",
                checks.ROUTER_PEERS)
        )  # fmt: skip
    ports = " and ".join(map(str, router_ports)) or "its ports"
    entrance = {
        "NodePort": f"each node, {settings.node_port or 'the port that the cluster gives'}",
        "LoadBalancer": f"the load balancer, {ports}",
    }.get(settings.service_type, f"the router's Service ({services}), {ports}")
    found.append(Way("clients", clients_at or entrance, "scoring"))
    found.append(
        Way("the API server", "each node, 10250", "logs of pods and the proxy to router pods")
    )
    if network and network.dns:
        found.append(Way("pods", f"{network.dns}:53", "names"))
    return tuple(found)


def _host_port(url: str) -> str:
    parts = urlsplit(url)
    if not parts.hostname:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
