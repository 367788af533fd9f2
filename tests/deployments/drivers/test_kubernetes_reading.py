"""Pods as an API server shows them become replicas with a phase, and a cause a person can act on."""

import base64
import hashlib
import json
from dataclasses import replace

import pytest

from deployments.codec import to_json
from deployments.drivers import kubernetes_names as names
from deployments.drivers import kubernetes_reading as reading
from deployments.drivers import kubernetes_replicas as replicas
from deployments.drivers import kubernetes_room as room
from deployments.drivers.kubernetes_reading import Reader, Seen
from deployments.types import (
    EnvironmentSpec,
    FileSpec,
    NodeCapacity,
    Phase,
    Replica,
    RevisionSpec,
    Scaling,
    ServiceSpec,
    Toleration,
    VersionSpec,
)

REVISION = RevisionSpec(
    service="iris",
    number=2,
    source=FileSpec("project.zip", "a" * 64, 1),
    entry_script="score.py",
    models=(),
    environment=EnvironmentSpec("h", "registry/env:1"),
)
SPEC = ServiceSpec("iris", (VersionSpec("default", REVISION, Scaling(minimum=1, maximum=5)),))
NOW = 1_800_000_000.0
STARTED, ENDED = "2026-11-22T23:00:10Z", "2026-11-22T23:00:20Z"


def secret(spec: ServiceSpec = SPEC, version: str = "1") -> dict:
    text = base64.b64encode(json.dumps(to_json(spec)).encode()).decode()
    labels = names.labels(names.SERVICES, service=spec.name)
    meta = {"name": f"s-{spec.name}", "uid": f"s-{spec.name}", "resourceVersion": version}
    return {"metadata": {**meta, "labels": labels}, "data": {names.SPEC_KEY: text}}


def deployment(replicas: int = 1, version: str = "1", **more: object) -> dict:
    labels = names.labels(names.MODEL, service="iris", version="default", revision=2)
    meta = {"name": "iris-default", "uid": "d", "resourceVersion": version, "labels": labels}
    return {"metadata": meta, "spec": {"replicas": replicas}, **more}


def status(name: str = "model", restarts: int = 0, **states: dict) -> dict:
    return {"name": name, "image": "registry/env:1", "restartCount": restarts, **states}


def ended(code: int = 1, message: str = "", **more: object) -> dict:
    return {
        "terminated": {
            "exitCode": code, "message": message, "startedAt": STARTED, "finishedAt": ENDED, **more
        }
    }  # fmt: skip


FETCHED = status("fetch", state=ended(0))
RUNS = {"running": {"startedAt": STARTED}}


def pod(
    *containers: dict,
    init: tuple[dict, ...] = (FETCHED,),
    ready: str = "False",
    ready_since: str = "2026-11-22T23:00:05Z",
    node: str = "n1",
    scheduled: dict | None = None,
    version: str = "1",
    uid: str = "p",
    phase: str = "Running",
    **meta: object,
) -> dict:
    labels = names.labels(names.MODEL, service="iris", version="default", revision=2)
    return {
        "metadata": {
            "name": f"iris-default-{uid}",
            "uid": uid,
            "resourceVersion": version,
            "labels": labels,
            "creationTimestamp": "2026-11-22T23:00:00Z",
            **meta,
        },
        "spec": {"nodeName": node} if node else {},
        "status": {
            "phase": phase,
            "podIP": "10.0.0.9" if node else "",
            "conditions": [
                {"type": "Ready", "status": ready, "lastTransitionTime": ready_since},
                *([{"type": "PodScheduled", **scheduled}] if scheduled else []),
            ],
            "initContainerStatuses": list(init),
            "containerStatuses": list(containers),
        },
    }


def event(reason: str, message: str, uid: str = "p", at: float = 1.0, count: int = 1) -> dict:
    return {"uid": uid, "reason": reason, "message": message, "at": at, "count": count}


def read(
    found: dict, *events: dict, tail: str = "", nodes: tuple[NodeCapacity, ...] = ()
) -> Replica:
    return replicas.replica(found, REVISION, "default", events, tail, nodes)


def waiting(reason: str, message: str = "") -> dict:
    return {"waiting": {"reason": reason, "message": message}}


def test_a_replica_that_is_ready() -> None:
    found = read(pod(status(state=RUNS), ready="True"))
    assert (found.phase, found.address, found.node) == (Phase.READY, "10.0.0.9:5001", "n1")
    assert (found.id, found.revision, found.cause) == ("iris-default-p", 2, None)
    assert found.ready_at == found.created_at + 5


@pytest.mark.parametrize(
    ("found", "phase"),
    [
        (pod(init=(), node="", phase="Pending"), Phase.SCHEDULING),
        (pod(init=(), phase="Pending"), Phase.PULLING),
        (pod(status(state=waiting("PodInitializing")), init=(status("fetch", state=RUNS),)), Phase.PULLING),
        (pod(status(state=waiting("ContainerCreating"))), Phase.PULLING),
        (pod(status(state=RUNS)), Phase.LOADING),
        (pod(status(state=RUNS), ready="True", deletionTimestamp=ENDED), Phase.DRAINING),
        (pod(status(state=ended(1))), Phase.CRASHED),
        (pod(status(state=waiting("CrashLoopBackOff"), lastState=ended(1), restarts=3)), Phase.CRASHED),
        (pod(phase="Failed"), Phase.STOPPED),
    ],
)  # fmt: skip
def test_where_a_pod_stands(found: dict, phase: Phase) -> None:
    assert read(found).phase is phase


def test_the_scheduler_is_told_in_its_own_words_with_the_nodes_that_came_closest() -> None:
    message = "0/2 nodes are available: 2 Insufficient memory."
    said = {"status": "False", "reason": "Unschedulable", "message": message}
    nodes = (NodeCapacity("a", 4, 0.1, 8, 0.1), NodeCapacity("b", 4, 3, 8, 0.4))
    cause = read(pod(init=(), node="", scheduled=said), nodes=nodes).cause
    assert cause.code == "PodUnschedulable"
    assert "2 Insufficient memory" in cause.message
    assert "asks for 0.1 cores, 0.5 GiB" in cause.message
    assert cause.message.index("Closest: b (") < cause.message.index("a (0.1 of 4 cores")


def test_a_cluster_autoscaler_at_work_is_waited_for_until_it_gives_up() -> None:
    said = {"status": "False", "message": "0/1 nodes are available: 1 Insufficient cpu."}
    found = pod(init=(), node="", scheduled=said)
    up = event("TriggeredScaleUp", "pod triggered scale-up: [{group 1->2 (max: 5)}]", at=1)
    down = event("NotTriggerScaleUp", "max node group size reached", at=2)
    assert read(found, up).cause.code == "NodesComing"
    assert read(found, up, down).cause.code == "PodUnschedulable"


def test_an_image_that_is_not_there_is_told_in_the_registrys_words() -> None:
    found = pod(
        status(state=waiting("ImagePullBackOff", 'Back-off pulling image "registry/env:1"'))
    )
    said = event("Failed", 'Failed to pull image "registry/env:1": manifest unknown')
    cause = read(found, said).cause
    assert cause.code == "ImagePullBackOff"
    assert "registry/env:1" in cause.message
    assert "manifest unknown" in cause.message


def test_an_image_of_slipways_own_has_another_remedy() -> None:
    first = status("fetch", state=waiting("ErrImagePull", "not found")) | {
        "image": "registry/router:1"
    }
    found = read(pod(status(state=waiting("PodInitializing")), init=(first,)))
    assert found.phase is Phase.PULLING
    assert "registry/router:1" in found.cause.message
    assert "Slipway's own" in found.cause.message


def test_out_of_memory() -> None:
    killed = ended(137, reason="OOMKilled")
    found = read(pod(status(state=waiting("CrashLoopBackOff"), lastState=killed, restarts=1)))
    assert found.cause.code == "PodOutOfMemory"
    assert (found.last_exit.signal, found.last_exit.oom, found.restarts) == (9, True, 1)


def test_what_it_said_last_is_the_evidence_and_names_the_cause() -> None:
    trace = (
        "azmlinfsrv - User's init function failed\n"
        "Encountered Exception Traceback (most recent call last):\n"
        '  File "score.py", line 3, in init\n    raise ValueError("the table is empty")\n'
        "ValueError: the table is empty\n\n"
        "The above exception was the direct cause of the following exception:\n"
    )
    crashed = pod(status(state=waiting("CrashLoopBackOff"), lastState=ended(3), restarts=1))
    found = read(crashed, tail=trace)
    assert found.cause.code == "UserScriptInitFailed"
    assert "the table is empty" in found.cause.evidence
    # until that is read, the few lines of the pod's status have to do
    short = pod(status(state=waiting("CrashLoopBackOff"), lastState=ended(3, trace), restarts=1))
    assert read(short).cause.code == "UserScriptInitFailed"


def test_a_start_that_takes_too_long() -> None:
    found = pod(status(state=RUNS, lastState=ended(137), restarts=1))
    said = event("Unhealthy", "Startup probe failed: HTTP probe failed with statuscode: 503")
    assert read(found, said, tail="Invoking user's init function").cause.code == "StartTimedOut"


def waiting_for_a_node() -> dict:
    words = {"status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}
    return pod(node="", phase="Pending", scheduled=words)


GONE = replicas.at("2026-11-22T23:30:00Z")


def asked_no_more(**more: object) -> dict:
    """One whose kubelet was started anew: not ready from then on, in the run in which it was."""
    since = "2026-11-22T23:30:00Z"
    return pod(status(state=RUNS, started=False), ready="False", ready_since=since, **more)


def not_heard_of(**more: object) -> dict:
    found = pod(status(state=RUNS, started=True), ready="False", **more)
    found["status"]["conditions"].append({"type": "ContainersReady", "status": "True"})
    return found


@pytest.mark.parametrize(
    "found",
    [
        pod(status(state=RUNS), ready="True", annotations={names.PORT: "8000", "other": "x"}),
        pod(status(state=RUNS), deletionTimestamp="2026-11-22T23:10:00Z"),
        pod(status(state=ended(3), restarts=2), init=(status("fetch", state=ended(11)),)),
        pod(status(state=RUNS, lastState=ended(137, reason="OOMKilled"), restarts=4)),
        pod(phase="Failed")
        | {"status": {"phase": "Failed", "reason": "Evicted", "message": "disk"}},
        waiting_for_a_node(),
        not_heard_of(),
        asked_no_more(),
    ],
    ids=[
        "ready",
        "leaving",
        "no files",
        "out of memory",
        "evicted",
        "no node",
        "node unheard",
        "not asked",
    ],  # fmt: skip
)
def test_what_is_kept_of_a_pod_is_all_that_is_read_of_it(found: dict) -> None:
    more = {"type": "Initialized", "status": "True", "message": "x" * 500}
    found["status"].setdefault("conditions", []).append(more)
    found["metadata"]["managedFields"] = [{"manager": "kubelet", "fieldsV1": {"f": "x" * 5000}}]
    found["metadata"]["ownerReferences"] = [{"kind": "ReplicaSet", "name": "x" * 100}]
    found["spec"]["volumes"] = [{"name": "x" * 1000}]
    slim = replicas.slim(found)
    assert read(slim) == read(found)
    assert replicas.ended_container(slim) == replicas.ended_container(found)
    assert "xxx" not in json.dumps(slim)


def test_a_replica_whose_node_is_silent_is_not_ready_and_may_be_asked() -> None:
    found = read(not_heard_of())
    assert (found.phase, found.unheard) == (Phase.LOADING, True)
    assert found.cause is not None
    assert found.cause.code == "NodeNotReady"
    assert "the node n1" in found.cause.message


@pytest.mark.parametrize(
    ("events", "unheard"),
    [
        ([], True),
        ([event("Unhealthy", "Readiness probe failed: 503", at=GONE - 31)], True),
        ([event("Unhealthy", "Readiness probe failed: 503", at=GONE - 30)], False),
        ([event("Unhealthy", "Readiness probe failed: 503", at=GONE + 1)], False),
        ([event("Unhealthy", "Readiness probe failed: 503", at=GONE - 600, count=15)], False),
        ([event("Pulled", "Container image already present", at=GONE)], True),
    ],
)
def test_a_replica_that_a_new_kubelet_has_not_asked_yet_may_be_asked(
    events: list[dict], unheard: bool
) -> None:
    found = read(asked_no_more(), *events)
    assert (found.phase, found.unheard) == (Phase.LOADING, unheard)


def test_a_replica_that_was_started_again_was_not_ready_in_this_run() -> None:
    again = {"running": {"startedAt": "2026-11-22T23:30:00Z"}}
    found = pod(status(state=again, restarts=1), ready="False", ready_since="2026-11-22T23:30:00Z")
    assert not read(found).unheard


@pytest.mark.parametrize(
    "found",
    [
        pod(status(state=RUNS), ready="True"),
        pod(status(state=RUNS, started=True)),  # its own node says that it is not ready
        not_heard_of(deletionTimestamp="2026-11-22T23:10:00Z"),
        not_heard_of(phase="Failed"),
        asked_no_more(deletionTimestamp="2026-11-22T23:30:00Z"),
        asked_no_more() | {"spec": {"nodeName": "n1", "readinessGates": [{"conditionType": "x"}]}},
        not_heard_of() | {"spec": {"nodeName": "n1", "readinessGates": [{"conditionType": "x"}]}},
    ],
    ids=[
        "ready",
        "not ready",
        "leaving",
        "evicted",
        "left unasked",
        "gate unasked",
        "not ready for another reason",
    ],  # fmt: skip
)
def test_a_replica_that_its_node_speaks_for_is_what_it_says(found: dict) -> None:
    assert not read(found).unheard
    assert not read(replicas.slim(found)).unheard


def test_texts_that_pods_share_are_held_once() -> None:
    one, two = (
        replicas.slim(json.loads(json.dumps(pod(status(state=RUNS), uid=uid)))) for uid in "ab"
    )
    assert one["metadata"]["labels"][names.SERVICE] is two["metadata"]["labels"][names.SERVICE]
    images = [item["status"]["containerStatuses"][0]["image"] for item in (one, two)]
    assert images[0] is images[1]


@pytest.mark.parametrize(("count", "over"), [(9, False), (10, True)])
def test_a_start_that_is_over_is_one_before_its_node_ends_it(count: int, over: bool) -> None:
    found = pod(status(state=RUNS))
    found["spec"]["containers"] = [{"name": "model", "startupProbe": {"failureThreshold": 10}}]
    slim = replicas.slim(found)
    said = event("Unhealthy", "Startup probe failed: statuscode: 503", count=count)
    seen = read(slim, said, tail="Invoking user's init function")
    assert seen.phase is (Phase.CRASHED if over else Phase.LOADING)
    assert (seen.cause.code if seen.cause else "") == ("StartTimedOut" if over else "")
    model = replicas.EndedContainer("model", 0, False)
    assert replicas.ended_container(slim, [said]) == (model if over else None)


def test_a_replica_that_stopped_answering() -> None:
    died = pod(status(state=RUNS, lastState=ended(137), restarts=1))
    said = event("Unhealthy", "Liveness probe failed: context deadline exceeded")
    assert read(died, said).cause.code == "Unresponsive"
    # it lives, and takes no requests
    not_ready = pod(status(state=RUNS) | {"started": True})
    cause = read(not_ready, event("Unhealthy", "Readiness probe failed: statuscode: 503")).cause
    assert cause.code == "Unresponsive"
    assert "statuscode: 503" in cause.message


def test_a_missing_secret_is_a_matter_of_its_configuration() -> None:
    message = 'secret "slipway-files-iris-r2" not found'
    found = read(pod(status(state=waiting("CreateContainerConfigError", message))))
    assert found.cause.code == "CreateContainerConfigError"
    assert message in found.cause.message
    mounted = pod(init=(status("fetch", state=waiting("PodInitializing")),))
    cause = read(mounted, event("FailedMount", f"MountVolume failed: {message}")).cause
    assert cause.code == "CreateContainerConfigError"


def test_files_that_did_not_come() -> None:
    failed = status("fetch", 2, state=waiting("CrashLoopBackOff"), lastState=ended(10, "no route"))
    found = read(pod(status(state=waiting("PodInitializing")), init=(failed,)))
    assert found.phase is Phase.CRASHED
    assert "no route" in found.cause.message


@pytest.mark.parametrize(
    ("message", "code", "said"),
    [
        (
            'pods "x" is forbidden: exceeded quota: few, requested: requests.cpu=100m, used: '
            "requests.cpu=1, limited: requests.cpu=1",
            "PodUnschedulable",
            "quota few does not let a replica of iris be made: it asks for requests.cpu=100m",
        ),
        (
            'pods "x" is forbidden: failed quota: few: must specify limits.cpu',
            "PodUnschedulable",
            "Set cpu_cores_limit",
        ),
        (
            'admission webhook "rules" denied the request: no images from registry',
            "AdmissionRefused",
            "no images from registry",
        ),
    ],
)  # fmt: skip
def test_pods_that_are_not_even_made_stand_for_themselves(
    message: str, code: str, said: str
) -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "message": message}
    seen = Seen({"d": deployment(status={"conditions": [failure]})}, {}, {"s": secret()})
    (replica,) = Reader().observe(seen, NOW).services[0].replicas
    assert (replica.phase, replica.cause.code) == (Phase.SCHEDULING, code)
    assert said in replica.cause.message
    # one that is there already is not one that is missing
    enough = Seen(seen.deployments, {"p": pod(status(state=RUNS))}, seen.secrets)
    assert len(Reader().observe(enough, NOW).services[0].replicas) == 1


def test_what_did_not_change_is_the_same_object() -> None:
    reader = Reader()
    pods = {"p": pod(status(state=RUNS), ready="True")}
    deployments, secrets = {"d": deployment(2)}, {"s": secret()}
    first = reader.observe(Seen(deployments, pods, secrets), NOW).services[0]
    again = reader.observe(Seen(dict(deployments), dict(pods), secrets), NOW + 1)
    assert (again.services[0] is first, again.at) == (True, NOW + 1)
    same = reader.observe(Seen(deployments, pods, secrets), NOW + 2)
    assert (same.services[0] is first, same.at) == (True, NOW + 2)
    assert first.desired[0].desired == 2
    told = Seen(deployments, pods, secrets, events={"e": event("Unhealthy", "x")})
    changed = reader.observe(told, NOW).services[0]
    assert changed is not first
    newer = {"p": pod(status(state=RUNS), ready="False", version="2")}
    last = reader.observe(Seen({"d": deployment(2)}, newer, {"s": secret()}), NOW).services[0]
    assert last.replicas[0].phase is Phase.LOADING


def test_a_service_without_its_deployment_yet_wants_its_least() -> None:
    found = Reader().observe(Seen({}, {}, {"s": secret()}), NOW).services[0]
    assert (found.desired[0].desired, found.replicas) == (1, ())


def test_pods_whose_service_is_gone_are_orphans() -> None:
    going = pod(status(state=RUNS), deletionTimestamp=ENDED)
    found = Reader().observe(Seen({}, {"p": going}, {}), NOW)
    assert found.services == ()
    assert [item.service for item in found.orphans] == ["iris"]
    # its Deployment may go a moment later than its spec
    late = Reader().observe(Seen({"d": deployment()}, {"p": going}, {}), NOW)
    assert late.services == ()


def test_a_spec_that_cannot_be_read_is_none() -> None:
    broken = secret() | {"data": {names.SPEC_KEY: "!"}}
    assert Reader().observe(Seen({}, {}, {"s": broken}), NOW).services == ()


def foreign(name: str, labels: dict | None = None, **notes: str) -> dict:
    return {
        "metadata": {
            "name": name,
            "uid": name,
            "resourceVersion": "1",
            "generation": 4,
            "labels": {names.PART: "model", names.SERVICE: "web", **(labels or {})},
            "annotations": {f"slipway.dev/{key.replace('_', '-')}": text for key, text in notes.items()},
        },
        "spec": {"replicas": 2, "template": {"spec": {"containers": [{"image": "web:1"}]}}},
    }  # fmt: skip


def test_a_service_that_somebody_made_by_hand() -> None:
    keys = {"metadata": {"name": "k", "uid": "k", "resourceVersion": "1",
                         "labels": {names.PART: "keys"}},
            "data": {"one": base64.b64encode(b"let me in\n").decode()}}  # fmt: skip
    made = {
        "a": foreign("a", concurrency="4", autoscale="2-6", keys="k", port="80"),
        "b": foreign("b", {names.VERSION: "new"}, traffic_percent="10"),
    }
    found = Reader().observe(Seen(made, {}, {"k": keys}), NOW).services[0]
    first, second = found.spec.versions
    assert (first.name, first.traffic_percent, first.is_default) == ("default", 90, True)
    assert (second.name, second.traffic_percent, second.is_default) == ("new", 10, False)
    assert first.scaling == Scaling(True, 2, 6)
    assert second.scaling == Scaling(False, 2, 2)
    assert (first.revision.concurrency, first.revision.container.port) == (4, 80)
    assert found.spec.auth.key_digests == (hashlib.sha256(b"let me in").hexdigest(),)


def test_keys_that_are_not_there_let_nobody_in() -> None:
    named = Reader().observe(Seen({"a": foreign("a", keys="k")}, {}, {}), NOW).services[0].spec.auth
    assert (named.key_enabled, named.key_digests) == (True, ())
    none = Reader().observe(Seen({"a": foreign("a")}, {}, {}), NOW).services[0].spec.auth
    assert none.key_enabled is False


def test_who_else_scales_a_version() -> None:
    target = {"kind": "Deployment", "name": "iris-default"}
    scalers = {
        "1": {"metadata": {"name": "cpu"}, "spec": {"scaleTargetRef": target}},
        "2": {"metadata": {"name": "x"}, "spec": {"scaleTargetRef": {**target, "name": "other"}}},
    }
    found = reading.other_scalers(scalers, {"d": deployment()}, [SPEC])
    assert found == {("iris", "default"): "HorizontalPodAutoscaler cpu"}


def test_whose_last_words_are_read() -> None:
    crashed = pod(status(state=RUNS, lastState=ended(1), restarts=2))
    assert replicas.ended_container(crashed) == replicas.EndedContainer("model", 2, True)
    now = pod(status(state=ended(1)))
    assert replicas.ended_container(now) == replicas.EndedContainer("model", 0, False)
    assert replicas.ended_container(pod(status(state=RUNS))) is None
    well = pod(status(state=RUNS, lastState=ended(1), restarts=2), ready="True")
    assert replicas.ended_container(well) is None


def node(
    name: str = "n1", *, labels: dict | None = None, taints: tuple = (), **spec: object
) -> dict:
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"taints": list(taints), **spec},
        "status": {
            "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "3", "nvidia.com/gpu": "2"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def asks(cpu: str = "1", node: str = "n1", phase: str = "Running", gpu: str = "0") -> dict:
    limits = {"memory": "1Gi", "nvidia.com/gpu": gpu}
    container = {"resources": {"requests": {"cpu": cpu}, "limits": limits}}
    init = {"resources": {"requests": {"cpu": "2500m"}}}
    return {
        "spec": {"nodeName": node, "containers": [container], "initContainers": [init]},
        "status": {"phase": phase},
    }


def free(nodes: list[dict], pods: list[dict], **more: object) -> dict[str, NodeCapacity]:
    slim = [kept for item in pods if (kept := room.slim_pod(item)) is not None]
    found = room.capacity(
        [room.slim_node(item) for item in nodes], slim, accelerator="nvidia.com/gpu", **more
    )
    return {item.name: item for item in found}


def test_room_is_what_is_allocatable_less_what_is_asked_for() -> None:
    found = free([node()], [asks(gpu="1"), asks(phase="Succeeded"), asks(node="")])["n1"]
    # a container before the others asks for more than they do
    assert (found.cpu_total, found.cpu_free) == (4, 1.5)
    assert (found.memory_gb_total, found.memory_gb_free) == (8, 7)
    assert (found.gpu_total, found.gpu_free) == (2, 1)


def test_nodes_that_take_no_pods_have_no_room() -> None:
    taint = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
    away = node("away") | {"status": {"allocatable": {"cpu": "4"}, "conditions": []}}
    nodes = [node("cordoned", unschedulable=True), node("tainted", taints=(taint,)), away]
    assert [item.cpu_free for item in free(nodes, []).values()] == [0, 0, 0]
    tolerant = free(nodes, [], tolerations=(Toleration("sku", "gpu"),))
    assert tolerant["tainted"].cpu_free == 4
    assert free([node()], [asks("0.1")] * 3)["n1"].cpu_free == 0  # as many pods as it takes


def test_only_nodes_that_models_may_go_to_count() -> None:
    nodes = [node("a", labels={"pool": "gpu"}), node("b")]
    assert set(free(nodes, [], selector={"pool": "gpu"})) == {"a"}


def test_events_keep_what_is_read_of_them() -> None:
    found = replicas.event(
        {
            "metadata": {"uid": "e", "creationTimestamp": STARTED},
            "involvedObject": {"uid": "p"},
            "reason": "Unhealthy",
            "message": "x",
            "lastTimestamp": None,
        }
    )
    assert found == {
        "uid": "p", "reason": "Unhealthy", "message": "x", "count": 1, "at": replicas.at(STARTED)
    }  # fmt: skip


def test_another_revisions_pod_is_of_that_one() -> None:
    older = pod(status(state=RUNS), ready="True")
    older["metadata"]["labels"][names.REVISION] = "1"
    newer = replace(SPEC, generation=2)
    seen = Seen({"d": deployment()}, {"p": older}, {"s": secret(newer)})
    (found,) = Reader().observe(seen, NOW).services[0].replicas
    assert (found.revision, found.version) == (1, "default")
