"""Keeping the routers of Kubernetes clusters as they were made: what somebody deleted or changed comes back.

One round looks at each cluster and puts right what drifted (`kubernetes_router_drift` decides when, and when
it is given up). What was found stands among the cluster's checks, what was done in the audit. A cluster that
does not answer is left alone, and one that is being detached too.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from django.db import transaction
from django.utils import timezone

from deployments.audit.record import record
from deployments.clusters import router_settings
from deployments.clusters.drivers import driver_for
from deployments.clusters.models import Cluster
from deployments.codec import to_json
from deployments.drivers import kubernetes_names as names
from deployments.drivers.base import Driver
from deployments.drivers.kubernetes_router_drift import Act, Drift, State, decide
from deployments.errors import SlipwayError, Unavailable
from deployments.signals import announce
from deployments.types import Check, CheckStatus

if TYPE_CHECKING:
    from deployments.drivers.kubernetes_router_keeping import Known

log = logging.getLogger(__name__)

CHECK = "router stands as it was made"
_LOOK_EVERY = 5.0
_REMEDY = (
    "kubectl get deploy,svc,role,rolebinding,netpol -l slipway.dev/part=router shows what stands."
)


@dataclass(slots=True)
class _Kept:
    known: "Known"
    state: State = field(default_factory=State)
    looked_at: float = float("-inf")
    said: Check | None = None


class RouterKeeper:
    """Keeps between rounds only what may be forgotten. One thread uses it."""

    def __init__(
        self,
        *,
        driver_of: Callable[[Cluster], Driver] = driver_for,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._driver_of = driver_of
        self._clock = clock
        self._kept: dict[int, _Kept] = {}

    def round(self) -> None:
        """Look at each cluster whose turn it is."""
        clusters = list(
            Cluster.objects.filter(kind=Cluster.Kind.KUBERNETES, state=Cluster.State.ATTACHED)
        )
        self._kept = {row.pk: self._kept[row.pk] for row in clusters if row.pk in self._kept}
        for cluster in clusters:
            if cluster.checking_at is not None:
                continue  # its router is being made at this moment
            try:
                self._turn(cluster)
            except Unavailable:
                continue  # the controller says so
            except SlipwayError as error:
                self._say(cluster, Check(CHECK, CheckStatus.FAIL, error.message, _REMEDY))
            except Exception:
                log.exception("the router of %s: this round failed", cluster.name)

    def _turn(self, cluster: Cluster) -> None:
        from deployments.drivers import kubernetes_router_keeping as keeping
        from deployments.drivers.kubernetes import KubernetesDriver

        now = self._clock()
        kept = self._kept.setdefault(cluster.pk, _Kept(keeping.Known()))
        if now - kept.looked_at < _LOOK_EVERY:
            return
        kept.looked_at = now
        driver = self._driver_of(cluster)
        if not isinstance(driver, KubernetesDriver):
            return
        drifted = keeping.look(
            driver.kube, driver.settings, cluster.name, cluster.kube_mark, kept.known
        )
        if drifted is None:
            return
        drifted += _settings_drift(cluster, driver)
        verdict = decide(kept.state, drifted, now)
        mending = verdict.act is Act.MEND
        if (
            mending
            and Cluster.objects.filter(
                pk=cluster.pk, checking_at=None, state=Cluster.State.ATTACHED
            ).exists()
        ):
            log.warning("cluster %s: %s; it is put right", cluster.name, verdict.reason)
            # counted before it is tried: what fails each time is not tried for ever
            kept.state = verdict.state
            try:
                keeping.mend(driver.kube, driver.settings, cluster.name, drifted, kept.known)
                router_settings.apply_router(cluster.pk)
            except Unavailable:
                kept.state = replace(verdict.state, mended=verdict.state.mended - 1)
                raise
            self._mended(cluster, drifted)
            words = f"{timezone.now():%Y-%m-%d %H:%M} UTC: {verdict.reason}; it was put right."
            self._say(cluster, Check(CHECK, CheckStatus.PASS, words))
            return
        if not mending:
            kept.state = verdict.state
        if verdict.act is Act.LEAVE:
            self._say(cluster, Check(CHECK, CheckStatus.FAIL, verdict.reason, _REMEDY))
        elif verdict.act is Act.WAIT and kept.state.mended:
            self._say(cluster, Check(CHECK, CheckStatus.UNKNOWN, verdict.reason))
        elif verdict.act is Act.NOTHING and _is_open(cluster):
            self._say(cluster, Check(CHECK, CheckStatus.PASS, "All of it stands again."))

    def _mended(self, cluster: Cluster, drifted: tuple[Drift, ...]) -> None:
        record(
            None,
            "cluster.router.mended",
            "cluster",
            cluster.name,
            before={f"{item.kind} {item.name}": item.words for item in drifted},
        )

    def _say(self, cluster: Cluster, check: Check) -> None:
        """Among the checks, in the place of what was said before; in the log when it is news."""
        kept = self._kept.get(cluster.pk)
        if kept is not None and kept.said != check:
            kept.said = check
            if check.status is CheckStatus.FAIL:
                log.warning("cluster %s: %s", cluster.name, check.evidence)
        with transaction.atomic():
            locked = Cluster.objects.select_for_update().filter(pk=cluster.pk).first()
            if locked is None or locked.checking_at is not None:
                return  # a look that runs writes all of them
            value = to_json(check)
            if value in locked.checks:
                return
            others = [item for item in locked.checks if item.get("name") != CHECK]
            Cluster.objects.filter(pk=cluster.pk).update(checks=[*others, value])
            announce("cluster", cluster.name)


def _settings_drift(cluster: Cluster, driver: Driver) -> tuple[Drift, ...]:
    """Where somebody wrote other settings under the number of ours. An older number is the controller's to
    see."""
    standing, wanted = driver.router_spec(), router_settings.router_spec(cluster)
    if standing.generation != wanted.generation:
        return ()
    same = replace(standing, revoked_tokens=()) == replace(wanted, revoked_tokens=())
    if same and set(wanted.revoked_tokens) <= set(standing.revoked_tokens):
        return ()
    return (Drift("Secret", names.ROUTER_SECRET, names.ROUTER_SECRET, ("data",)),)


def _is_open(cluster: Cluster) -> bool:
    """Whether the latest that was said is that something is wrong."""
    return any(
        item.get("name") == CHECK and item.get("status") != CheckStatus.PASS.value
        for item in cluster.checks
    )
