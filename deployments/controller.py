"""The control loop's one cycle: look at each cluster, follow what rolls out, put right what drifted.

    for each cluster: observe -> follow rollouts -> show states -> apply what is older than its row
    beside: queue lost jobs again, finish removals, renew the addresses of files, prune

Every cycle reads everything anew, so it may be killed at any point and two at once do no harm. What
cannot be seen changes nothing: a cluster that does not answer keeps its services' states. Decisions
are `deployments.rollout`'s; final states are written by `deployments.outcome`.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import OuterRef, Prefetch, Subquery
from django.utils import timezone

from deployments import logstore, pod_logs, rollout, upkeep
from deployments.clusters import router_settings
from deployments.clusters.drivers import driver_for, keep_only
from deployments.clusters.models import Cluster
from deployments.clusters.rechecks import after_failures
from deployments.codec import to_json
from deployments.drivers.base import Driver
from deployments.errors import SlipwayError
from deployments.outcome import fail, succeed
from deployments.pipeline import timeline
from deployments.pipeline.log import DeploymentLog
from deployments.replica_logs import copy_new_lines
from deployments.rollout import Standing
from deployments.services.apply import apply_service
from deployments.services.models import (
    DEFAULT_VERSION,
    UNFINISHED,
    Deployment,
    DeploymentState,
    Service,
    ServiceVersion,
)
from deployments.services.removal import finish_removal, still_there
from deployments.services.restaging import Restaging
from deployments.services.specs import config_of
from deployments.signals import announce
from deployments.types import Cause, Observation, ObservedService, RouteReport, ServiceState

log = logging.getLogger(__name__)

_SEEN_EVERY = timedelta(seconds=5)  # how exact a cluster's "last seen" is
_CAPACITY_EVERY = 15.0
_PRUNE_EVERY = 600.0
_EVIDENCE_LINES = 60


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one cycle came to, for the log."""

    clusters: int
    unseen: tuple[str, ...]
    rolling: int
    requeued: int


@dataclass(slots=True)
class _View:
    """One cluster at one moment."""

    driver: Driver
    observation: Observation
    routes: RouteReport | None
    by_name: dict[str, ObservedService] = field(default_factory=dict)
    changed: frozenset[str] = frozenset()  # services that somebody else laid hands on
    scalers: Mapping[tuple[str, str], str] = field(default_factory=dict)  # by service and version


class Controller:
    """Keeps between cycles only what may be forgotten: when something was done last."""

    def __init__(
        self,
        *,
        driver_of: Callable[[Cluster], Driver] = driver_for,
        limits: rollout.Limits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._driver_of = driver_of
        self._limits = limits
        self._clock = clock
        self._unseen: set[str] = set()
        self._drifted: set[int] = set()
        self._router_drifted: set[int] = set()
        self._queue_away = False
        self._capacity_at: dict[str, float] = {}
        self._pruned_at = clock()
        self._restaging = Restaging()
        # read in a thread of its own, if whoever runs the controller starts one
        self.pod_logs = pod_logs.Collector(settings.HOME.pod_logs, days=settings.ENV.pod_log_days)

    def cycle(self) -> Outcome:
        """Look at everything once. An error of one service or cluster does not stop the others."""
        requeued = self._requeue()
        attached = Cluster.objects.exclude(state=Cluster.State.DETACHING)
        clusters = list(attached.select_related("sku"))
        keep_only({cluster.name for cluster in clusters})
        self.pod_logs.forget(
            [cluster.name for cluster in clusters if cluster.kind == Cluster.Kind.KUBERNETES]
        )
        rolling = 0
        for cluster in clusters:
            try:
                rolling += self._cluster(cluster)
            except Exception:
                log.exception("cluster %s: this cycle failed", cluster.name)
        if self._clock() - self._pruned_at >= _PRUNE_EVERY:
            self._pruned_at = self._clock()
            upkeep.prune(timezone.now())
        return Outcome(len(clusters), tuple(sorted(self._unseen)), rolling, requeued)

    def _requeue(self) -> int:
        try:
            found = upkeep.requeue_lost(timezone.now())
        except SlipwayError as error:
            if not self._queue_away:
                self._queue_away = True
                log.warning("%s", error.message)
            return 0
        self._queue_away = False
        return len(found)

    def _cluster(self, cluster: Cluster) -> int:
        """How many rollouts it has."""
        view = self._look(cluster)
        if view is None:
            return 0
        self._router_drift(cluster, view.driver)
        latest = Deployment.objects.filter(service=OuterRef("pk")).order_by("-pk")
        services = list(
            Service.objects.filter(cluster=cluster)
            .select_related("cluster", "current")
            .prefetch_related(
                Prefetch("versions", ServiceVersion.objects.select_related("current"))
            )
            .annotate(
                last_state=Subquery(latest.values("state")[:1]),
                last_cause=Subquery(latest.values("cause_code")[:1]),
                last_version=Subquery(latest.values("version")[:1]),
            )
        )
        unfinished = {
            deployment.service_id: deployment
            for deployment in Deployment.objects.filter(
                service__cluster=cluster, state__in=UNFINISHED
            ).select_related("service", "revision", "previous")
        }
        for service in services:
            try:
                self._service(service, unfinished.get(service.pk), view)
            except SlipwayError as error:
                log.warning("service %s: %s", service.name, error.message)
            except Exception:
                log.exception("service %s: this cycle failed", service.name)
        if cluster.kind == Cluster.Kind.KUBERNETES:
            self._restaging.turn(cluster, services, view.driver, self._clock())
            self.pod_logs.see(cluster.name, view.driver, view.observation)
        return sum(1 for item in unfinished.values() if item.state == DeploymentState.ROLLING)

    def _look(self, cluster: Cluster) -> _View | None:
        """What the cluster shows now; None when it cannot be seen."""
        try:
            driver = self._driver_of(cluster)
            # the router's word first: a replica it names may still be missing in it, never too many
            routes = driver.routes()
            observation = driver.observe()
            changed = driver.drifted()
        except SlipwayError as error:
            if cluster.name not in self._unseen:
                self._unseen.add(cluster.name)
                log.warning("cluster %s is not seen: %s", cluster.name, error.message)
                announce("cluster", cluster.name)
            return None
        now = timezone.now()
        back = cluster.name in self._unseen
        if back:
            self._unseen.discard(cluster.name)
            log.info("cluster %s is seen again", cluster.name)
        if back or cluster.observed_at is None or now - cluster.observed_at >= _SEEN_EVERY:
            Cluster.objects.filter(pk=cluster.pk).update(observed_at=now)
        if back or cluster.observed_at is None:
            announce("cluster", cluster.name)
        self._capacity(cluster, driver)
        by_name = {item.spec.name: item for item in observation.services}
        try:
            scalers = driver.foreign_scalers()
        except SlipwayError:
            scalers = {}  # it may not be allowed to see them: then nobody is told of
        return _View(driver, observation, routes, by_name, changed, scalers)

    def _capacity(self, cluster: Cluster, driver: Driver) -> None:
        if self._clock() - self._capacity_at.get(cluster.name, 0.0) < _CAPACITY_EVERY:
            return
        self._capacity_at[cluster.name] = self._clock()
        after_failures(cluster)
        capacity = to_json(driver.capacity())
        if cluster.capacity is None or capacity["nodes"] != cluster.capacity.get("nodes"):
            Cluster.objects.filter(pk=cluster.pk).update(capacity=capacity)
            announce("cluster", cluster.name)

    def _router_drift(self, cluster: Cluster, driver: Driver) -> None:
        seen_before = cluster.pk in self._router_drifted
        self._router_drifted.discard(cluster.pk)
        try:
            if router_settings.repair_drift(cluster, driver, seen_before):
                self._router_drifted.add(cluster.pk)
        except SlipwayError as error:
            log.warning("cluster %s: its router is not set up: %s", cluster.name, error.message)

    def _service(self, service: Service, deployment: Deployment | None, view: _View) -> None:
        observed = view.by_name.get(service.name)
        if service.deleting:
            self._removal(service, observed, view)
            return
        if deployment is not None and deployment.state == DeploymentState.ROLLING:
            self._rolling(service, deployment, observed, view)
            return
        standings = rollout.stand_versions(
            observed, view.observation.supervisor_at, view.observation.at
        )
        if deployment is not None:
            # the job has it; an update's old replicas are shown meanwhile
            busy = Standing(ServiceState.TRANSITIONING)
            self._show(service, observed, busy, standings | {deployment.version_name: busy})
            return
        if service.current is None:
            if observed is not None:
                view.driver.remove(service.name)
            left = Standing(ServiceState(service.state), service.state_cause)
            self._show(service, observed, left, {})
            return
        self._drift(service, observed, service.name in view.changed)
        standing = rollout.together(observed, standings)
        said = (_of_the_last(service), standing.reason, _of_scalers(service, view.scalers))
        reason = " ".join(part for part in said if part)
        self._show(service, observed, Standing(standing.state, reason), standings)

    def _removal(self, service: Service, observed: ObservedService | None, view: _View) -> None:
        wanted, running = still_there(service.name, view.observation)
        if wanted:
            view.driver.remove(service.name)
        if not wanted and running == 0:
            finish_removal(service)
            return
        orphans = [r for r in view.observation.orphans if r.service == service.name]
        replicas = list(observed.replicas) if observed else orphans
        self._write(service, {"replicas": to_json(replicas), "desired_replicas": 0})

    def _rolling(
        self,
        service: Service,
        deployment: Deployment,
        observed: ObservedService | None,
        view: _View,
    ) -> None:
        applied_at = deployment.applied_at or deployment.created_at
        if view.observation.at < applied_at.timestamp():
            return  # seen before it was applied
        if observed is None or observed.spec.generation < service.generation:
            self._drift(service, observed)
        goal = rollout.Goal(
            revision=deployment.revision.number,
            minimum=config_of(deployment.revision).to_scaling().minimum,
            applied_at=applied_at.timestamp(),
            version=deployment.version_name,
        )
        journal = DeploymentLog(deployment.pk)
        new = [replica.id for replica in rollout.of_goal(observed, goal)]
        copy_new_lines(deployment, new, view.driver, journal)
        verdict = rollout.follow(
            goal,
            observed,
            view.routes,
            view.observation.supervisor_at,
            self._limits or _limits(),
            view.observation.at,
        )
        self._advance(deployment, verdict.step, applied_at, journal)
        standings = rollout.stand_versions(
            observed, view.observation.supervisor_at, view.observation.at
        )
        if not verdict.finished:
            now = Standing(verdict.state, verdict.reason)
            self._show(service, observed, now, standings | {goal.version: now})
            return
        if verdict.cause is None:
            standing = rollout.together(observed, standings)
            self._show(service, observed, standing, standings)
            succeed(deployment, journal, verdict.reason, standing)
            return
        cause = _with_evidence(verdict.cause, journal)
        log.info("deployment %s failed: %s: %s", deployment.pk, cause.code, cause.message)
        fail(deployment, journal, cause, among=[DeploymentState.ROLLING], state=verdict.state)

    def _advance(
        self, deployment: Deployment, step: str, applied_at: datetime, journal: DeploymentLog
    ) -> None:
        """Close the steps before `step` and open it. The timeline never goes back."""
        now = timezone.now()
        known = rollout.step_index(deployment.step)
        reached = rollout.step_index(step)
        if reached <= known:
            return
        for name in rollout.STEPS[max(known, 0) : reached]:
            timeline.begin(deployment, name, now)
            timeline.end(deployment, name, now=now)
        if step == "healthy":
            return  # written together with the final state
        timeline.begin(deployment, step, now)
        if reached >= rollout.step_index("starting") > known:
            journal.write(f"Checking the status of inference endpoint {deployment.service.name}.")

    def _drift(
        self, service: Service, observed: ObservedService | None, changed: bool = False
    ) -> None:
        """Apply a row the cluster's copy is older than, or of which the cluster made something else;
        twice seen, since rows are read later."""
        seen = observed.spec.generation if observed else -1
        if seen > service.generation:
            # a restored database: what people change next must count as newer than what runs
            Service.objects.filter(pk=service.pk, generation=service.generation).update(
                generation=seen
            )
            return
        if seen == service.generation and not changed:
            self._drifted.discard(service.pk)
        elif service.pk not in self._drifted:
            self._drifted.add(service.pk)
        else:
            log.info(
                "service %s: the cluster has generation %s, the row %s; applied again",
                service.name,
                seen,
                service.generation,
            )
            apply_service(service.pk)
            self._drifted.discard(service.pk)

    def _show(
        self,
        service: Service,
        observed: ObservedService | None,
        standing: Standing,
        standings: Mapping[str, Standing],
    ) -> None:
        """What the rows say of the service and of each of its versions."""
        desired = {item.name: item.desired for item in observed.desired} if observed else {}
        self._write(
            service,
            {
                "state": standing.state.value,
                "state_cause": standing.reason,
                "replicas": to_json(observed.replicas) if observed else [],
                "desired_replicas": sum(desired.values()) if observed else None,
            },
        )
        for version in service.versions.all():
            values: dict[str, Any] = {"desired_replicas": desired.get(version.name)}
            if (own := standings.get(version.name)) is not None:
                values |= {"state": own.state.value, "state_cause": own.reason}
            if any(getattr(version, name) != new for name, new in values.items()):
                # unless a deployment of it ended, or it was deleted, since it was read
                same = ServiceVersion.objects.filter(pk=version.pk, current=version.current_id)
                if same.update(**values):
                    announce("service", service.name)

    def _write(self, service: Service, values: dict[str, Any]) -> None:
        """Write what changed, unless a person changed the row since it was read."""
        changes = {name: new for name, new in values.items() if getattr(service, name) != new}
        if not changes:
            return
        written = Service.objects.filter(pk=service.pk, updated_at=service.updated_at).update(
            **changes, observed_at=timezone.now()
        )
        if written:
            announce("service", service.name)


def _of_the_last(service: Service) -> str:
    """That the latest deployment failed, where it did and its version is still there."""
    if getattr(service, "last_state", "") != DeploymentState.FAILED:
        return ""
    rows = service.versions.all()
    name = getattr(service, "last_version", "") or DEFAULT_VERSION
    version = next((row for row in rows if row.name == name), None)
    if version is None:
        return ""
    of = f" of version {name}" if len(rows) > 1 else ""
    failed = f"The latest deployment{of} failed ({getattr(service, 'last_cause', '')});"
    if version.current is None:
        return f"{failed} the other versions go on."
    return f"{failed} revision {version.current.number} keeps serving."


def _of_scalers(service: Service, scalers: Mapping[tuple[str, str], str]) -> str:
    """That something else scales it too, which a person has to end."""
    found = [
        f"{other} scales version {version} too; the router leaves it alone until that is removed."
        for (name, version), other in sorted(scalers.items())
        if name == service.name
    ]
    return " ".join(found)


def _limits() -> rollout.Limits:
    env = settings.ENV
    return rollout.Limits(
        deploy_seconds=env.deploy_timeout,
        unschedulable_seconds=env.unschedulable_timeout,
        stuck_seconds=env.stuck_timeout,
    )


def _with_evidence(cause: Cause, journal: DeploymentLog) -> Cause:
    """The cause with the last lines of the replicas' output where it brought none."""
    if cause.evidence:
        return cause
    entries, _ = logstore.read(journal.path, limit=1_000_000)
    said = [entry.text for entry in entries if entry.source not in ("pipeline", "build")]
    return Cause(cause.code, cause.message, "\n".join(said[-_EVIDENCE_LINES:]))
