"""Fetch what a router has measured of itself since last time, and keep it.

As `router.telemetry.collect` for services: how far the reading has come moves in the same transaction as
the rows it stands for, by compare-and-set. A router that cannot be reached leaves a gap.
"""

import time
from dataclasses import asdict
from pathlib import Path

from django.db import transaction

from deployments.errors import Unavailable
from deployments.signals import announce
from router.doors import Door, Query, door
from router.size_wire import RouterSample, SizeDecision, SizePage, from_wire
from router.telemetry.router_rollups import LEVELS
from router.telemetry.router_rows import RouterDecision, RouterPlace, RouterSecond

DEADLINE_SECONDS = 2.0
_PAGES_AT_ONCE = 5  # of catching up in one call; the next call goes on


def topic_key(cluster: str) -> str:
    """What `announce("telemetry", ...)` says of a router; no service's name has a colon."""
    return f"router:{cluster}"


def collect(cluster: str, router: Path | Door, now: float | None = None) -> int:
    """Take over everything new of a cluster's router. Returns how many samples and decisions.

    Raises Unavailable when it does not answer in time or says what cannot be read.
    """
    now = time.time() if now is None else now
    way = door(router)
    place, _ = RouterPlace.objects.get_or_create(cluster=cluster)
    taken = 0
    for _ in range(_PAGES_AT_ONCE):
        page = _ask(way, place.epoch, place.seq)
        if not keep(place, page, now):
            break  # another collector was faster
        taken += len(page.samples) + len(page.decisions)
        if len(page.samples) + len(page.decisions) < 2:
            break  # what a second brings: there is no more
    return taken


def _ask(way: Door, epoch: str, after: int) -> SizePage:
    query: Query = {"after": after, "epoch": epoch}
    try:
        return from_wire(way.ask("GET", "/size", DEADLINE_SECONDS, query=query))
    except (ValueError, TypeError) as error:
        raise Unavailable(f"The router's own figures cannot be read: {error}.") from error


def keep(place: RouterPlace, page: SizePage, now: float) -> bool:
    """Write one page and move the place, both or neither. False when somebody else had moved it."""
    forgotten = int(now) - LEVELS[0].keep
    with transaction.atomic():
        here = RouterPlace.objects.filter(pk=place.pk, epoch=place.epoch, seq=place.seq)
        if here.update(epoch=page.epoch, seq=page.next) != 1:
            return False
        RouterSecond.objects.bulk_create(
            [_second(place.cluster, item) for item in page.samples if item.at >= forgotten],
            ignore_conflicts=True,
            batch_size=1000,
        )
        _keep_decisions(place.cluster, page.decisions)
        if page.samples or page.decisions:
            announce("telemetry", topic_key(place.cluster))
    place.epoch, place.seq = page.epoch, page.next
    return True


def _second(cluster: str, sample: RouterSample) -> RouterSecond:
    return RouterSecond(
        cluster=cluster,
        at=sample.at,
        probed=0 if sample.routing_ms is None else 1,
        routing_ms=sample.routing_ms,
        routing_peak_ms=sample.routing_ms,
        idle=sample.idle,
        cpu=sample.cpu,
        cpu_peak=sample.cpu,
        threads=sample.threads,
        pods=sample.pods,
        cores=sample.cores,
        connections=sample.connections,
        connections_peak=sample.connections,
        requests=sample.requests,
    )


def _keep_decisions(cluster: str, decisions: tuple[SizeDecision, ...]) -> None:
    """New rows; and of those that are there, what has become of them."""
    rows = {item.at: RouterDecision(cluster=cluster, **asdict(item)) for item in decisions}
    RouterDecision.objects.bulk_create(
        rows.values(),
        update_conflicts=True,
        unique_fields=["cluster", "at"],
        update_fields=["code", "reason", "threads_after", "pods_after", "applied", "done_at",
                       "until", "over"],
    )  # fmt: skip
