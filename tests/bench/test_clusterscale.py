"""The cluster that is only written down looks to our code as a real one does."""

import pytest

from bench.clusterscale import report, shapes
from bench.clusterscale.__main__ import descriptors, lags
from bench.clusterscale.cluster import Cluster
from bench.routing.processes import BenchError
from deployments.drivers import kubernetes_objects as objects
from deployments.drivers import kubernetes_replicas
from deployments.drivers.kubernetes_room import capacity, slim_node, slim_pod
from deployments.kube.api import Listing
from deployments.types import Phase


def deployment() -> dict[str, object]:
    spec = shapes.spec("service-00001", 3)
    made = objects.deployment(spec, spec.versions[0], shapes.PLACE)
    made["metadata"]["uid"] = "0000"
    return made


def pod(number: int) -> dict[str, object]:
    made = shapes.pod(deployment(), number, 32100, 4)
    made["metadata"] |= {"uid": f"uid-{number}", "resourceVersion": "1"}
    return {**made, "status": shapes.ready_status(number)}


def test_a_pod_of_the_bench_is_read_as_a_ready_replica_of_its_service() -> None:
    found = kubernetes_replicas.replica(kubernetes_replicas.slim(pod(300)), None, "", (), "", ())
    assert (found.phase, found.service, found.version) == (Phase.READY, "service-00001", "default")
    assert found.address == "127.64.1.45:32100"
    assert found.ready_at is not None


def test_pods_stand_on_the_benchs_nodes_and_take_their_room() -> None:
    nodes = [slim_node(shapes.node(number)) for number in range(4)]
    pods = [slim for number in range(8) if (slim := slim_pod(pod(number)))]
    room = capacity(nodes, pods, accelerator="nvidia.com/gpu")
    assert len(pods) == 8
    assert [item.cpu_total - item.cpu_free for item in room] == pytest.approx([0.2] * 4)


def test_no_two_pods_share_an_address_or_a_name() -> None:
    made = [pod(number) for number in range(600)]
    assert len({item["metadata"]["name"] for item in made}) == 600
    assert len({item["status"]["podIP"] for item in made}) == 600


class Somebodys:
    """A cluster with one object."""

    def __init__(self, path: str, item: dict[str, object]) -> None:
        self.path, self.item = path, item

    def items(self, path: str, **_: str) -> Listing:
        return Listing([self.item] if path == self.path else [], "1")


@pytest.mark.parametrize(
    ("path", "meta"),
    [
        ("/api/v1/namespaces", {"name": "shop"}),
        ("/api/v1/nodes", {"name": "node-1"}),
        ("/api/v1/pods", {"name": "web", "namespace": "default"}),
        ("/apis/apps/v1/deployments", {"name": "web", "namespace": "default"}),
    ],
)
def test_a_cluster_that_holds_anything_else_is_refused(path: str, meta: dict[str, object]) -> None:
    cluster = Cluster(Somebodys(path, {"metadata": meta}), 1)
    with pytest.raises(BenchError, match=str(meta["name"])):
        cluster.refuse_others()


def test_what_a_killed_run_left_is_no_reason_to_refuse() -> None:
    node = {"metadata": {"name": "scale-0000", "labels": {shapes.MARK: "scale"}}}
    Cluster(Somebodys("/api/v1/nodes", node), 1).refuse_others()
    mine = {"metadata": {"name": "a", "namespace": shapes.NAMESPACE}}
    Cluster(Somebodys("/api/v1/pods", mine), 1).refuse_others()


def test_the_table_has_a_column_for_each_part_that_was_measured() -> None:
    text = report.table({"steady": {"turn_p50_ms": 4.0}, "scaled": {"turn_p50_ms": 7.5}})
    assert "nothing changes" in text
    assert "services" not in text.splitlines()[0]
    line = next(line for line in text.splitlines() if line.startswith("turn p50"))
    assert line.split()[-2:] == ["4.0", "7.5"]


@pytest.mark.parametrize(
    ("services", "backends"), [(20, 32), (32, 32), (33, 64), (513, 768), (1000, 1024), (1025, 1280)]
)
def test_the_descriptors_that_haproxy_asks_for_follow_its_pool(
    services: int, backends: int
) -> None:
    assert descriptors(services, 13) == backends * 13 + 700


def test_a_lag_ends_with_the_turn_that_gave_the_slot() -> None:
    def turn(at: float, *joined: str) -> dict[str, object]:
        return {"at": at, "took": 0.1, "joined": list(joined)}

    lines = [turn(10.0), turn(10.25, "b"), turn(10.5, "a")]
    ready = {"old": 9.0, "a": 10.1, "b": 10.2, "missing": 10.3}
    found = lags(ready, lines, 10.0)
    assert (found["became_ready"], found["were_given_a_slot"]) == (3, 2)
    assert found["lag_p50_ms"] == pytest.approx(325.0)  # 150 and 500
    assert found["lag_p99_ms"] == pytest.approx(500.0)
    assert (found["lag_turns_p50"], found["lag_turns_p99"]) == (1, 2)


def test_a_turn_that_had_begun_when_a_pod_became_ready_may_have_seen_it() -> None:
    found = lags({"a": 10.05}, [{"at": 10.0, "took": 0.2, "joined": ["a"]}], 9.0)
    assert found["lag_turns_p50"] == 1
    assert found["lag_p50_ms"] == pytest.approx(150.0)
