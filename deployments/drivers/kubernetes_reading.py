"""From what stands on the API server to what the house speaks of: services, replicas, room.

PURE. Plain objects as the API server gives them go in. A `Reader` keeps what it read of a pod and of a
service as long as its objects' versions stay, so that ten thousand pods of which one changed are read once.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from deployments.agent import causes as output
from deployments.codec import from_json
from deployments.drivers import kubernetes_causes as causes
from deployments.drivers import kubernetes_names as names
from deployments.drivers import kubernetes_pod
from deployments.drivers.kubernetes_foreign import foreign_spec
from deployments.types import (
    Cause,
    EnvironmentSpec,
    Exit,
    FileSpec,
    NodeCapacity,
    Observation,
    ObservedService,
    ObservedVersion,
    Phase,
    Replica,
    RevisionSpec,
    ServiceSpec,
    VersionSpec,
)

Object = dict[str, Any]
Objects = Mapping[str, Object]

_SCALED_UP, _NOT_SCALED_UP = "TriggeredScaleUp", "NotTriggerScaleUp"
_OOM = "slipway: out of memory"
_NOTHING: Mapping[Any, Any] = {}


@dataclass(frozen=True, slots=True)
class EndedContainer:
    """Whose last words are worth reading. `previous`: it was started again since."""

    name: str
    restarts: int  # of the whole pod
    previous: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """What a Reader reads. `tails` are the last lines of runs that ended: (pod's uid, restarts) -> text."""

    deployments: Objects
    pods: Objects
    secrets: Objects
    events: Objects = field(default_factory=dict)  # as `event` keeps them
    tails: Mapping[tuple[str, int], str] = field(default_factory=dict)
    nodes: tuple[NodeCapacity, ...] = ()


def event(found: Object) -> Object | None:
    """What is kept of an event."""
    return {
        "uid": found.get("involvedObject", {}).get("uid", ""),
        "reason": found.get("reason", ""),
        "message": found.get("message", ""),
        "at": at(
            found.get("lastTimestamp")
            or found.get("eventTime")
            or found["metadata"].get("creationTimestamp")
        ),
    }


def at(text: object) -> float:
    """Seconds since the epoch of a time as the API server writes it; 0 for none."""
    if not text:
        return 0.0
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return 0.0


class Reader:
    """Keeps only what may be read again."""

    def __init__(self) -> None:
        self._services: dict[str, tuple[object, ObservedService]] = {}
        self._specs: dict[tuple[str, str], ServiceSpec | None] = {}
        self._replicas: dict[str, tuple[object, Replica]] = {}
        self._events_of: tuple[object, dict[str, list[Object]]] = (None, {})

    def observe(self, seen: Seen, now: float) -> Observation:
        """Every service with a spec, or with a Deployment of our labels."""
        deployments, pods = _by_service(seen.deployments), _by_service(seen.pods)
        specs = self.specs(seen.secrets)
        events = self._by_pod(seen.events)
        services = []
        for name in sorted({*deployments, *specs}):
            spec = specs.get(name)
            its = deployments.get(name, [])
            if spec is None:
                spec = foreign_spec(name, its, seen.secrets)
                if spec is None:
                    continue
            mine = pods.pop(name, [])
            services.append(self._service(spec, its, mine, events, seen))
        orphans = tuple(
            replica(pod, None, "", events.get(_uid(pod), ()), "", ())
            for left in pods.values()
            for pod in left
        )
        self._forget(seen)
        return Observation(now, tuple(services), orphans)

    def _service(
        self,
        spec: ServiceSpec,
        deployments: list[Object],
        pods: list[Object],
        events: Mapping[str, list[Object]],
        seen: Seen,
    ) -> ObservedService:
        stamps = [(item["metadata"]["uid"], _version(item)) for item in (*deployments, *pods)]
        told = [
            (len(events.get(_uid(pod), ())), (_uid(pod), _restarts(pod)) in seen.tails)
            for pod in pods
        ]
        stamp = (id(spec), stamps, told)
        kept = self._services.get(spec.name)
        if kept is not None and kept[0] == stamp and kept[1].spec is spec:
            return kept[1]
        versions = {
            names.selector(spec.name, version.name)[names.VERSION]: version
            for version in spec.versions
        }
        by_version = {version_label(item): item for item in deployments}
        desired = []
        replicas = [
            self._replica(pod, versions.get(version_label(pod)), events, seen) for pod in pods
        ]
        for label, version in versions.items():
            standing = by_version.get(label)
            count = version.scaling.minimum
            if standing is not None:
                count = int(standing.get("spec", {}).get("replicas", 1))
                here = sum(version_label(pod) == label for pod in pods)
                if here < count and (missing := _not_created(standing, version)):
                    replicas.append(missing)
            desired.append(ObservedVersion(version.name, count))
        replicas.sort(key=lambda item: (item.created_at, item.id))
        found = ObservedService(spec, tuple(desired), tuple(replicas))
        self._services[spec.name] = (stamp, found)
        return found

    def _replica(
        self,
        pod: Object,
        version: VersionSpec | None,
        events: Mapping[str, list[Object]],
        seen: Seen,
    ) -> Replica:
        uid = _uid(pod)
        said, tail = events.get(uid, ()), seen.tails.get((uid, _restarts(pod)), "")
        stamp = (_version(pod), len(said), tail, version)
        kept = self._replicas.get(uid)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        revision = version.revision if version is not None else None
        name = version.name if version is not None else version_label(pod)
        made = replica(pod, revision, name, said, tail, seen.nodes)
        self._replicas[uid] = (stamp, made)
        return made

    def specs(self, secrets: Objects) -> dict[str, ServiceSpec]:
        """Of the services that Slipway deployed, by name; the same objects while nobody changed them."""
        found, kept = {}, {}
        for uid, secret in secrets.items():
            if _label(secret, names.PART) != names.SERVICES:
                continue
            key = (uid, _version(secret))
            if key not in self._specs:
                self._specs[key] = spec_of(secret)
            kept[key] = spec = self._specs[key]
            if spec is not None:
                found[spec.name] = spec
        self._specs = kept
        return found

    def _by_pod(self, events: Objects) -> dict[str, list[Object]]:
        if self._events_of[0] is not events:
            by_pod: dict[str, list[Object]] = {}
            for item in events.values():
                by_pod.setdefault(item["uid"], []).append(item)
            for listed in by_pod.values():
                listed.sort(key=lambda item: item["at"])
            self._events_of = (events, by_pod)
        return self._events_of[1]

    def _forget(self, seen: Seen) -> None:
        if len(self._replicas) > 2 * len(seen.pods) + 100:
            self._replicas = {uid: item for uid, item in self._replicas.items() if uid in seen.pods}


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
    number = int(_label(pod, names.REVISION) or 1)
    mine = revision or _unknown(_label(pod, names.SERVICE), number)
    states = _statuses(status)
    last = _last_exit(states, tail)
    ready = _condition(status, "Ready")
    model = _status_of(status, kubernetes_pod.MODEL)
    running = (model or {}).get("state", {}).get("running")
    phase, cause, note = _stands(pod, mine, states, events, tail, last, nodes)
    ip = status.get("podIP", "")
    port = int(meta.get("annotations", {}).get(names.PORT) or kubernetes_pod.PORT)
    return Replica(
        id=meta["name"],
        service=_label(pod, names.SERVICE),
        version=version or version_label(pod),
        revision=number,
        phase=phase,
        address=(f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}") if ip else "",
        node=pod.get("spec", {}).get("nodeName", ""),
        created_at=at(meta.get("creationTimestamp")),
        started_at=at(running["startedAt"]) if running else None,
        ready_at=at(ready.get("lastTransitionTime")) if phase is Phase.READY else None,
        restarts=_restarts(pod),
        last_exit=last,
        cause=cause,
        note=note,
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
        scheduled = _condition(status, "PodScheduled")
        if scheduled.get("status") == "False":
            message = str(scheduled.get("message", ""))
            return (
                Phase.SCHEDULING,
                causes.unschedulable(message, revision, nodes, _coming(events)),
                "",
            )
        return Phase.SCHEDULING, None, ""
    if _condition(status, "Ready").get("status") == "True":
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
    model = _status_of(status, kubernetes_pod.MODEL) or {}
    if "running" not in model.get("state", {}):
        fetching = _status_of(status, kubernetes_pod.FETCH) or {}
        note = "its files are fetched" if "running" in fetching.get("state", {}) else ""
        for said in reversed(events):
            if cause := causes.mount(said["reason"], said["message"]):
                return Phase.PULLING, cause, note
        return Phase.PULLING, None, note
    phase = Phase.STARTING if revision.container is not None else Phase.LOADING
    if model.get("started"):
        # it has begun, and does not answer now
        words = _unhealthy(events)
        return phase, causes.probe(words, None, "", revision) if words else None, ""
    if last is not None and _restarts(pod):
        return phase, _ended(pod, revision, events, tail, last), ""
    return phase, None, ""


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
    changed = at(_condition(status, "Ready").get("lastTransitionTime"))
    model = _status_of(status, kubernetes_pod.MODEL) or {}
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


def _not_created(deployment: Object, version: VersionSpec) -> Replica | None:
    """In the place of a pod that the cluster would not make."""
    failure = _condition(deployment.get("status", {}), "ReplicaFailure")
    if failure.get("status") != "True":
        return None
    meta = deployment["metadata"]
    return Replica(
        id=f"{meta['name']}-none",
        service=_label(deployment, names.SERVICE),
        version=version.name,
        revision=int(_label(deployment, names.REVISION) or 1),
        phase=Phase.SCHEDULING,
        created_at=at(failure.get("lastTransitionTime")),
        cause=causes.not_created(str(failure.get("message", "")), version.revision),
    )


def ended_container(pod: Object) -> EndedContainer | None:
    """The container of a pod that is not ready whose run ended last; None where none did."""
    status = pod.get("status", {})
    if _condition(status, "Ready").get("status") == "True":
        return None
    newest, found = 0.0, None
    for state in _statuses(status):
        for run, previous in (("state", False), ("lastState", True)):
            ended = state.get(run, {}).get("terminated")
            if not ended or (state.get("name") == kubernetes_pod.FETCH and not ended["exitCode"]):
                continue
            when = at(ended.get("finishedAt"))
            if when >= newest:
                newest, found = when, EndedContainer(state["name"], _restarts(pod), previous)
    return found


def other_scalers(
    scalers: Objects, deployments: Objects, specs: Iterable[ServiceSpec]
) -> dict[tuple[str, str], str]:
    """Who else scales a version: (service, version) -> "HorizontalPodAutoscaler <name>"."""
    by_name = {item["metadata"]["name"]: item for item in deployments.values()}
    labels = {
        (spec.name, names.selector(spec.name, version.name)[names.VERSION]): version.name
        for spec in specs
        for version in spec.versions
    }
    found = {}
    for item in scalers.values():
        target = item.get("spec", {}).get("scaleTargetRef", {})
        mine = by_name.get(target.get("name", ""))
        if target.get("kind") != "Deployment" or mine is None:
            continue
        service, label = _label(mine, names.SERVICE), version_label(mine)
        name = item["metadata"]["name"]
        found[service, labels.get((service, label), label)] = f"HorizontalPodAutoscaler {name}"
    return found


def spec_of(secret: Object) -> ServiceSpec | None:
    """None for one that cannot be read: its service is then not there, and the portal writes it anew."""
    try:
        text = base64.b64decode((secret.get("data") or {})[names.SPEC_KEY])
        return from_json(ServiceSpec, json.loads(text))
    except (KeyError, ValueError, TypeError):
        return None


def _by_service(found: Objects) -> dict[str, list[Object]]:
    by_service: dict[str, list[Object]] = {}
    for item in found.values():
        if name := _label(item, names.SERVICE):
            by_service.setdefault(name, []).append(item)
    return by_service


def _unknown(service: str, number: int) -> RevisionSpec:
    return RevisionSpec(service, number, FileSpec("", "", 0), "", (), EnvironmentSpec("", ""))


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    for item in status.get("conditions") or ():
        if item.get("type") == kind:
            return item
    return _NOTHING


def _status_of(status: Mapping[str, Any], container: str) -> Object | None:
    """A container's; of pods that are not ours, the first one's stands for the model's."""
    lists = (status.get("initContainerStatuses") or (), status.get("containerStatuses") or ())
    for listed in lists:
        for item in listed:
            if item.get("name") == container:
                return item
    if container == kubernetes_pod.MODEL and lists[1]:
        return lists[1][0]
    return None


def _restarts(pod: Object) -> int:
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
    return _label(found, names.VERSION) or "default"


def _label(found: Object, name: str) -> str:
    return str((found["metadata"].get("labels") or {}).get(name, ""))


def _uid(found: Object) -> str:
    return str(found["metadata"]["uid"])


def _version(found: Object) -> str:
    return str(found["metadata"]["resourceVersion"])
