"""Fetch what a router has measured and decided since last time, and keep it.

How far the reading has come (the router run's epoch and a sequence number) stands on the cluster's
row and moves in the same transaction as the rows it stands for, by compare-and-set. So a collector
that is killed reads the same page again and one that runs twice writes nothing twice.

A router that cannot be reached leaves a gap; nothing is made up for it.
"""

import math
import time
from operator import attrgetter
from pathlib import Path
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from deployments.clusters.models import Cluster
from deployments.errors import Unavailable
from deployments.signals import announce
from router.doors import Door, Query, door
from router.samples import DecisionRecord, Sample, TelemetryPage, from_wire
from router.telemetry import bulk, rollups
from router.telemetry.columns import COLUMNS, HISTOGRAMS, MEANS, PEAKS, SUMS
from router.telemetry.models import Decision, Second, Series, pack_histogram

DEADLINE_SECONDS = 2.0
_PAGES_AT_ONCE = 20  # of catching up in one call; the next call goes on
# Open pages are told of so many services a second, in turn where there are more of them.
_TOLD_AT_ONCE = 50
# An outcome that did not come within this time is not waited for: the start timed out.
_OUTCOME_SECONDS = 3_600


class Raced(Exception):
    """Another collector was faster; its rows are there, these are not needed."""


def collect(cluster: Cluster, router: Path | Door, now: float | None = None) -> int:
    """Take over everything new. Returns how many samples and decisions were in it.

    Raises Unavailable when the router does not answer in time or says what cannot be read.
    """
    now = time.time() if now is None else now
    way = door(router)
    taken = 0
    for _ in range(_PAGES_AT_ONCE):
        page = _read(way, cluster)
        fresh = (page.epoch, page.next) == (cluster.telemetry_epoch, cluster.telemetry_seq)
        try:
            keep(cluster, page, now)
        except Raced:
            cluster.refresh_from_db(fields=["telemetry_epoch", "telemetry_seq"])
            return taken
        taken += len(page.samples) + len(page.decisions)
        if fresh or not (page.samples or page.decisions):
            break
    return taken


def _read(way: Door, cluster: Cluster) -> TelemetryPage:
    page = _ask(way, cluster.telemetry_epoch, cluster.telemetry_seq)
    if page.epoch != cluster.telemetry_epoch and cluster.telemetry_seq:
        # The loop was started anew and counts from the beginning: so does the reading.
        page = _ask(way, page.epoch, 0)
    return page


def _ask(way: Door, epoch: str, after: int) -> TelemetryPage:
    query: Query = {"after": after, "epoch": epoch}
    try:
        return from_wire(way.ask("GET", "/telemetry", DEADLINE_SECONDS, query=query))
    except (ValueError, TypeError, AttributeError) as error:
        raise Unavailable(f"The router's telemetry cannot be read: {error}.") from error


def keep(cluster: Cluster, page: TelemetryPage, now: float) -> None:
    """Write one page and move the cluster's place in the stream, both or neither. Raises Raced."""
    forgotten = int(now) - rollups.LEVELS[0].keep
    samples = [sample for sample in page.samples if sample.at >= forgotten]
    with transaction.atomic():
        place = Cluster.objects.filter(
            pk=cluster.pk,
            telemetry_epoch=cluster.telemetry_epoch,
            telemetry_seq=cluster.telemetry_seq,
        )
        moved = place.update(
            telemetry_epoch=page.epoch, telemetry_seq=page.next, router_seen_at=timezone.now()
        )
        if moved != 1:
            raise Raced
        if samples or page.decisions:
            ids = _series(cluster.name, samples, page.decisions)
            _keep_samples(samples, ids)
            _keep_decisions(page.decisions, ids)
            _note_outcomes(samples, ids, now)
        for service in _told(_keys(samples, page.decisions), now):
            announce("telemetry", service)
    cluster.telemetry_epoch, cluster.telemetry_seq = page.epoch, page.next


Key = tuple[str, str]  # service, version
_numbers = attrgetter(*SUMS, *MEANS, *PEAKS)
_histograms = attrgetter(*HISTOGRAMS)


def _keys(samples: list[Sample], decisions: tuple[DecisionRecord, ...]) -> set[Key]:
    return {(sample.service, sample.version) for sample in samples} | {
        (decision.service, decision.version) for decision in decisions
    }


def _told(keys: set[Key], now: float) -> list[str]:
    services = sorted({service for service, _ in keys})
    if len(services) <= _TOLD_AT_ONCE:
        return services
    turn = int(now) % -(-len(services) // _TOLD_AT_ONCE)
    return services[turn * _TOLD_AT_ONCE : (turn + 1) * _TOLD_AT_ONCE]


def _series(
    cluster: str, samples: list[Sample], decisions: tuple[DecisionRecord, ...]
) -> dict[Key, int]:
    """Ids of the series that these belong to, made where they are new."""
    wanted = _keys(samples, decisions)
    known = _known(cluster, wanted)
    new = wanted - known.keys()
    if new:
        Series.objects.bulk_create(
            [Series(cluster=cluster, service=s, version=v) for s, v in sorted(new)],
            ignore_conflicts=True,
        )
        known = _known(cluster, wanted)
    return known


def _known(cluster: str, wanted: set[Key]) -> dict[Key, int]:
    rows = Series.objects.filter(cluster=cluster).values_list("service", "version", "pk")
    return {(service, version): pk for service, version, pk in rows if (service, version) in wanted}


def _keep_samples(samples: list[Sample], ids: dict[Key, int]) -> None:
    if not samples:
        return
    bulk.write(
        Second, COLUMNS, [_row(ids[sample.service, sample.version], sample) for sample in samples]
    )
    rollups.reopen(min(sample.at for sample in samples))


def _row(series: int, sample: Sample) -> tuple[Any, ...]:
    """The sample as a row of `COLUMNS`."""
    return (series, sample.at, 1, *_numbers(sample), *map(pack_histogram, _histograms(sample)))


def _keep_decisions(decisions: tuple[DecisionRecord, ...], ids: dict[Key, int]) -> None:
    """New rows; and of those that are there, how long what they tell of has gone on."""
    rows = {
        (record.service, record.version, record.at): Decision(
            series_id=ids[record.service, record.version],
            at=record.at,
            before=record.before,
            after=record.after,
            code=record.code,
            reason=record.reason,
            applied=record.applied,
            inputs=record.inputs,
            until=record.until,
            over=record.over,
        )
        for record in decisions
    }
    Decision.objects.bulk_create(
        rows.values(),
        update_conflicts=True,
        unique_fields=["series", "at"],
        update_fields=["until", "over"],
    )


def _note_outcomes(samples: list[Sample], ids: dict[Key, int], now: float) -> None:
    """Write down when as many replicas as were asked for were ready: at least so many of more, at
    most of fewer. A change the other way ends the wait: what is ready after it is not its doing."""
    waiting = list(
        Decision.objects.select_related(None)
        .filter(applied=True, ready_at=None, at__gte=now - _OUTCOME_SECONDS)
        .exclude(after=F("before"))
    )
    if not waiting:
        return
    seen: dict[int, list[tuple[int, int]]] = {}
    for sample in samples:
        seen.setdefault(ids[sample.service, sample.version], []).append((sample.at, sample.ready))
    changes = _changes({item.series_id for item in waiting}, min(item.at for item in waiting))
    done = []
    for decision in waiting:
        up = decision.after > decision.before
        turned = (
            at
            for at, before, after in changes[decision.series_id]
            if at > decision.at and (after < decision.after if up else after > decision.after)
        )
        end = next(turned, math.inf)
        for at, ready in sorted(seen.get(decision.series_id, ())):
            reached = ready >= decision.after if up else ready <= decision.after
            if decision.at - 1 <= at < end and reached:
                decision.ready_at = max(float(at + 1), decision.at)
                done.append(decision)
                break
    Decision.objects.bulk_update(done, ["ready_at"])


def _changes(series: set[int], since: float) -> dict[int, list[tuple[float, int, int]]]:
    """(at, before, after) of the changes of each series, oldest first."""
    found: dict[int, list[tuple[float, int, int]]] = {pk: [] for pk in series}
    rows = Decision.objects.filter(series__in=series, at__gte=since, applied=True).order_by("at")
    for pk, at, before, after in rows.values_list("series_id", "at", "before", "after"):
        found[pk].append((at, before, after))
    return found
