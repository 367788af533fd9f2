from dataclasses import replace

import pytest

from deployments.drivers import kubernetes_router as shapes
from deployments.types import (
    KubeSettings,
    NodeCapacity,
    Purpose,
    ReplicaRoute,
    RouteReport,
    RouterPods,
    RouteState,
)

SETTINGS = KubeSettings("models", router_image="registry.example.com/slipway/router:1")
FAST = replace(SETTINGS, purpose=Purpose.FAST_PROD)


def made(settings: KubeSettings = SETTINGS, **more: object) -> dict[str, shapes.Object]:
    return {place.body["kind"]: place.body for place in shapes.objects(settings, "c", "t", **more)}


def pod(settings: KubeSettings = SETTINGS) -> shapes.Object:
    return made(settings)["Deployment"]["spec"]["template"]["spec"]


def test_every_object_says_whose_it_is_and_stands_in_the_namespace() -> None:
    for place in shapes.objects(FAST, "c", "t"):
        assert "/namespaces/models/" in place.path
        assert place.body["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "slipway"
        assert place.body["metadata"]["labels"]["slipway.dev/part"] == "router"
        assert place.path.endswith("/" + place.body["metadata"]["name"])


def test_how_many_pods_there_are_is_in_nothing_that_is_applied() -> None:
    assert "replicas" not in made(FAST)["Deployment"]["spec"]


def test_a_pod_is_restricted() -> None:
    spec = pod()
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    [container] = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_token_is_in_its_secret_alone() -> None:
    for place in shapes.objects(SETTINGS, "c", "hush-hush"):
        assert ("hush-hush" in str(place.body)) == (place.body["kind"] == "Secret")


def test_no_variables_of_services_are_taken_for_settings() -> None:
    assert pod()["enableServiceLinks"] is False


@pytest.mark.parametrize("purpose", [Purpose.FAST_PROD, Purpose.DENSE_PROD])
def test_production_pods_are_kept_apart(purpose: Purpose) -> None:
    apart = pod(replace(SETTINGS, purpose=purpose))["affinity"]["podAntiAffinity"]
    assert len(apart) == 1
    assert ("requiredDuringSchedulingIgnoredDuringExecution" in apart) == (
        purpose is Purpose.FAST_PROD
    )


def test_where_each_pod_has_a_node_an_update_needs_no_further_one() -> None:
    assert made(FAST)["Deployment"]["spec"]["strategy"]["rollingUpdate"] == {
        "maxUnavailable": 1,
        "maxSurge": 0,
    }
    assert made()["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_a_budget_is_for_several_pods_and_of_the_servers_version() -> None:
    assert "PodDisruptionBudget" not in made()
    assert made(FAST, budgets="policy/v1beta1")["PodDisruptionBudget"]["apiVersion"] == (
        "policy/v1beta1"
    )
    assert "PodDisruptionBudget" not in made(FAST, budgets=None)


def test_the_role_writes_nothing_but_counts_marks_and_its_lease() -> None:
    writes = {
        resource
        for rule in shapes.role()
        for resource in rule["resources"]
        if set(rule["verbs"]) - {"get", "list", "watch"}
    }
    assert writes == {"pods", "deployments/scale", "leases"}
    [lease] = [rule for rule in shapes.role() if rule["resources"] == ["leases"]]
    assert lease["resourceNames"] == [shapes.NAME]
    assert not any("*" in rule["resources"] + rule["verbs"] for rule in shapes.role())


def test_the_inner_door_is_for_the_routers_own_pods() -> None:
    policy = made(api_addresses=["10.0.0.1", "fd00::1"])["NetworkPolicy"]["spec"]
    for rule in policy["ingress"]:
        if shapes.PEER_PORT in [port["port"] for port in rule["ports"]]:
            assert rule["from"] == [{"podSelector": {"matchLabels": shapes.selector()}}]
    blocks = [item["ipBlock"]["cidr"] for item in policy["ingress"][2]["from"] if "ipBlock" in item]
    assert blocks == ["10.0.0.1/32", "fd00::1/128"]


@pytest.mark.parametrize(
    ("kind", "port", "expected"),
    [("NodePort", 30080, 30080), ("ClusterIP", 30080, None), ("LoadBalancer", None, None)],
)
def test_the_service_is_of_the_type_asked_for(
    kind: str, port: int | None, expected: int | None
) -> None:
    spec = made(replace(SETTINGS, service_type=kind, node_port=port))["Service"]["spec"]
    assert spec["type"] == kind
    assert spec["ports"][0].get("nodePort") == expected


def node(cores: float, gib: float = 64.0) -> NodeCapacity:
    return NodeCapacity(f"node-{cores}", 8.0, cores, 64.0, gib)


def test_how_many_more_pods_there_may_be_is_what_nodes_are_left() -> None:
    found = {"spec": {"replicas": 3}}
    five = [node(0.1)] * 5
    assert shapes.size(found, Purpose.FAST_PROD, five) == RouterPods(3, 3, 10, 2)
    assert shapes.size(found, Purpose.FAST_PROD, five[:2]).free == 0
    assert shapes.size(found, Purpose.FAST_PROD, None).free is None


def test_where_pods_may_share_a_node_it_is_what_there_is_room_for() -> None:
    found = {"spec": {"replicas": 3}}

    def free(*nodes: NodeCapacity) -> int | None:
        return shapes.size(found, Purpose.DENSE_PROD, nodes).free

    assert free(node(0.49)) == 0
    assert free(node(0.5)) == 1
    assert free(node(1.6), node(0.4), node(0.5)) == 4
    assert free(node(4.0, gib=1.2)) == 2  # memory is short there
    assert free(node(-1.0)) == 0
    assert shapes.size(found, Purpose.DENSE_PROD, None).free is None
    one = shapes.size({"spec": {"replicas": 1}}, Purpose.DEV_TEST, [node(1.0)])
    assert (one.least, one.most) == (1, 1)


def report(at: float, **states: RouteState) -> RouteReport:
    return RouteReport(at, tuple(ReplicaRoute(name, state, 1) for name, state in states.items()))


def test_a_replica_is_in_rotation_where_every_pod_has_it_so() -> None:
    within, out = RouteState.IN_ROTATION, RouteState.OUT
    told = shapes.together([report(5, a=within, b=within, c=out), report(4, a=within, c=out)])
    assert told is not None
    assert told.at == 4
    assert {route.replica: (route.state, route.busy) for route in told.routes} == {
        "a": (within, 2),
        "b": (RouteState.DRAINING, 1),
        "c": (out, 2),
    }
    assert shapes.together([]) is None
