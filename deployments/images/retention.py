"""Old images are removed from Engines by a rule; what is in a registry stays there.

    removed:   not used for SLIPWAY_IMAGE_DAYS, not among the newest SLIPWAY_IMAGE_KEEP, needed by nobody
    needed by: current revisions, those being deployed or gone back to, and each service's last
               SLIPWAY_IMAGE_HISTORY revisions, which can be rolled back to
    forgotten: what no environment is defined as any more goes at once, with its row

Safety rule: the row is marked first, then it is looked once more who needs the image, then it goes; and the
Engine itself refuses to remove what a container runs. `choose` is pure.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.conf import settings
from django.db.models import F, Window
from django.db.models.functions import RowNumber
from django.utils import timezone

from deployments.engine import build as builder
from deployments.engine import client, files, images
from deployments.environments import claims, usage
from deployments.environments.models import BuildState, Environment
from deployments.errors import Conflict, SlipwayError
from deployments.images import attempt, dockerfile
from deployments.images.engines import all_engines
from deployments.images.models import ImageBuild
from deployments.services.models import Revision
from deployments.signals import announce

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from deployments.types import EngineSpec

log = logging.getLogger(__name__)

_READ_LONG_AGO = timedelta(hours=1)  # a reader gives up after five minutes


@dataclass(frozen=True, slots=True)
class Kept:
    """An image as the rule sees it."""

    hash: str
    last_used_at: datetime


def choose(
    rows: Sequence[Kept], *, needed: Collection[str], now: datetime, days: int, keep: int
) -> list[str]:
    """Hashes whose images may go, the oldest first."""
    newest = sorted(rows, key=lambda row: row.last_used_at, reverse=True)
    old = [
        row.hash
        for row in newest[keep:]
        if row.hash not in needed and row.last_used_at < now - timedelta(days=days)
    ]
    return old[::-1]


def needed_hashes(hashes: Collection[str]) -> set[str]:
    """Of these, the ones that run, are about to, or can be rolled back to without a build."""
    recent = (
        Revision.objects.annotate(
            recency=Window(RowNumber(), partition_by=F("service_id"), order_by=F("number").desc())
        )
        .filter(recency__lte=settings.ENV.image_history)
        .values_list("environment__hash", flat=True)
    )
    return (set(recent) | usage.services_using(hashes).keys()) & set(hashes)


def tidy(now: datetime | None = None) -> int:
    """Apply the rule, and remove what killed builders left. Returns how many things went."""
    at = now or timezone.now()
    rows = list(ImageBuild.objects.filter(state=BuildState.READY))
    kept = [Kept(row.hash, row.last_used_at or at) for row in rows]
    chosen = choose(
        kept,
        needed=needed_hashes([row.hash for row in rows]),
        now=at,
        days=settings.ENV.image_days,
        keep=settings.ENV.image_keep,
    )
    by_hash = {row.hash: row for row in rows}
    gone = sum(forget(row) for row in ImageBuild.objects.exclude(hash__in=_defined()))
    for hash_ in chosen:
        try:
            gone += remove(by_hash[hash_])
        except SlipwayError as error:
            log.info("image %s stays: %s", hash_[:12], error.message)
    return gone + sum(_sweep(spec, at) for spec in all_engines().values())


def remove(row: ImageBuild) -> int:
    """Take an image off all Engines. Raises Conflict where it is needed; 1 when something went.

    An image that is in a registry stays READY: it is pulled when it is needed again.
    """
    if claims.is_running(row, timezone.now()):
        raise Conflict("It is being built; wait for the end of the build, or cancel it.")
    seen = ImageBuild.objects.filter(
        pk=row.pk, state=row.state, claimed_by=row.claimed_by, last_used_at=row.last_used_at
    )
    mark: dict[str, str | None] = {"size": None}
    if row.registry is None:
        mark |= {"state": BuildState.REMOVED.value, "reference": "", "digest": ""}
    if not seen.update(**mark):
        raise Conflict("It was used or built at this moment; look again.")
    if needed_hashes([row.hash]):
        # put back as it was: nothing has been removed yet
        ImageBuild.objects.filter(pk=row.pk, state=mark.get("state", row.state)).update(
            state=row.state, size=row.size, reference=row.reference, digest=row.digest
        )
        used = usage.services_using([row.hash]).get(row.hash)
        who = (
            f"It is used by {', '.join(used)}." if used else "A revision can be rolled back to it."
        )
        raise Conflict(f"{who} Delete or update those services first.")
    announce("environment", row.hash)
    return min(1, sum(_remove_from(spec, row.hash)[0] for spec in all_engines().values()))


def forget(row: ImageBuild) -> int:
    """Of a hash that no environment has any more: its image on every Engine, then its row. What is in a
    registry stays there. 1 when something went; the rest does the next time."""
    if claims.is_running(row, timezone.now()):
        return 0
    seen = ImageBuild.objects.filter(pk=row.pk, state=row.state, claimed_by=row.claimed_by)
    if not seen.update(state=BuildState.REMOVED, reference="", digest="", registry=None, size=None):
        return 0  # somebody defined it again at this moment, and builds it
    found = [_remove_from(spec, row.hash) for spec in all_engines().values()]
    if all(clear for _, clear in found):
        ImageBuild.objects.filter(pk=row.pk, state=BuildState.REMOVED).exclude(
            hash__in=_defined()
        ).delete()
    return min(1, sum(gone for gone, _ in found))


def _defined() -> "QuerySet[Environment, str]":
    return Environment.objects.values_list("hash", flat=True)


def _remove_from(spec: "EngineSpec", hash_: str) -> tuple[bool, bool]:
    """Whether the Engine had it and something is gone, and whether nothing is left there. An Engine that is
    away keeps it until the next time."""
    try:
        engine = client.connect(spec)
    except SlipwayError as error:
        log.info("image %s: %s", hash_[:12], error.message)
        return False, False
    try:
        gone, clear = False, True
        for image in images.labelled(engine, f"{dockerfile.LABEL}={hash_}"):
            if images.containers_of(engine, image.id):
                clear = False
                continue
            gone = images.remove(engine, image.id, force=True) or gone
        return gone, clear
    except SlipwayError as error:
        log.warning("image %s was not removed: %s", hash_[:12], error.message)
        return False, False
    finally:
        engine.close()


def _sweep(spec: "EngineSpec", now: datetime) -> int:
    """Remove builder containers, and what they left, of hashes that nobody builds now; and containers
    that a killed worker made to list an image."""
    try:
        engine = client.connect(spec)
    except SlipwayError as error:
        log.info("nothing is swept: %s", error.message)
        return 0
    try:
        left = {hash_ for _, hash_ in builder.left_over(engine)}
        left |= {image.labels[builder.LABEL] for image in images.labelled(engine, builder.LABEL)}
        known = {row.hash: row for row in ImageBuild.objects.filter(hash__in=left)}
        # a hash without a row is another Slipway's, which shares the Engine
        idle = [key for key, row in known.items() if not claims.is_running(row, now)]
        read = files.remove_left_over(engine, before=(now - _READ_LONG_AGO).timestamp())
        return read + sum(attempt.clear(engine, hash_) for hash_ in idle)
    except SlipwayError as error:
        log.warning("what builders left was not swept: %s", error.message)
        return 0
    finally:
        engine.close()
