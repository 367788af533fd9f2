"""How far a rollout is, and how a service stands."""

import dataclasses

import pytest

from deployments.rollout import Goal, Limits, Standing, follow, stand_versions, together
from deployments.types import (
    Cause,
    EnvironmentSpec,
    Exit,
    FileSpec,
    ObservedService,
    ObservedVersion,
    Phase,
    Replica,
    ReplicaRoute,
    RevisionSpec,
    RouteReport,
    RouteState,
    ServiceSpec,
    ServiceState,
    VersionSpec,
)

APPLIED = 1000.0
NOW = 1030.0
LIMITS = Limits()
IMPORT = Cause("UserScriptImportError", "No module named 'nope'", "Traceback: nope")
INIT = Cause("UserScriptInitFailed", "init() raised ValueError", "Traceback: init")
NO_ROOM = Cause("PodUnschedulable", "4 cores asked for, 1 left")


def replica(name="a", phase=Phase.READY, revision=2, **values) -> Replica:
    values.setdefault("created_at", APPLIED + 1)
    if phase is Phase.READY:
        values.setdefault("ready_at", NOW - 1)
    return Replica(
        id=name, service="s", version="default", revision=revision, phase=phase, **values
    )


def crashed(name="a", cause=None, restarts=0, at=APPLIED + 5, **values) -> Replica:
    return replica(
        name,
        Phase.CRASHED,
        cause=cause,
        restarts=restarts,
        last_exit=Exit(code=1, signal=0, at=at, log_tail="the tail", **values),
    )


def service(*replicas: Replica) -> ObservedService:
    revision = RevisionSpec(
        service="s",
        number=2,
        source=FileSpec("project.zip", "0" * 64, 1),
        entry_script="score.py",
        models=(),
        environment=EnvironmentSpec("h", "/venv"),
    )
    spec = ServiceSpec("s", (VersionSpec("default", revision),))
    return ObservedService(spec, (ObservedVersion("default", 1),), replicas)


def stand(observed: ObservedService | None, supervisor_at: float | None, now: float) -> Standing:
    """As the controller does it."""
    return together(observed, stand_versions(observed, supervisor_at, now))


def routes(*names: str, at: float = NOW - 1, state=RouteState.IN_ROTATION) -> RouteReport:
    return RouteReport(at, tuple(ReplicaRoute(name, state, 0) for name in names))


def judge(*replicas, minimum=1, report="all", supervisor=NOW - 1, now=NOW, limits=LIMITS):
    if report == "all":
        report = routes(*(r.id for r in replicas))
    observed = service(*replicas)
    return follow(Goal(2, minimum, APPLIED), observed, report, supervisor, limits, now)


@pytest.mark.parametrize(
    ("replicas", "minimum", "state", "step", "finished"),
    [
        ([], 1, "Transitioning", "scheduling", False),
        ([replica(phase=Phase.SCHEDULING)], 1, "Transitioning", "scheduling", False),
        ([replica(phase=Phase.PULLING)], 1, "Transitioning", "pulling", False),
        ([replica(phase=Phase.STARTING)], 1, "Transitioning", "starting", False),
        ([replica(phase=Phase.LOADING)], 1, "Transitioning", "loading", False),
        ([replica()], 1, "Healthy", "healthy", True),
        ([replica()], 2, "Transitioning", "loading", False),
        ([replica("a"), replica("b")], 2, "Healthy", "healthy", True),
        # a replica of the old revision never counts
        ([replica(revision=1)], 1, "Transitioning", "scheduling", False),
        (
            [replica("a", revision=1), replica("b", Phase.LOADING)],
            1,
            "Transitioning",
            "loading",
            False,
        ),
        # nor one that is going
        ([replica(phase=Phase.DRAINING)], 1, "Transitioning", "scheduling", False),
        # one start that failed may be bad luck
        ([crashed(cause=INIT)], 1, "Transitioning", "loading", False),
        ([crashed()], 1, "Transitioning", "starting", False),
    ],
)
def test_where_a_rollout_stands(replicas, minimum, state, step, finished):
    verdict = judge(*replicas, minimum=minimum)
    assert (verdict.state.value, verdict.step, verdict.finished) == (state, step, finished)
    assert verdict.cause is None
    assert verdict.reason


@pytest.mark.parametrize(
    ("replicas", "code"),
    [
        # the next start imports the same file
        ([crashed(cause=IMPORT)], "UserScriptImportError"),
        ([crashed(cause=Cause("StartTimedOut", "no port after 310 s"))], "StartTimedOut"),
        ([crashed(cause=INIT, restarts=1)], "UserScriptInitFailed"),
        ([replica(phase=Phase.STARTING, restarts=2, cause=INIT)], "UserScriptInitFailed"),
        # two replicas that end the same way once each
        ([crashed("a", INIT), crashed("b", INIT)], "UserScriptInitFailed"),
        ([crashed(restarts=1)], "CrashLoopBackOff"),
        ([crashed(restarts=1, oom=True)], "PodOutOfMemory"),
    ],
)
def test_crashes_that_will_not_end(replicas, code):
    verdict = judge(*replicas)
    assert (verdict.state, verdict.finished) == (ServiceState.FAILED, True)
    assert verdict.cause is not None
    assert verdict.cause.code == code


@pytest.mark.parametrize(
    "replicas",
    [
        [crashed("a", INIT), crashed("b", Cause("DiskFull", "full"))],
        # it ended before this deployment of the same revision began
        [crashed("a", IMPORT, restarts=3, at=APPLIED - 1)],
        [replica("a", Phase.READY, restarts=4, cause=INIT), replica("b", Phase.LOADING)],
    ],
)
def test_crashes_that_decide_nothing(replicas):
    assert judge(*replicas, minimum=2).finished is False


def test_the_traceback_goes_with_the_cause():
    assert judge(crashed(cause=IMPORT)).cause.evidence == "Traceback: nope"
    assert judge(crashed(restarts=1)).cause.evidence == "the tail"


@pytest.mark.parametrize(("waited", "finished"), [(299.9, False), (300.0, True)])
def test_no_room_fails_after_its_limit(waited, finished):
    homeless = replica(phase=Phase.SCHEDULING, cause=NO_ROOM)
    verdict = judge(homeless, now=homeless.created_at + waited, supervisor=None)
    assert (verdict.state, verdict.finished) == (ServiceState.UNSCHEDULABLE, finished)
    assert (verdict.cause.code if verdict.cause else None) == (
        "PodUnschedulable" if finished else None
    )


@pytest.mark.parametrize(
    ("phase", "code"),
    [
        (Phase.PULLING, "ImagePullBackOff"),
        (Phase.PULLING, "CreateContainerConfigError"),
        (Phase.SCHEDULING, "AdmissionRefused"),
    ],
)
@pytest.mark.parametrize(("waited", "finished"), [(59.9, False), (60.0, True)])
def test_what_only_a_person_can_mend_fails_with_its_own_cause(phase, code, waited, finished):
    stuck = replica(phase=phase, cause=Cause(code, "it is so"))
    verdict = judge(stuck, now=stuck.created_at + waited, supervisor=None)
    assert verdict.finished is finished
    assert verdict.state is (ServiceState.FAILED if finished else ServiceState.TRANSITIONING)
    assert "it is so" in verdict.reason
    if finished:
        assert verdict.cause == stuck.cause


@pytest.mark.parametrize(("waited", "finished"), [(301.0, False), (1200.0, True)])
def test_room_that_is_being_made_is_waited_for(waited, finished):
    homeless = replica(
        phase=Phase.SCHEDULING, cause=Cause("NodesComing", "a node comes"), created_at=APPLIED
    )
    verdict = judge(homeless, now=APPLIED + waited, supervisor=None)
    assert verdict.finished is finished
    if not finished:
        assert verdict.state is ServiceState.TRANSITIONING


@pytest.mark.parametrize(("waited", "finished"), [(1199.9, False), (1200.0, True)])
def test_a_deployment_times_out_and_says_what_it_waited_for(waited, finished):
    verdict = judge(replica(phase=Phase.LOADING), now=APPLIED + waited, supervisor=None)
    assert verdict.finished is finished
    if finished:
        assert verdict.cause.code == "DeploymentTimedOut"
        assert "1 loading" in verdict.cause.message


def test_ready_is_not_healthy_before_the_router_has_it():
    assert judge(replica("a"), report=routes()).finished is False
    assert judge(replica("a"), report=routes("a", state=RouteState.DRAINING)).finished is False
    assert judge(replica("a"), report=routes("a")).finished is True


@pytest.mark.parametrize("report", [None, routes("a", at=NOW - 11)])
@pytest.mark.parametrize(("ready_for", "finished"), [(14.9, False), (15.0, True)])
def test_without_the_routers_word_readiness_has_to_last(report, ready_for, finished):
    verdict = judge(replica("a", ready_at=NOW - ready_for), report=report)
    assert verdict.finished is finished


def test_a_cluster_that_does_not_know_the_service_is_waited_for():
    verdict = follow(Goal(2, 1, APPLIED), None, None, None, LIMITS, NOW)
    assert (verdict.state, verdict.step) == (ServiceState.TRANSITIONING, "scheduling")


def test_a_silent_agent_is_said():
    assert "agent has not been seen for 40 s" in judge(supervisor=NOW - 40).reason


@pytest.mark.parametrize(
    ("replicas", "state", "said"),
    [
        ([replica()], "Healthy", ""),
        ([replica("a"), crashed("b", INIT)], "Healthy", "1 of 2 replicas are ready"),
        ([replica("a"), replica("b", Phase.LOADING)], "Healthy", ""),
        ([crashed(cause=INIT)], "Unhealthy", "init() raised"),
        ([replica(phase=Phase.LOADING)], "Transitioning", "starting"),
        ([replica(phase=Phase.SCHEDULING, cause=NO_ROOM)], "Unschedulable", "4 cores"),
        ([], "Unhealthy", "No replica"),
        ([replica(phase=Phase.DRAINING)], "Unhealthy", "No replica"),
    ],
)
def test_how_a_service_stands(replicas, state, said):
    standing = stand(service(*replicas), NOW - 1, NOW)
    assert standing.state.value == state
    assert said in standing.reason
    assert bool(standing.reason) is bool(said)


def test_a_service_with_a_silent_agent_still_serves():
    standing = stand(service(replica()), NOW - 60, NOW)
    assert standing.state is ServiceState.HEALTHY
    assert "not been seen" in standing.reason


def test_verdicts_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        judge(replica()).step = "x"


def test_how_far_an_image_is_pulled_is_said_while_it_is():
    told = judge(replica(phase=Phase.PULLING, note="pulling 20 of 150 MiB"))
    assert told.reason == ("0 of 1 wanted replicas are ready (1 pulling; pulling 20 of 150 MiB).")
    assert "pulling 20" not in judge(replica(phase=Phase.STARTING, note="pulling 20")).reason
