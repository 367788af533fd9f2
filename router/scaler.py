"""The autoscaler's hands: asks the policy about each version, gives its count to the driver, and writes
the ledger.

`router.autoscaler.policy` decides, `router.hindrances` says what is a row of the ledger; in here is only
who is asked when:

    second    each second, every version with its new sample; but one that stands still at its least, for
              which nobody asked in a whole window, is not asked again
    reading   each turn, the versions in which somebody waits: they may be given more, never fewer

One version's trouble never stops the others'.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from deployments.drivers.base import Driver
from deployments.errors import SlipwayError
from deployments.types import Capacity
from router import hindrances, sampling
from router.autoscaler import policy, window
from router.autoscaler.policy import Code, Limits
from router.autoscaler.window import Load, Reading, Second
from router.haproxy.pool import Key
from router.haproxy.stats import BackendFigures
from router.ring import Ring
from router.samples import DecisionRecord, Sample
from router.versions import Version, Versions

log = logging.getLogger(__name__)

_CAPACITY_EVERY = 10.0


class Scaler:
    """One cluster's. `busy` tells the requests inside each of a version's replicas, by id; `say` tells a
    person of trouble, by its kind, not too often."""

    def __init__(
        self,
        driver: Driver,
        versions: Versions,
        ring: Ring,
        busy: Callable[[Key], dict[str, int]],
        say: Callable[[str, str], None],
        clock: Callable[[], float],
    ) -> None:
        self.driver = driver
        self.versions = versions
        self.ring = ring
        self._busy = busy
        self._say = say
        self._clock = clock
        self.capacity: Capacity | None = None
        self._capacity_at = 0.0
        self._others: Mapping[tuple[str, str], str] = {}  # who else scales a version

    async def second(self, made: Sequence[Sample]) -> None:
        """A second ended, with these samples: one verdict for each version."""
        now = self._clock()
        await self.look_at_room()
        await self._look_at_others()
        measured: Mapping[Key, Sample] = {Key(item.service, item.version): item for item in made}
        idle: dict[tuple[int, int], Second] = {}  # most of a thousand are: the same one for all
        for key, version in self.versions.by_key.items():
            sample = measured.get(key)
            if sample is not None:
                if _loud(sample):
                    version.loud_at = sample.at
                    version.window = version.window.add(window.second([sample]))
                else:
                    alike = (sample.at, sample.ready)
                    second = idle.get(alike) or idle.setdefault(alike, window.second([sample]))
                    version.window = version.window.add(second)
                if _still(version, now) and key not in self._others:
                    version.passed_at = now
                    continue
            await self._decide(key, version, now)
            version.decided = True

    async def look_at_room(self) -> None:
        """What room the cluster has, now and then."""
        now = self._clock()
        if now - self._capacity_at < _CAPACITY_EVERY:
            return
        self._capacity_at = now
        try:
            self.capacity = await asyncio.to_thread(self.driver.capacity)
        except SlipwayError as error:
            self.capacity = None  # unknown, not full
            self._say("capacity", f"the cluster's room is not known: {error.message}")

    async def _look_at_others(self) -> None:
        """Who else scales; where that cannot be seen, whoever did before."""
        try:
            self._others = await asyncio.to_thread(self.driver.foreign_scalers)
        except SlipwayError as error:
            self._say("scalers", f"whether something else scales is not known: {error.message}")

    async def reading(self, at: float, figures: Mapping[Key, BackendFigures]) -> None:
        """What stood in the router at a moment: the versions whose queue may ask for more at once."""
        now = self._clock()
        for key, figure in figures.items():
            if not figure.queued or (version := self.versions.by_key.get(key)) is None:
                continue
            scaling = version.spec.scaling
            if (
                not scaling.autoscale
                or scaling.refresh_seconds > 1
                or version.desired >= scaling.maximum
                or not version.window.seconds
            ):
                continue
            if (version.scaling.looked_at or 0.0) < version.passed_at:
                # it was passed over then because the policy would have said the same
                version.scaling = replace(version.scaling, looked_at=version.passed_at)
            await self._decide(key, version, now, Reading(at, figure.busy, figure.queued))

    def gone(self, versions: Sequence[Version]) -> None:
        """These versions are no more: their stories end."""
        for version in versions:
            self.ring.add(hindrances.end(version.stories, self._clock()))

    async def _decide(
        self, key: Key, version: Version, now: float, reading: Reading | None = None
    ) -> None:
        revision = version.spec.revision
        load = Load(
            desired=version.desired,
            standing=version.standing,
            window=version.window,
            placeable=sampling.placeable(self.capacity, revision.resources),
            other_scaler=self._others.get((key.service, key.version), ""),
            reading=reading,
        )
        limits = Limits(version.spec.scaling, revision.concurrency)
        decision = policy.decide(load, limits, version.scaling, now)
        version.scaling = decision.state
        if reading is not None and decision.code is Code.BETWEEN:
            return  # nothing new since the last verdict
        before = version.desired
        changes = decision.valid and decision.replicas != before
        refusal = await self._apply(key, version, decision.replicas) if changes else ""
        record = _record(now, key, before, decision, changes, refusal)
        if record.applied:
            log.info("%s: %d -> %d: %s", key, before, decision.replicas, decision.reason)
            self.ring.add([record])
        version.stories, rows = hindrances.note(version.stories, record, now)
        self.ring.add(rows)

    async def _apply(self, key: Key, version: Version, replicas: int) -> str:
        """Returns why the cluster did not take the count; "" when it did."""
        prefer: tuple[str, ...] = ()
        if replicas < version.desired:
            order = window.removal_order(version.replicas, self._busy(key))
            prefer = order[: version.desired - replicas]
        scale = self.driver.scale
        try:
            await asyncio.to_thread(scale, key.service, key.version, replicas, prefer)
        except SlipwayError as error:
            log.warning("%s could not be scaled to %d: %s", key, replicas, error.message)
            return error.message or type(error).__name__
        version.desired, version.calm = replicas, False
        self.versions.look_again(key.service)
        return ""


def _record(
    now: float, key: Key, before: int, decision: policy.Decision, changes: bool, refusal: str
) -> DecisionRecord:
    """The verdict as a row. One that the cluster refused is a hindrance, with what it said."""
    reason = decision.reason
    if refusal:
        reason += f" {decision.replicas} was asked for and the cluster refused it: {refusal}"
    return DecisionRecord(
        at=now,
        service=key.service,
        version=key.version,
        before=before,
        after=decision.replicas if changes else before,
        code=hindrances.NOT_APPLIED if refusal else Code(decision.code).value,
        reason=reason,
        applied=changes and not refusal,
        inputs=decision.inputs,
    )


def _loud(sample: Sample) -> bool:
    """Whether anything was asked for, done or waited for in it."""
    return bool(
        sample.arrivals
        or sample.busy_peak
        or sample.queued_peak
        or sample.rejected
        or sample.ok
        or sample.failures
        or sample.timeouts
    )


def _still(version: Version, now: float) -> bool:
    """Whether the policy would say again what it said: nothing came, goes or was asked for in its
    whole window, and the count is the least there may be."""
    return (
        version.calm
        and version.decided
        and not version.stories
        and version.desired == version.spec.scaling.minimum
        and now - version.loud_at > window.SPAN_SECONDS + 2
    )
