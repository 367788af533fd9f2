"""A cluster's own word on where its router is reached: asked for, kept, and what stands before it."""

from typing import Any, NamedTuple

import pytest

from deployments.clusters.models import Cluster, Sku
from deployments.clusters.router_addresses import AddressLearner, check, learn
from deployments.errors import InvalidInput, NotFound, Unavailable
from deployments.services.models import Service


class Listing(NamedTuple):
    items: list[Any]


class Api:
    """An API server with a router's Service, one node, and a count of what it was asked."""

    def __init__(self) -> None:
        self.service: dict[str, Any] | Exception = {
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80, "nodePort": 30080}]}
        }
        self.asked: list[str] = []

    def get(self, path: str) -> dict[str, Any]:
        self.asked.append(path)
        if isinstance(self.service, Exception):
            raise self.service
        return self.service

    def items(self, path: str, *, newest: bool = True) -> Listing:
        self.asked.append(path)
        up = {"conditions": [{"type": "Ready", "status": "True"}]}
        addresses = [{"type": "InternalIP", "address": "10.0.0.5"}]
        return Listing([{"metadata": {"name": "n"}, "status": {**up, "addresses": addresses}}])

    def give(self, ip: str) -> None:
        self.service["status"] = {"loadBalancer": {"ingress": [{"ip": ip}]}}


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def cluster(db: None) -> Cluster:
    sku, _ = Sku.objects.get_or_create(name="this machine", defaults={"family": "CPU"})
    return Cluster.objects.create(
        name="prod",
        kind="kubernetes",
        sku=sku,
        kube_namespace="models",
        kube_service_type="LoadBalancer",
    )


def test_it_is_pending_until_the_cluster_gives_one(cluster: Cluster, api: Api) -> None:
    service = Service.objects.create(name="diabetes", cluster=cluster)
    assert learn(cluster, api) == ""
    assert "no address yet" in cluster.address_pending
    assert (service.scoring_uri, service.swagger_uri) == ("", "")
    api.give("203.0.113.7")
    learn(cluster, api)
    service = Service.objects.select_related("cluster").get()
    assert service.scoring_uri == "http://203.0.113.7/api/v1/service/diabetes/score"
    assert service.cluster.address_pending == ""
    api.service = NotFound("no Service")
    learn(cluster, api)
    assert Cluster.objects.get().kube_router_address == ""


def test_an_address_or_a_name_given_by_hand_stands_before_it(cluster: Cluster, api: Api) -> None:
    api.give("203.0.113.7")
    learn(cluster, api)
    cluster.router_url = "http://models.example"
    assert cluster.address == "http://models.example"
    cluster.router_url, cluster.tls_cname = "", "secure.example"
    assert cluster.address == "https://secure.example"


def test_a_node_port_is_the_nodes_and_its_own(cluster: Cluster, api: Api) -> None:
    cluster.kube_service_type = api.service["spec"]["type"] = "NodePort"
    cluster.save()
    assert learn(cluster, api) == "http://10.0.0.5:30080"
    assert Cluster.objects.get().address == "http://10.0.0.5:30080"


def test_a_cluster_that_was_changed_meanwhile_keeps_its_own(cluster: Cluster, api: Api) -> None:
    api.give("203.0.113.7")
    Cluster.objects.update(kube_service_type="ClusterIP")
    learn(cluster, api)
    assert Cluster.objects.get().kube_router_address == ""


def test_it_is_asked_for_often_while_pending_then_seldom_and_what_is_away_keeps_what_is_known(
    cluster: Cluster, api: Api
) -> None:
    now = 100.0
    learner = AddressLearner(kube_of=lambda row: api, clock=lambda: now)
    for now, ip, asked in (
        (100.0, "", 1),
        (102.9, "", 1),
        (103.0, "203.0.113.7", 2),
        (122.9, "", 2),
    ):
        if ip:
            api.give(ip)
        learner.round()
        assert len(api.asked) == asked, now
    api.service, now = Unavailable("away"), 123.0
    learner.round()
    assert len(api.asked) == 3
    assert Cluster.objects.get().kube_router_address == "http://203.0.113.7"


def test_nodes_with_a_certificate_are_reached_at_their_port_for_tls(
    cluster: Cluster, api: Api
) -> None:
    ports = [{"port": 80, "nodePort": 30080}, {"port": 443, "nodePort": 30443}]
    api.service = {"spec": {"type": "NodePort", "ports": ports}}
    Cluster.objects.update(kube_service_type="NodePort", tls_cname="models.example")
    learn(Cluster.objects.get(), api)
    row = Cluster.objects.get()
    assert row.kube_router_address == "http://10.0.0.5:30080"
    assert row.address == "https://models.example:30443"
    api.service["spec"] = {"type": "LoadBalancer", "ports": ports}
    Cluster.objects.update(kube_service_type="LoadBalancer")
    learn(Cluster.objects.get(), api)
    assert Cluster.objects.get().address == "https://models.example"


def test_one_of_the_two_must_say_it() -> None:
    for kind, url in (
        ("NodePort", ""),
        ("LoadBalancer", ""),
        ("ClusterIP", "http://models.example"),
    ):
        check(kind, url)
    with pytest.raises(InvalidInput) as caught:
        check("ClusterIP", "")
    assert caught.value.field == "router_url"


def test_one_that_is_reached_inside_only_is_not_asked(cluster: Cluster, api: Api) -> None:
    Cluster.objects.update(kube_service_type="ClusterIP", kube_router_address="http://old")
    AddressLearner(kube_of=lambda row: api).round()
    assert api.asked == []
    assert Cluster.objects.get().kube_router_address == ""
