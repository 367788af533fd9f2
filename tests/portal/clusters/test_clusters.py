"""Clusters: what the pages show, who may attach, check and detach."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from deployments.clusters import changes
from deployments.clusters.catalogue import ensure_skus
from deployments.clusters.models import Cluster, Sku
from deployments.codec import to_json
from deployments.services.models import Service
from deployments.types import Capacity, Check, CheckStatus, NodeCapacity
from portal.cluster_view import health, nodes_of, tally
from portal.models import User


@pytest.fixture
def skus(db: None) -> None:
    ensure_skus()


@pytest.fixture
def cluster(skus: None) -> Cluster:
    capacity = Capacity(0.0, (NodeCapacity("here", 4.0, 1.0, 8.0, 0.2, 2, 1),))
    checks = [
        Check("Folder", CheckStatus.PASS, "writable"),
        Check("Router", CheckStatus.FAIL, "no such file", "Start the router."),
    ]
    return Cluster.objects.create(
        name="local",
        sku=Sku.objects.get(name="this machine"),
        router_url="http://127.0.0.1:27998",
        capacity=to_json(capacity),
        checks=to_json(checks),
        checked_at=timezone.now(),
    )


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the pages ask of the cluster, which is not there in a page's test."""
    calls: list[str] = []

    def look(cluster: Cluster) -> Any:
        calls.append(cluster.name)
        return Capacity(0.0, (NodeCapacity("here", 2.0, 2.0, 4.0, 4.0),)), [
            Check("Folder", CheckStatus.PASS, "writable")
        ]

    monkeypatch.setattr(changes, "_look", look)
    return calls


def _sign_in(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


def test_the_room_is_drawn_by_node_with_its_tone(cluster: Cluster) -> None:
    nodes = nodes_of(cluster)
    assert nodes is not None
    assert [(bar.label, bar.percent, bar.tone) for bar in nodes[0].bars] == [
        ("CPU", 75, ""),
        ("Memory", 98, "bad"),
        ("GPU", 50, ""),
    ]


def test_an_unknown_capacity_is_none_and_said(cluster: Cluster, viewer: User) -> None:
    Cluster.objects.update(capacity=None)
    cluster.refresh_from_db()
    assert nodes_of(cluster) is None
    text = _sign_in(viewer).get(reverse("cluster-detail", args=["local"])).content.decode()
    assert "The room is not known" in text


@pytest.mark.parametrize(
    ("statuses", "word"),
    [
        ([], "unknown"),
        (["pass"], "pass"),
        (["unknown"], "unknown"),
        (["pass", "unknown"], "pass"),
        (["fail", "unknown"], "fail"),
    ],
)
def test_one_word_over_all_checks(statuses: list[str], word: str) -> None:
    checks = [{"name": "x", "status": status, "evidence": ""} for status in statuses]
    assert health(Cluster(checks=checks)) == word


@pytest.mark.parametrize(
    ("statuses", "words"),
    [
        (["pass", "pass"], "2 of 2 pass"),
        (["pass", "unknown"], "1 of 2 pass, 1 unknown"),
        (["fail", "unknown", "fail"], "0 of 3 pass, 2 fail, 1 unknown"),
    ],
)
def test_the_checks_are_counted_in_words(statuses: list[str], words: str) -> None:
    checks = [{"name": "x", "status": status, "evidence": ""} for status in statuses]
    assert tally(Cluster(checks=checks)) == words


def test_the_detail_shows_checks_with_evidence_and_remedy(cluster: Cluster, viewer: User) -> None:
    text = _sign_in(viewer).get(reverse("cluster-detail", args=["local"])).content.decode()
    assert "no such file" in text
    assert "Start the router." in text
    assert "http://127.0.0.1:27998" in text


@pytest.mark.parametrize("name", ["cluster-list", "cluster-attach"])
def test_only_an_administrator_is_offered_to_attach(
    name: str, cluster: Cluster, viewer: User, deployer: User, administrator: User
) -> None:
    url = reverse("cluster-list")
    offer = reverse("cluster-attach")
    assert offer not in _sign_in(viewer).get(url).content.decode()
    assert offer not in _sign_in(deployer).get(url).content.decode()
    assert offer in _sign_in(administrator).get(url).content.decode()
    assert _sign_in(deployer).get(offer).status_code == 403


def _attach(**more: str) -> dict[str, str]:
    return {
        "name": "local",
        "kind": "process",
        "purpose": "DevTest",
        "sku": "this machine",
        "router_url": "http://127.0.0.1:8080/",
        **more,
    }


def test_this_machine_is_attached(skus: None, administrator: User, seen: list[str]) -> None:
    answer = _sign_in(administrator).post(reverse("cluster-attach"), _attach())
    assert answer.url == reverse("cluster-detail", args=["local"])
    cluster = Cluster.objects.get()
    assert cluster.router_url == "http://127.0.0.1:8080"
    assert cluster.checked_at is not None
    assert cluster.created_by == administrator


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "other"}, "name"),
        ({"kind": "docker", "name": "engine", "engine_url": "http://x"}, "engine_url"),
        ({"kind": "docker", "name": "engine", "engine_url": "tcp://10.0.0.5:2376"}, "engine_ca"),
        ({"kind": "kubernetes", "name": "kube"}, "kubeconfig"),
        ({"sku": "Standard_Unheard"}, "sku"),
        ({"router_url": "127.0.0.1:8080"}, "router_url"),
        ({"router_url": "ftp://127.0.0.1"}, "router_url"),
        ({"router_url": "http://user:password@host"}, "router_url"),
        ({"router_url": "http://host/path"}, "router_url"),
        ({"router_url": "http://a b.com"}, "router_url"),
        ({"purpose": "FastProd"}, "purpose"),
    ],
)
def test_what_cannot_be_attached_is_said_beside_its_field(
    sent: dict[str, str], field: str, skus: None, administrator: User, seen: list[str]
) -> None:
    answer = _sign_in(administrator).post(reverse("cluster-attach"), _attach(**sent))
    assert answer.status_code == 422
    assert answer.context["form"].errors[field]
    assert not Cluster.objects.exists()


def test_skus_are_offered_by_family_with_their_size(skus: None, administrator: User) -> None:
    text = _sign_in(administrator).get(reverse("cluster-attach")).content.decode()
    for label in ("Azure, CPU", "Azure, GPU", "Azure, FPGA", "AWS, GPU", "Google, CPU", "Own, CPU"):
        assert f'<optgroup label="{label}">' in text
    assert "Standard_NC6 (6 vCPU, 56 GiB, NVIDIA Tesla K80)" in text


def test_checks_are_run_again_by_a_deployer_and_not_by_a_viewer(
    cluster: Cluster, viewer: User, deployer: User, seen: list[str]
) -> None:
    url = reverse("cluster-check", args=["local"])
    assert _sign_in(viewer).post(url).status_code == 403
    assert seen == []
    answer = _sign_in(deployer).post(url, headers={"HX-Request": "true"})
    assert "<html" not in answer.content.decode()
    assert seen == ["local"]
    cluster.refresh_from_db()
    assert len(cluster.checks) == 1


def test_detaching_is_refused_while_services_stand_and_names_them(
    cluster: Cluster, administrator: User
) -> None:
    Service.objects.create(name="diabetes", cluster=cluster)
    url = reverse("cluster-detach", args=["local"])
    answer = _sign_in(administrator).post(url, follow=True)
    assert "local still runs diabetes" in answer.content.decode()
    assert Cluster.objects.exists()


@pytest.mark.parametrize("who", ["viewer", "deployer"])
def test_detaching_is_an_administrators(
    who: str, cluster: Cluster, request: pytest.FixtureRequest
) -> None:
    person = request.getfixturevalue(who)
    assert _sign_in(person).post(reverse("cluster-detach", args=["local"])).status_code == 403


def test_an_empty_cluster_is_detached(cluster: Cluster, administrator: User) -> None:
    _sign_in(administrator).post(reverse("cluster-detach", args=["local"]))
    assert not Cluster.objects.exists()


@pytest.mark.parametrize(("silent", "word"), [(29, "connected"), (31, "late"), (None, "unknown")])
def test_the_routers_freshness_is_said(
    silent: int | None, word: str, cluster: Cluster, viewer: User
) -> None:
    if silent is not None:
        Cluster.objects.update(router_seen_at=timezone.now() - timezone.timedelta(seconds=silent))
    answer = _sign_in(viewer).get(reverse("cluster-detail", args=["local"]))
    assert answer.context["router"] == word


def test_the_list_costs_the_same_for_one_cluster_and_for_three(
    cluster: Cluster, viewer: User, django_assert_num_queries: Callable
) -> None:
    client = _sign_in(viewer)
    with django_assert_num_queries(3):
        client.get(reverse("cluster-list"))
    for name in ("two", "three"):
        Cluster.objects.create(name=name, sku=cluster.sku, router_url="http://x")
    with django_assert_num_queries(3):
        client.get(reverse("cluster-list"))
