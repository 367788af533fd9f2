"""Where a router is reached, by what its Service and the nodes say."""

from typing import Any

import pytest

from deployments.drivers.kubernetes_router_address import found, pending, tls_port


def service(kind: str, *ingress: dict[str, str], port: int | None = 30080) -> dict[str, Any]:
    ports = [{"port": 443, "nodePort": 30443}, {"port": 80, "nodePort": port}]
    return {
        "spec": {"type": kind, "ports": ports},
        "status": {"loadBalancer": {"ingress": list(ingress)} if ingress else {}},
    }


def node(name: str, ready: str = "True", **addresses: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "addresses": [{"type": kind, "address": text} for kind, text in addresses.items()],
        },
    }


@pytest.mark.parametrize(
    ("ingress", "address"),
    [
        ({"ip": "203.0.113.7"}, "http://203.0.113.7"),
        ({"hostname": "lb.example.com", "ip": "203.0.113.7"}, "http://lb.example.com"),
        ({"ip": "2001:db8::7"}, "http://[2001:db8::7]"),
        ({}, ""),
    ],
)
def test_a_load_balancer_has_the_address_it_was_given(
    ingress: dict[str, str], address: str
) -> None:
    assert found(service("LoadBalancer", ingress), []) == address


def test_a_load_balancer_without_one_has_none_whatever_nodes_there_are() -> None:
    assert found(service("LoadBalancer"), [node("a", InternalIP="10.0.0.1")]) == ""
    assert found({}, []) == ""


def test_a_node_port_is_reached_at_outer_addresses_of_nodes_that_are_up() -> None:
    nodes = [
        node("a", InternalIP="10.0.0.1", Hostname="a"),
        node("b", InternalIP="10.0.0.2", ExternalIP="203.0.113.2"),
        node("c", "False", ExternalIP="203.0.113.1"),
    ]
    assert found(service("NodePort"), nodes) == "http://203.0.113.2:30080"
    assert found(service("NodePort"), nodes[:1]) == "http://10.0.0.1:30080"
    assert found(service("NodePort"), nodes[2:]) == ""
    assert found(service("NodePort", port=None), nodes) == ""


def test_tls_has_a_port_of_its_own_where_nodes_are_the_door() -> None:
    assert tls_port(service("NodePort")) == 30443
    assert tls_port(service("LoadBalancer")) is None
    assert tls_port({}) is None


def test_what_is_known_stays_as_long_as_it_leads_there() -> None:
    nodes = [node("a", InternalIP="10.0.0.1"), node("b", InternalIP="10.0.0.2")]
    assert found(service("NodePort"), nodes, "http://10.0.0.2:30080") == "http://10.0.0.2:30080"
    assert found(service("NodePort"), nodes[:1], "http://10.0.0.2:30080") == "http://10.0.0.1:30080"
    one, two = {"ip": "203.0.113.1"}, {"ip": "203.0.113.2"}
    known = "http://203.0.113.2"
    assert found(service("LoadBalancer", one, two), [], known) == known
    assert found(service("LoadBalancer", one), [], known) == "http://203.0.113.1"


def test_one_that_is_reached_inside_only_waits_for_none() -> None:
    assert found(service("ClusterIP"), [node("a", InternalIP="10.0.0.1")]) == ""
    assert (pending("ClusterIP"), pending("")) == ("", "")
    assert pending("LoadBalancer").startswith("pending") and pending("NodePort").startswith("pend")
