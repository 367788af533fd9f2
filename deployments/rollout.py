"""How far a rollout is, and how a service stands: decided from what was observed.

PURE: plain values and `now` in, a frozen verdict with its reason out. The controller acts on it.
A rollout is of one version of a service; a service stands as its versions that take requests do.

    scheduling -> pulling -> starting -> loading -> healthy
    any of them -> failed: the new revision crashed for good, found no room, or ran out of time

Safety rule: a rollout succeeds only when the wanted minimum of the NEW revision is ready and in the
router's rotation; replicas of the old one never count for it. What cannot be seen decides nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deployments.types import (
    Cause,
    ObservedService,
    Phase,
    Replica,
    RouteReport,
    RouteState,
    ServiceState,
)

STEPS = ("scheduling", "pulling", "starting", "loading", "healthy")

# Causes that the next start meets again: the same file is imported in the same environment.
# StartTimedOut has waited for the whole start timeout already.
_PERMANENT = frozenset(
    {"UserScriptImportError", "InvalidConfiguration", "EnvironmentBroken", "StartTimedOut"}
)
# What keeps a replica from starting at all until a person mends it; a blip is waited out.
_STUCK = frozenset(
    {"ImagePullBackOff", "CreateContainerConfigError", "EnvironmentBroken", "AdmissionRefused"}
)
_NODES_COMING = "NodesComing"  # a cluster's autoscaler makes room
_PHASE_STEPS = {
    Phase.SCHEDULING: "scheduling",
    Phase.PULLING: "pulling",
    Phase.STARTING: "starting",
    Phase.LOADING: "loading",
    Phase.READY: "loading",
}
_SEVERITY = {
    ServiceState.HEALTHY: 0,
    ServiceState.TRANSITIONING: 1,
    ServiceState.UNSCHEDULABLE: 2,
    ServiceState.UNHEALTHY: 3,
    ServiceState.FAILED: 4,
}
_SUPERVISOR_SILENT = 15.0  # seconds without a heartbeat before it is said
_ROUTER_SILENT = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """When waiting ends; Azure gives up after 20 minutes, and after 5 unschedulable."""

    deploy_seconds: float = 1200.0
    unschedulable_seconds: float = 300.0
    stuck_seconds: float = 60.0  # without an image, or refused by the cluster
    crashes: int = 2  # with the same cause
    # Ready replicas are taken for healthy after this long when the router says nothing at all.
    router_grace_seconds: float = 15.0


@dataclass(frozen=True, slots=True)
class Goal:
    """What the rollout is to reach. `applied_at` is epoch seconds."""

    revision: int
    minimum: int
    applied_at: float
    version: str = "default"


@dataclass(frozen=True, slots=True)
class RolloutVerdict:
    """`finished` with a cause is a failure, without one a success. `reason` is said to a person."""

    state: ServiceState
    step: str
    finished: bool
    reason: str
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a service or of a version nothing is being done to, and why ("" for all well)."""

    state: ServiceState
    reason: str = ""


def follow(
    goal: Goal,
    service: ObservedService | None,
    routes: RouteReport | None,
    supervisor_at: float | None,
    limits: Limits,
    now: float,
) -> RolloutVerdict:
    """Where the rollout of `goal.revision` stands. `service` None: the cluster does not know it."""
    new = of_goal(service, goal)
    step = _step(new)
    ready = [replica for replica in new if replica.phase is Phase.READY]
    serving = _in_rotation(ready, routes, limits, now)

    if len(serving) >= goal.minimum:
        return RolloutVerdict(
            ServiceState.HEALTHY,
            "healthy",
            True,
            f"{len(serving)} of {goal.minimum} wanted replicas are ready and in rotation.",
        )
    if cause := _crashed_for_good(new, goal, limits):
        return RolloutVerdict(ServiceState.FAILED, step, True, cause.message, cause)

    if cause := _stuck(new, goal, limits, now):
        return RolloutVerdict(ServiceState.FAILED, step, True, cause.message, cause)

    homeless = [
        r for r in new if r.phase is Phase.SCHEDULING and r.cause and r.cause.code not in _STUCK
    ]
    coming = any(r.cause and r.cause.code == _NODES_COMING for r in homeless)
    if homeless and not coming:
        first = homeless[0]
        why = first.cause.message if first.cause else ""
        waited = now - max(goal.applied_at, first.created_at)
        if waited >= limits.unschedulable_seconds:
            cause = Cause(
                "PodUnschedulable",
                f"No room was found for replica {first.id} in {waited:.0f} s: {why}",
                first.cause.evidence if first.cause else "",
            )
            return RolloutVerdict(ServiceState.UNSCHEDULABLE, step, True, cause.message, cause)

    waiting = _waiting_for(goal, new, ready, serving, supervisor_at, now)
    if now - goal.applied_at >= limits.deploy_seconds:
        cause = Cause(
            "DeploymentTimedOut",
            f"Revision {goal.revision} was not healthy after {limits.deploy_seconds:.0f} s: {waiting}",
            _evidence(new),
        )
        return RolloutVerdict(ServiceState.FAILED, step, True, cause.message, cause)
    no_room = bool(homeless) and not coming and not ready
    state = ServiceState.UNSCHEDULABLE if no_room else ServiceState.TRANSITIONING
    return RolloutVerdict(state, step, False, waiting)


def stand_versions(
    service: ObservedService | None, supervisor_at: float | None, now: float
) -> dict[str, Standing]:
    """How each version of a deployed service stands; none where the cluster does not know it."""
    if service is None:
        return {}
    silent = _silence(supervisor_at, now)
    return {
        version.name: _stand(
            [replica for replica in service.replicas if replica.version == version.name], silent
        )
        for version in service.spec.versions
    }


def together(service: ObservedService | None, standings: Mapping[str, Standing]) -> Standing:
    """How a service stands, from how each of its versions does: the worst of those that take requests.

    A version without traffic that is in trouble is said, and changes nothing.
    """
    if service is None:
        return Standing(
            ServiceState.UNHEALTHY, "The cluster does not know this service; it is applied again."
        )
    if len(standings) == 1:
        return next(iter(standings.values()))
    state = ServiceState.HEALTHY
    said: list[str] = []
    for version in service.spec.versions:
        standing = standings[version.name]
        share = version.traffic_percent
        if (share or version.is_default) and _SEVERITY[standing.state] > _SEVERITY[state]:
            state = standing.state
        if standing.reason:
            takes = f"{share} % of the requests" if share else "no traffic"
            said.append(f"Version {version.name} ({takes}): {standing.reason}")
    return Standing(state, _join(*said))


def _stand(replicas: Iterable[Replica], silent: str) -> Standing:
    """A version is healthy as long as a replica of it can answer."""
    living = [r for r in replicas if r.phase not in (Phase.STOPPED, Phase.DRAINING)]
    ready = [r for r in living if r.phase is Phase.READY]
    troubled = [r for r in living if r.phase is not Phase.READY and (r.cause or r.last_exit)]
    trouble = _said(troubled[0]) if troubled else ""
    if ready:
        reason = f"{len(ready)} of {len(living)} replicas are ready. {trouble}" if trouble else ""
        return Standing(ServiceState.HEALTHY, _join(reason, silent))
    if any(r.phase is Phase.SCHEDULING and r.cause for r in troubled):
        return Standing(ServiceState.UNSCHEDULABLE, _join(trouble, silent))
    if troubled or silent:
        return Standing(ServiceState.UNHEALTHY, _join(trouble or "No replica is ready.", silent))
    if living:
        return Standing(ServiceState.TRANSITIONING, f"{len(living)} replicas are starting.")
    return Standing(ServiceState.UNHEALTHY, "No replica runs.")


def step_index(step: str) -> int:
    """A step's place in the order; -1 for a step before the rollout."""
    return STEPS.index(step) if step in STEPS else -1


def of_goal(service: ObservedService | None, goal: Goal) -> list[Replica]:
    """The replicas that the rollout brings in."""
    if service is None:
        return []
    gone = (Phase.STOPPED, Phase.DRAINING)
    return [
        replica
        for replica in service.replicas
        if (replica.version, replica.revision) == (goal.version, goal.revision)
        and replica.phase not in gone
    ]


def _step(replicas: Iterable[Replica]) -> str:
    """The furthest step any replica reached; a crashed one had at least been started."""
    reached = 0
    for replica in replicas:
        step = _PHASE_STEPS.get(replica.phase, "starting")
        if replica.cause is not None and replica.cause.code.startswith("UserScript"):
            step = "loading"
        reached = max(reached, STEPS.index(step))
    return STEPS[reached]


def _in_rotation(
    ready: list[Replica], routes: RouteReport | None, limits: Limits, now: float
) -> list[Replica]:
    if routes is not None and now - routes.at <= _ROUTER_SILENT:
        rotating = {
            route.replica for route in routes.routes if route.state is RouteState.IN_ROTATION
        }
        return [replica for replica in ready if replica.id in rotating]
    # The router cannot be asked. Its HAProxy may well serve, so readiness has to do, after a while.
    return [
        replica
        for replica in ready
        if now - (replica.ready_at or now) >= limits.router_grace_seconds
    ]


def _stuck(new: list[Replica], goal: Goal, limits: Limits, now: float) -> Cause | None:
    for replica in new:
        waited = now - max(goal.applied_at, replica.created_at)
        if (
            replica.phase in (Phase.SCHEDULING, Phase.PULLING)
            and replica.cause is not None
            and replica.cause.code in _STUCK
            and waited >= limits.stuck_seconds
        ):
            return replica.cause
    return None


def _crashed_for_good(new: list[Replica], goal: Goal, limits: Limits) -> Cause | None:
    counts: dict[str, int] = {}
    for replica in new:
        if replica.phase is Phase.READY:
            continue
        if replica.last_exit is not None and replica.last_exit.at < goal.applied_at:
            continue  # of an earlier deployment of the same revision
        ends = replica.restarts + (replica.phase is Phase.CRASHED)
        if ends == 0:
            continue
        cause = crash_cause(replica)
        counts[cause.code] = counts.get(cause.code, 0) + ends
        if cause.code in _PERMANENT or counts[cause.code] >= limits.crashes:
            return cause
    return None


def crash_cause(replica: Replica) -> Cause:
    """Why a replica's last run ended: what the supervisor found out, else how it exited."""
    ended = replica.last_exit
    if replica.cause is not None:
        evidence = replica.cause.evidence or (ended.log_tail if ended else "")
        return Cause(replica.cause.code, replica.cause.message, evidence)
    if ended is None:
        return Cause("CrashLoopBackOff", f"Replica {replica.id} stopped; it left no word why.")
    if ended.oom:
        return Cause(
            "PodOutOfMemory",
            f"Replica {replica.id} needed more memory than its limit and was killed. Raise memory_gb "
            "or memory_gb_limit.",
            ended.log_tail,
        )
    how = f"signal {ended.signal}" if ended.signal else f"exit code {ended.code}"
    return Cause(
        "CrashLoopBackOff",
        f"Replica {replica.id} stopped by itself ({how}) before it was ready. See its last lines.",
        ended.log_tail,
    )


def _waiting_for(
    goal: Goal,
    new: list[Replica],
    ready: list[Replica],
    serving: list[Replica],
    supervisor_at: float | None,
    now: float,
) -> str:
    if silent := _silence(supervisor_at, now):
        return silent
    if not new:
        return "no replica of it has been made yet."
    troubled = [replica for replica in new if replica.cause or replica.last_exit]
    if troubled:
        return _said(troubled[0])
    if len(ready) >= goal.minimum:
        return f"{len(ready)} replicas are ready; the router has {len(serving)} in rotation."
    phases: dict[str, int] = {}
    for replica in new:
        phases[replica.phase.value] = phases.get(replica.phase.value, 0) + 1
    listed = ", ".join(f"{count} {phase}" for phase, count in sorted(phases.items()))
    pulling = [item.note for item in new if item.phase is Phase.PULLING and item.note]
    said = f"; {pulling[0]}" if pulling else ""
    return f"{len(ready)} of {goal.minimum} wanted replicas are ready ({listed}{said})."


def _silence(supervisor_at: float | None, now: float) -> str:
    if supervisor_at is None or now - supervisor_at < _SUPERVISOR_SILENT:
        return ""
    return (
        f"The agent has not been seen for {now - supervisor_at:.0f} s; replicas are neither started "
        "nor restarted until it runs."
    )


def _said(replica: Replica) -> str:
    return f"{replica.id}: {crash_cause(replica).message}"


def _evidence(replicas: list[Replica]) -> str:
    for replica in replicas:
        if replica.cause or replica.last_exit:
            return crash_cause(replica).evidence
    return ""


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)
