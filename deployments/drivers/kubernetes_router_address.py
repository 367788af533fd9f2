"""Where clients reach the router of a Kubernetes cluster, by what its Service and the nodes say.

PURE.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Object = Mapping[str, Any]

LOAD_BALANCER, NODE_PORT = "LoadBalancer", "NodePort"
_HTTP, _HTTPS = 80, 443  # of the Service, and of a load balancer
_KINDS = ("ExternalIP", "InternalIP")  # of a node's addresses, the better first


def found(service: Object, nodes: Iterable[Object], known: str = "") -> str:
    """The address that the cluster gave, such as `http://203.0.113.7` or `http://10.0.0.5:30080`; "" while
    there is none, and for a Service that is reached inside only. `known` stays where it still leads there."""
    spec = service.get("spec") or {}
    if spec.get("type") == LOAD_BALANCER:
        candidates = list(_balanced(service))
    elif spec.get("type") == NODE_PORT:
        candidates = list(_at_nodes(spec, nodes))
    else:
        candidates = []
    if known in candidates:
        return known
    return candidates[0] if candidates else ""


def tls_port(service: Object) -> int | None:
    """The port of its nodes where the router answers TLS; None where it is the Service's own."""
    spec = service.get("spec") or {}
    return _node_port(spec, _HTTPS) if spec.get("type") == NODE_PORT else None


def _balanced(service: Object) -> Iterator[str]:
    status = (service.get("status") or {}).get("loadBalancer") or {}
    for item in status.get("ingress") or ():
        host = item.get("hostname") or item.get("ip")
        if host:
            yield _url(host, _HTTP)


def _at_nodes(spec: Object, nodes: Iterable[Object]) -> Iterator[str]:
    """By nodes that are up, outer addresses of all of them before inner ones."""
    port = _node_port(spec, _HTTP)
    if not port:
        return
    up = sorted((node for node in nodes if _up(node)), key=lambda node: node["metadata"]["name"])
    for kind in _KINDS:
        for node in up:
            for item in (node.get("status") or {}).get("addresses") or ():
                if item.get("type") == kind and item.get("address"):
                    yield _url(item["address"], port)


def _node_port(spec: Object, port: int) -> int | None:
    asked = (item.get("nodePort") for item in spec.get("ports") or () if item.get("port") == port)
    return next(asked, None)


def _up(node: Object) -> bool:
    return any(
        item.get("type") == "Ready" and item.get("status") == "True"
        for item in (node.get("status") or {}).get("conditions") or ()
    )


def _url(host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}" if port == _HTTP else f"http://{shown}:{port}"


def pending(service_type: str) -> str:
    """Why a Service of this type has no address yet, in words; "" for one that never gets any."""
    return {
        LOAD_BALANCER: "pending: the cluster’s load balancer has given the router no address yet",
        NODE_PORT: "pending: no node that is up says an address yet",
    }.get(service_type, "")
