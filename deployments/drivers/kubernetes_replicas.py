"""From a pod, as the API server shows it, to a replica: its phase, how its last run ended, and why.

PURE. Plain objects go in. What is looked at is in `slim`; nothing else of a pod need be kept.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from deployments.agent import causes as output
from deployments.drivers import kubernetes_causes as causes
from deployments.drivers import kubernetes_names as names
from deployments.drivers import kubernetes_pod
from deployments.types import (
    Cause,
    EnvironmentSpec,
    Exit,
    FileSpec,
    NodeCapacity,
    Phase,
    Replica,
    RevisionSpec,
    VersionSpec,
)

Object = dict[str, Any]

_SCALED_UP, _NOT_SCALED_UP = "TriggeredScaleUp", "NotTriggerScaleUp"
_OOM = "slipway: out of memory"
_NOTHING: Mapping[Any, Any] = {}
_KEPT_OF_META = ("name", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp")
_KEPT_LABELS = (names.PART, names.SERVICE, names.VERSION, names.REVISION)
_KEPT_OF_STATUS = ("phase", "reason", "message", "podIP")
_KEPT_CONDITIONS = ("Ready", "PodScheduled")
_SPOKEN = 30.0  # seconds before a pod was not ready any more in which a probe's failure was said
_SPOKEN_OFTEN = 15  # of more than 25 the node tells but one in five minutes
_WELL = {"type": "ContainersReady", "status": "True"}
_KEPT_OF_CONDITION = ("type", "status", "message", "lastTransitionTime")
_KEPT_OF_CONTAINER = ("name", "state", "lastState", "restartCount", "started", "image")


def slim(pod: Object) -> Object:
    """What is kept of a pod of ours: there may be ten thousand, of 13 KB each."""
    meta, spec, status = pod["metadata"], pod.get("spec", {}), pod.get("status", {})
    kept = _some(meta, _KEPT_OF_META)
    kept["labels"] = _some(meta.get("labels") or {}, _KEPT_LABELS)
    kept["annotations"] = _some(meta.get("annotations") or {}, (names.PORT,))
    standing = _some(status, _KEPT_OF_STATUS)
    standing["conditions"] = [
        _some(item, _KEPT_OF_CONDITION)
        for item in status.get("conditions") or ()
        if item.get("type") in _KEPT_CONDITIONS
    ]
    if silent(pod):
        standing["conditions"].append(_WELL)
    for listed in ("initContainerStatuses", "containerStatuses"):
        standing[listed] = [_some(item, _KEPT_OF_CONTAINER) for item in status.get(listed) or ()]
    asked: Object = {"nodeName": _one(spec.get("nodeName", "")), "startTries": _tries(pod)}
    if spec.get("readinessGates"):
        asked["readinessGates"] = True
    return {"metadata": kept, "spec": asked, "status": standing}


def _some(found: Object, wanted: Sequence[str]) -> Object:
    return {name: _one(found[name]) for name in wanted if name in found}


def _one(value: Any) -> Any:
    """Most texts are those of all other pods too: each is held once."""
    return sys.intern(value) if type(value) is str else value


def _tries(pod: Object) -> int:
    """How often a container may not answer before it counts as not started; 0 is not said."""
    containers = pod.get("spec", {}).get("containers") or ()
    return max(
        (int(item.get("startupProbe", {}).get("failureThreshold", 0)) for item in containers),
        default=0,
    )


def slim_deployment(found: Object) -> Object:
    """What is kept of a Deployment of ours."""
    return {**found, "metadata": {**found["metadata"], "managedFields": None}}


@dataclass(frozen=True, slots=True)
class EndedContainer:
    """Whose last words are worth reading. `previous`: it was started again since."""

    name: str
    restarts: int  # of the whole pod
    previous: bool


def event(found: Object) -> Object | None:
    """What is kept of an event."""
    return {
        "uid": found.get("involvedObject", {}).get("uid", ""),
        "reason": found.get("reason", ""),
        "message": found.get("message", ""),
        "count": int(found.get("count") or 1),
        "at": at(
            found.get("lastTimestamp")
            or found.get("eventTime")
            or found["metadata"].get("creationTimestamp")
        ),
    }


def silent(pod: Object) -> bool:
    """Whether Kubernetes calls it not ready for the want of a word from its node: the node's own word on its
    containers stands as it was then."""
    return (
        _may_be_ready(pod) and condition(pod["status"], "ContainersReady").get("status") == "True"
    )


def unheard(pod: Object, events: Sequence[Object]) -> bool:
    """Whether it was ready and nothing speaks against it, though it is not called so: its node is silent, or
    its kubelet was started anew and has not asked it yet. One that did not answer has an event."""
    if silent(pod):
        return True
    status = pod.get("status", {})
    began = [
        at(item.get("state", {}).get("running", _NOTHING).get("startedAt"))
        for item in status.get("containerStatuses") or ()
    ]
    changed = at(condition(status, "Ready").get("lastTransitionTime"))
    if not _may_be_ready(pod) or not began or not min(began) or changed <= max(began):
        return False  # it has not been ready in this run
    return not any(
        said["reason"] == "Unhealthy"
        and (said["at"] >= changed - _SPOKEN or said["count"] >= _SPOKEN_OFTEN)
        for said in events
    )


def _may_be_ready(pod: Object) -> bool:
    """Not called ready, by no word of others than its node."""
    status = pod.get("status", {})
    return (
        condition(status, "Ready").get("status") in ("False", "Unknown")
        and status.get("phase") == "Running"
        and not pod.get("spec", {}).get("readinessGates")
        and not pod["metadata"].get("deletionTimestamp")
    )


def at(text: object) -> float:
    """Seconds since the epoch of a time as the API server writes it; 0 for none."""
    if not text:
        return 0.0
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0


def replica(
    pod: Object,
    revision: RevisionSpec | None,
    version: str,
    events: Sequence[Object],
    tail: str,
    nodes: Sequence[NodeCapacity],
) -> Replica:
    """One pod. `revision` is the version's present one; the pod may be of an older."""
    meta, status = pod["metadata"], pod.get("status", {})
    number = int(label(pod, names.REVISION) or 1)
    mine = revision or _unknown(label(pod, names.SERVICE), number)
    states = _statuses(status)
    last = _last_exit(states, tail)
    ready = condition(status, "Ready")
    model = status_of(status, kubernetes_pod.MODEL)
    running = (model or {}).get("state", {}).get("running")
    phase, cause, note = _stands(pod, mine, states, events, tail, last, nodes)
    ip = status.get("podIP", "")
    port = int(meta.get("annotations", {}).get(names.PORT) or kubernetes_pod.PORT)
    return Replica(
        id=meta["name"],
        service=label(pod, names.SERVICE),
        version=version or version_label(pod),
        revision=number,
        phase=phase,
        address=(f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}") if ip else "",
        node=pod.get("spec", {}).get("nodeName", ""),
        created_at=at(meta.get("creationTimestamp")),
        started_at=at(running["startedAt"]) if running else None,
        ready_at=at(ready.get("lastTransitionTime")) if phase is Phase.READY else None,
        restarts=restarts_of(pod),
        last_exit=last,
        cause=cause,
        note=note,
        unheard=unheard(pod, events),
    )


def _stands(
    pod: Object,
    revision: RevisionSpec,
    states: Sequence[Object],
    events: Sequence[Object],
    tail: str,
    last: Exit | None,
    nodes: Sequence[NodeCapacity],
) -> tuple[Phase, Cause | None, str]:
    """A pod's phase, why it is not ready, and what else is to be said."""
    status = pod.get("status", {})
    if pod["metadata"].get("deletionTimestamp"):
        return Phase.DRAINING, None, ""
    if status.get("phase") in ("Failed", "Succeeded"):
        return Phase.STOPPED, causes.evicted(status), ""
    if not pod.get("spec", {}).get("nodeName"):
        scheduled = condition(status, "PodScheduled")
        if scheduled.get("status") == "False":
            message = str(scheduled.get("message", ""))
            return (
                Phase.SCHEDULING,
                causes.unschedulable(message, revision, nodes, _coming(events)),
                "",
            )
        return Phase.SCHEDULING, None, ""
    if condition(status, "Ready").get("status") == "True":
        return Phase.READY, None, ""
    for state in states:
        waits = state.get("state", {}).get("waiting")
        if waits and waits.get("reason") not in (None, "CrashLoopBackOff"):
            message = _pull_words(waits, events)
            cause = causes.waiting(waits["reason"], message, state.get("image", ""), revision)
            if cause is not None:
                return Phase.PULLING, cause, ""
    for state in states:
        if phase_and_cause := _crashed(pod, state, revision, events, tail, last):
            return (*phase_and_cause, "")
    model = status_of(status, kubernetes_pod.MODEL) or {}
    if "running" not in model.get("state", {}):
        fetching = status_of(status, kubernetes_pod.FETCH) or {}
        note = "its files are fetched" if "running" in fetching.get("state", {}) else ""
        for said in reversed(events):
            if cause := causes.mount(said["reason"], said["message"]):
                return Phase.PULLING, cause, note
        return Phase.PULLING, None, note
    if tail and overdue(pod, events):
        # it is as good as ended: older nodes take a minute to see that, and another to end it
        cause = causes.probe(_unhealthy(events), revision.start_timeout_seconds, tail, revision)
        return Phase.CRASHED, cause, ""
    phase = Phase.STARTING if revision.container is not None else Phase.LOADING
    if model.get("started"):
        # it has begun, and does not answer now
        if silent(pod):
            return phase, causes.node_unheard(pod["spec"]["nodeName"]), ""
        words = _unhealthy(events)
        return phase, causes.probe(words, None, "", revision) if words else None, ""
    if last is not None and restarts_of(pod):
        return phase, _ended(pod, revision, events, tail, last), ""
    return phase, None, ""


def overdue(pod: Object, events: Sequence[Object]) -> bool:
    """Whether its first run did not answer as often as it may; of later ones only their end tells."""
    tries = pod.get("spec", {}).get("startTries", 0)
    return (
        bool(tries)
        and not restarts_of(pod)
        and any(
            said["reason"] == "Unhealthy"
            and said["message"].startswith("Startup probe")
            and said["count"] >= tries
            for said in events
        )
    )


def _crashed(
    pod: Object,
    state: Object,
    revision: RevisionSpec,
    events: Sequence[Object],
    tail: str,
    last: Exit | None,
) -> tuple[Phase, Cause | None] | None:
    """Of a container that ended and waits for its next start."""
    now = state.get("state", {})
    ended = now.get("terminated")
    waits = now.get("waiting", {}).get("reason") == "CrashLoopBackOff"
    fetches = state.get("name") == kubernetes_pod.FETCH
    if fetches and (waits or (ended and ended.get("exitCode"))):
        run = ended or state.get("lastState", {}).get("terminated") or {}
        words = str(run.get("message") or tail)
        return Phase.CRASHED, kubernetes_pod.of_fetch(int(run.get("exitCode", 1)), words)
    if waits or (ended and not fetches):
        return Phase.CRASHED, _ended(pod, revision, events, tail, last)
    return None


def _ended(
    pod: Object, revision: RevisionSpec, events: Sequence[Object], tail: str, last: Exit | None
) -> Cause:
    """Why a pod's last run ended."""
    log = tail or (last.log_tail if last else "")
    unhealthy = _unhealthy(events)
    killed = (
        last is not None and (last.signal in (9, 15) or last.code in (137, 143)) and not last.oom
    )
    if killed and unhealthy.startswith("Startup probe"):
        return causes.probe(unhealthy, revision.start_timeout_seconds, log, revision)
    if killed and unhealthy.startswith("Liveness probe"):
        return output.of_silence(log, _patience(revision), refused=False)
    return output.of_end(log, last, revision, _was_ready(pod))


def _patience(revision: RevisionSpec) -> float:
    return float(revision.probe.period_seconds * revision.probe.failure_threshold)


def _was_ready(pod: Object) -> bool:
    """Whether the run that ended last had been ready: the condition changed after it had begun."""
    status = pod.get("status", {})
    changed = at(condition(status, "Ready").get("lastTransitionTime"))
    model = status_of(status, kubernetes_pod.MODEL) or {}
    for state in (model.get("state", {}), model.get("lastState", {})):
        if ended := state.get("terminated"):
            return changed > at(ended.get("startedAt")) > 0.0
    return False


def _last_exit(states: Sequence[Object], tail: str) -> Exit | None:
    """The newest end of any container of a pod; a fetch that did what it should is none."""
    ends = []
    for state in states:
        for run in (state.get("state", {}), state.get("lastState", {})):
            ended = run.get("terminated")
            if ended and not (
                state.get("name") == kubernetes_pod.FETCH and not ended.get("exitCode")
            ):
                ends.append(ended)
    if not ends:
        return None
    ended = max(ends, key=lambda item: at(item.get("finishedAt")))
    code = int(ended.get("exitCode", 0))
    log = tail or str(ended.get("message") or "")
    signal = int(ended.get("signal") or (code - 128 if 128 < code < 160 else 0))
    oom = ended.get("reason") == "OOMKilled" or (signal == 9 and _OOM in log)
    return Exit(code, signal, at(ended.get("finishedAt")), log, oom)


def _pull_words(waits: Object, events: Sequence[Object]) -> str:
    """The registry's own words: while a node waits for its next attempt, only an event has them."""
    message = str(waits.get("message") or "")
    if waits.get("reason") == "ImagePullBackOff":
        for said in reversed(events):
            if said["reason"] == "Failed" and "Failed to pull image" in said["message"]:
                return str(said["message"])
    return message


def _unhealthy(events: Sequence[Object]) -> str:
    """What the newest failed probe said."""
    for said in reversed(events):
        if said["reason"] == "Unhealthy" and not said["message"].startswith("Readiness probe"):
            return str(said["message"])
    for said in reversed(events):
        if said["reason"] == "Unhealthy":
            return str(said["message"])
    return ""


def _coming(events: Sequence[Object]) -> str:
    """What a cluster autoscaler said last, where that is that a node comes."""
    for said in reversed(events):
        if said["reason"] == _SCALED_UP:
            return str(said["message"])
        if said["reason"] == _NOT_SCALED_UP:
            return ""
    return ""


def not_created(deployment: Object, version: VersionSpec) -> Replica | None:
    """In the place of a pod that the cluster would not make."""
    failure = condition(deployment.get("status", {}), "ReplicaFailure")
    if failure.get("status") != "True":
        return None
    meta = deployment["metadata"]
    return Replica(
        id=f"{meta['name']}-none",
        service=label(deployment, names.SERVICE),
        version=version.name,
        revision=int(label(deployment, names.REVISION) or 1),
        phase=Phase.SCHEDULING,
        created_at=at(failure.get("lastTransitionTime")),
        cause=causes.not_created(str(failure.get("message", "")), version.revision),
    )


def ended_container(pod: Object, events: Sequence[Object] = ()) -> EndedContainer | None:
    """The container of a pod that is not ready whose run ended last, or will be; None where none did."""
    status = pod.get("status", {})
    if condition(status, "Ready").get("status") == "True":
        return None
    if overdue(pod, events):
        return EndedContainer(_main(status), 0, previous=False)
    newest, found = 0.0, None
    for state in _statuses(status):
        for run, previous in (("state", False), ("lastState", True)):
            ended = state.get(run, {}).get("terminated")
            if not ended or (state.get("name") == kubernetes_pod.FETCH and not ended["exitCode"]):
                continue
            when = at(ended.get("finishedAt"))
            if when >= newest:
                newest, found = when, EndedContainer(state["name"], restarts_of(pod), previous)
    return found


def _unknown(service: str, number: int) -> RevisionSpec:
    return RevisionSpec(service, number, FileSpec("", "", 0), "", (), EnvironmentSpec("", ""))


def condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    for item in status.get("conditions") or ():
        if item.get("type") == kind:
            return item
    return _NOTHING


def status_of(status: Mapping[str, Any], container: str) -> Object | None:
    """A container's; of pods that are not ours, the first one's stands for the model's."""
    lists = (status.get("initContainerStatuses") or (), status.get("containerStatuses") or ())
    for listed in lists:
        for item in listed:
            if item.get("name") == container:
                return item
    if container == kubernetes_pod.MODEL and lists[1]:
        return lists[1][0]
    return None


def _main(status: Mapping[str, Any]) -> str:
    return str((status_of(status, kubernetes_pod.MODEL) or {}).get("name", kubernetes_pod.MODEL))


def restarts_of(pod: Object) -> int:
    status = pod.get("status", {})
    return sum(int(item.get("restartCount", 0)) for item in _statuses(status))


def _statuses(status: Mapping[str, Any]) -> list[Object]:
    """Of its containers, in the order they run."""
    return [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]


def version_label(found: Object) -> str:
    """Of a Deployment or a pod; what others made need not name one."""
    return label(found, names.VERSION) or "default"


def label(found: Object, name: str) -> str:
    return str((found["metadata"].get("labels") or {}).get(name, ""))


def uid_of(found: Object) -> str:
    return str(found["metadata"]["uid"])


def version_of(found: Object) -> str:
    return str(found["metadata"]["resourceVersion"])
