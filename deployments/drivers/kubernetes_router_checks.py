"""Whether a cluster's router starts, its pods find each other, and it reaches a pod.

The router is made where it is missing: that is what attaching a cluster means. The pod that it is to reach is
one of a service that runs; where none does, a Deployment of one small pod stands in for a moment, as somebody
might have made it with kubectl, and is removed again whatever happens.
"""

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from deployments.drivers import kubernetes_belongings as ours
from deployments.drivers import kubernetes_checks as checks
from deployments.drivers import kubernetes_names as names
from deployments.drivers import kubernetes_restricted as restricted
from deployments.drivers import kubernetes_router as shapes
from deployments.drivers import kubernetes_routers as routers
from deployments.drivers.kubernetes_checks import RouterPod
from deployments.errors import Conflict, NotFound, SlipwayError
from deployments.kube.api import Kube
from deployments.types import Check, CheckStatus, KubeSettings, RouteState

STAND_IN = "slipway-probe"
_LOOK_EVERY = 0.5
_SETTLE_SECONDS = 20.0  # for a leader to be found
_REACH_SECONDS = 60.0
_COMPLAINT = re.compile(r"the router's pod (\S+) cannot be read: (.*)")
_COMPLAINTS_FOR = 15.0  # seconds back that one still counts
_PORT = 8000
_SERVE = (
    "import http.server as h; "
    "H = type('H', (h.BaseHTTPRequestHandler,), {'do_GET': lambda s: (s.send_response(200), "
    "s.send_header('Content-Length', '0'), s.end_headers()), 'log_message': lambda *a: None}); "
    f"h.ThreadingHTTPServer(('', {_PORT}), H).serve_forever()"
)


def run(
    kube: Kube,
    settings: KubeSettings,
    cluster: str,
    *,
    say: Callable[[str], None],
    seconds: float,
) -> Iterator[Check]:
    """The three checks, in order; what cannot be asked any more is unknown, with why."""
    say("starting the router")
    try:
        starts = _starts(kube, settings, cluster, seconds)
    except SlipwayError as error:
        starts = Check(
            checks.ROUTER_STARTS,
            CheckStatus.FAIL,
            error.message,
            "Build its image with scripts/router-image, and name it."
            if error.code == "RouterImageMissing"
            else "See what the API server says.",
        )
    yield starts
    if starts.status is not CheckStatus.PASS:
        for name in (checks.ROUTER_PEERS, checks.ROUTER_POD):
            yield Check(name, CheckStatus.UNKNOWN, "the router does not run")
        return
    say("the router's pods find each other")
    yield _guarded(checks.ROUTER_PEERS, lambda: _peers(kube, settings))
    say("the router reaches a pod")
    yield _guarded(checks.ROUTER_POD, lambda: _reaches(kube, settings))


def _guarded(name: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except SlipwayError as error:
        return Check(name, CheckStatus.UNKNOWN, error.message)


def _starts(kube: Kube, settings: KubeSettings, cluster: str, seconds: float) -> Check:
    began = time.monotonic()
    routers.install_router(kube, settings, cluster)
    wanted = shapes.PODS[settings.purpose][0]
    while True:
        pods = [
            _seen(kube, settings.namespace, pod)
            for pod in routers.pods(kube, settings.namespace)
            if not shapes.leaving(pod)
        ]
        took = time.monotonic() - began
        found = checks.router_starts(pods, wanted, took)
        if found.status is CheckStatus.PASS or took > seconds:
            return found
        time.sleep(_LOOK_EVERY)


def _seen(kube: Kube, namespace: str, pod: Mapping[str, Any]) -> RouterPod:
    name, status = pod["metadata"]["name"], pod.get("status", {})
    words = ""
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            words = _placed(condition.get("message", ""))
    for container in status.get("containerStatuses") or ():
        state = container.get("state", {}).get("waiting") or {}
        if state.get("reason"):
            words = f"{state['reason']} {state.get('message', '')}".strip()
        ended = container.get("lastState", {}).get("terminated")
        if ended:
            words = f"ended with exit code {ended.get('exitCode')}: {_last(kube, namespace, name)}"
    return RouterPod(name, shapes.pod_ready(pod), pod.get("spec", {}).get("nodeName", ""), words)


def _placed(said: str) -> str:
    """The scheduler's words, after what they mean for a pod that wants a node for itself."""
    if "anti-affinity" not in said:
        return said
    return f"no node is free that has no pod of the router yet, and this purpose wants one for each: {said}"


def _last(kube: Kube, namespace: str, pod: str) -> str:
    """The last line that its run before said."""
    try:
        lines = list(kube.log(namespace, pod, shapes.CONTAINER, previous=True, tail=1))
    except SlipwayError:
        return ""
    return lines[-1].partition(" ")[2][:300] if lines else ""


def _peers(kube: Kube, settings: KubeSettings) -> Check:
    until = time.monotonic() + _SETTLE_SECONDS
    while True:
        pods = [
            pod["metadata"]["name"]
            for pod in routers.pods(kube, settings.namespace)
            if shapes.pod_ready(pod) and not shapes.leaving(pod)
        ]
        found = checks.router_peers(
            pods, routers.leader(kube, settings.namespace), _complaints(kube, settings, pods)
        )
        if found.status is CheckStatus.PASS or time.monotonic() > until:
            return found
        time.sleep(1.0)


def _complaints(kube: Kube, settings: KubeSettings, pods: list[str]) -> list[str]:
    """What pods lately said of those that are there still."""
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - _COMPLAINTS_FOR))
    found = {}
    for name in pods if len(pods) > 1 else ():
        with contextlib.suppress(NotFound, Conflict):
            for line in kube.log(settings.namespace, name, shapes.CONTAINER, since=since, tail=50):
                said = _COMPLAINT.search(line)
                if said and said[1] in pods:
                    found[name, said[1]] = f"{name} cannot read {said[1]}: {said[2][:200]}"
    return list(found.values())


def _reaches(kube: Kube, settings: KubeSettings) -> Check:
    running = _in_rotation(kube, settings)
    if running:
        words = f"{running} replica{'s' * (running != 1)} in rotation"
        return Check(checks.ROUTER_POD, CheckStatus.PASS, words)
    path = f"/apis/apps/v1/namespaces/{settings.namespace}/deployments"
    began = time.monotonic()
    try:
        kube.delete(f"{path}/{STAND_IN}")
        _until_gone(kube, f"{path}/{STAND_IN}")
        kube.create(path, _stand_in(settings))
        while time.monotonic() - began < _REACH_SECONDS:
            if _in_rotation(kube, settings):
                took = time.monotonic() - began
                words = f"a pod that was made for it, in rotation after {took:.0f} s"
                return Check(checks.ROUTER_POD, CheckStatus.PASS, words)
            time.sleep(_LOOK_EVERY)
    finally:
        with contextlib.suppress(SlipwayError):
            kube.delete(f"{path}/{STAND_IN}", "Foreground")
            _until_gone(kube, f"{path}/{STAND_IN}")
    return Check(
        checks.ROUTER_POD,
        CheckStatus.FAIL,
        f"a pod that was made for it was not in rotation within {_REACH_SECONDS:.0f} s",
        f"Router pods must reach model pods on their ports: see network policies, and a router pod's log in "
        f"{settings.namespace}.",
    )


def _in_rotation(kube: Kube, settings: KubeSettings) -> int:
    report = routers.routes(kube, settings.namespace)
    routes = report.routes if report is not None else ()
    return sum(1 for route in routes if route.state is RouteState.IN_ROTATION)


def _until_gone(kube: Kube, path: str) -> None:
    until = time.monotonic() + 30.0
    while time.monotonic() < until:
        try:
            kube.get(path)
        except NotFound:
            return
        time.sleep(0.2)


def _stand_in(settings: KubeSettings) -> dict[str, Any]:
    labels = {names.PART: names.MODEL, names.SERVICE: STAND_IN, names.VERSION: "default"}
    small = {"cpu": "50m", "memory": "64Mi"}
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "securityContext": restricted.pod(1000),
        "containers": [
            {
                "name": "model",
                "image": settings.router_image,
                "command": ["python3", "-c", _SERVE],
                "ports": [{"containerPort": _PORT}],
                "readinessProbe": {"httpGet": {"path": "/", "port": _PORT}, "periodSeconds": 1},
                "resources": {"requests": small, "limits": small},
                "securityContext": restricted.container(),
            }
        ],
    }
    if settings.pull_secret:
        pod["imagePullSecrets"] = [{"name": settings.pull_secret}]
    notes = {names.PORT: str(_PORT), names.AUTOSCALE: "off"}
    managed = {"app.kubernetes.io/managed-by": ours.CHECKER}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": STAND_IN, "labels": {**labels, **managed}, "annotations": notes},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": {**labels, **managed}, "annotations": notes},
                "spec": pod,
            },
        },
    }
