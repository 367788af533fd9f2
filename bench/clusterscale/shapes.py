"""The objects of a cluster that is only written down: services, their pods, nodes, the router's pod.

PURE. Services are made by the driver's own makers; a pod is what its Deployment's template says, with what a
scheduler and a kubelet would have added. Pods have addresses of 127.64.0.0/10: all of them are this machine.
"""

import copy
import ipaddress
from typing import Any

from deployments.drivers import kubernetes_names as names
from deployments.drivers import kubernetes_objects as objects
from deployments.drivers import kubernetes_pod as inside
from deployments.drivers import kubernetes_router as router
from deployments.types import (
    AuthSpec,
    EnvironmentSpec,
    FileSpec,
    KubeSettings,
    ModelSpec,
    Purpose,
    RevisionSpec,
    Scaling,
    ServiceSpec,
    VersionSpec,
)

Object = dict[str, Any]

NAMESPACE = "slipway-bench-scale"
CLUSTER = "scale"
MARK = "slipway.dev/bench"  # a label of all that is outside that namespace
PODS_A_NODE = 110
IMAGE = "registry.example/slipway/env-0123456789ab@sha256:" + "0" * 64
SETTINGS = KubeSettings(namespace=NAMESPACE, purpose=Purpose.FAST_PROD, router_image=IMAGE)
PLACE = objects.Place(SETTINGS, CLUSTER, budgets=objects.BUDGETS[1])
ROUTER_POD = "slipway-router-bench-0"
_FIRST = int(ipaddress.ip_address("127.64.0.1"))
_AT = "2026-01-01T00:00:00Z"


def spec(name: str, replicas: int) -> ServiceSpec:
    """As a person would have deployed it: a model, two keys, a range to scale in."""
    revision = RevisionSpec(
        service=name,
        number=1,
        source=FileSpec("project.zip", "0" * 64, 20_000),
        entry_script="score.py",
        models=(ModelSpec("model", 1, (FileSpec("model.onnx", "1" * 64, 5_000_000),)),),
        environment=EnvironmentSpec("e" * 64, IMAGE),
    )
    scaling = Scaling(autoscale=True, minimum=replicas, maximum=replicas)
    digests = tuple(f"{name}{number}".encode().hex().rjust(64, "0") for number in (1, 2))
    return ServiceSpec(
        name=name,
        versions=(VersionSpec("default", revision, scaling),),
        auth=AuthSpec(key_enabled=True, key_digests=digests),
    )


def address(number: int) -> str:
    return str(ipaddress.ip_address(_FIRST + number))


def pod(deployment: Object, number: int, port: int, nodes: int) -> Object:
    """Without its status: the API server takes that only afterwards. `number` is no other pod's."""
    meta, template = deployment["metadata"], deployment["spec"]["template"]
    set_name = f"{meta['name']}-6d5f9c7b4d"
    found: Object = copy.deepcopy(template)
    found["apiVersion"], found["kind"] = "v1", "Pod"
    found["metadata"] |= {
        "name": f"{set_name}-{number:05d}",
        "namespace": NAMESPACE,
        "labels": {**template["metadata"]["labels"], "pod-template-hash": "6d5f9c7b4d"},
        "annotations": {**template["metadata"]["annotations"], names.PORT: str(port)},
        "ownerReferences": [
            {
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set_name,
                "uid": meta["uid"], "controller": True, "blockOwnerDeletion": True,
            }
        ],
    }  # fmt: skip
    found["spec"]["nodeName"] = node_name(number % nodes)
    return found


def ready_status(number: int) -> Object:
    """What a kubelet writes of a pod that serves."""
    kinds = ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    ended = {"exitCode": 0, "reason": "Completed", "startedAt": _AT, "finishedAt": _AT}
    image = {"image": IMAGE, "imageID": IMAGE, "restartCount": 0, "ready": True}
    ip = address(number)
    return {
        "phase": "Running",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "hostIP": "10.0.0.1",
        "startTime": _AT,
        "qosClass": "Guaranteed",
        "conditions": [
            {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": _AT}
            for kind in kinds
        ],
        "initContainerStatuses": [
            {
                "name": inside.FETCH, **image,
                "containerID": "containerd://" + "2" * 64, "state": {"terminated": ended},
            }
        ],
        "containerStatuses": [
            {
                "name": inside.MODEL, **image, "started": True,
                "containerID": "containerd://" + "3" * 64,
                "state": {"running": {"startedAt": _AT}},
            }
        ],
    }  # fmt: skip


def node_name(number: int) -> str:
    return f"scale-{number:04d}"


def node(number: int) -> Object:
    room = {"cpu": "64", "memory": "256Gi", "pods": str(PODS_A_NODE)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node_name(number), "labels": {MARK: CLUSTER}},
        "status": {
            "capacity": room,
            "allocatable": room,
            "conditions": [
                {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
                 "lastHeartbeatTime": _AT, "lastTransitionTime": _AT},
            ],
        },
    }  # fmt: skip


def router_pod() -> Object:
    """The one that the loop under measurement takes itself for."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": ROUTER_POD,
            "namespace": NAMESPACE,
            "labels": names.labels(names.ROUTER, cluster=CLUSTER),
        },
        "spec": {
            "nodeName": node_name(0),
            "automountServiceAccountToken": False,
            "serviceAccountName": router.NAME,
            "containers": [{"name": router.CONTAINER, "image": IMAGE}],
        },
    }


def router_status() -> Object:
    return {
        "phase": "Running",
        "podIP": "127.0.0.1",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": _AT}],
    }
