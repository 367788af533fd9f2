"""Who builds a hash now: one row a hash, taken by compare-and-set, kept by a lease.

    queued | failed | removed | building with its lease run out
        -> building (claimed) -> ready | failed | queued (given back)

The same for virtual environments (`EnvironmentBuild`) and for images (`images.models.ImageBuild`): a row
says in `UNBUILT` what it holds while nothing stands. Every write of a builder names its own claim, so one
that lost it (a machine that slept) changes nothing any more. `decide` is pure; the rest are single updates.
"""

import secrets
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Union

from django.db.models import QuerySet

from deployments.claims import holder, known_dead
from deployments.environments.models import BuildState, EnvironmentBuild
from deployments.signals import announce

if TYPE_CHECKING:
    from deployments.images.models import ImageBuild

Build = Union[EnvironmentBuild, "ImageBuild"]

LEASE = timedelta(seconds=30)


class Next(Enum):
    """What somebody who needs the build does next."""

    USE = "use"
    BUILD = "build"
    WAIT = "wait"
    FAIL = "fail"


def decide(state: str, *, complete: bool, running: bool, waited: bool) -> Next:
    """`complete`: what was built still stands; `running`: somebody alive builds it; `waited`: this
    caller saw it being built before."""
    if state == BuildState.READY:
        return Next.USE if complete else Next.BUILD
    if state == BuildState.BUILDING and running:
        return Next.WAIT
    if state == BuildState.FAILED and waited:
        return Next.FAIL  # it ran while we waited: a second attempt would fail the same way
    return Next.BUILD


def is_running(build: Build, now: datetime) -> bool:
    """Whether somebody who still shows signs of life builds it."""
    return (
        build.state == BuildState.BUILDING
        and build.claimed_until is not None
        and build.claimed_until > now
        and not known_dead(build.claimed_by.partition("#")[0])
    )


def claim(build: Build, now: datetime) -> str:
    """Take the build as it was seen; the claim's name, or "" when somebody else was faster."""
    name = f"{holder()}#{secrets.token_hex(4)}"
    seen = type(build).objects.filter(
        pk=build.pk,
        state=build.state,
        claimed_by=build.claimed_by,
        claimed_until=build.claimed_until,
    )
    taken = seen.update(
        **build.UNBUILT,
        state=BuildState.BUILDING,
        claimed_by=name,
        claimed_until=now + LEASE,
        started_at=now,
        finished_at=None,
        error="",
        error_code="",
    )
    if not taken:
        return ""
    announce("environment", build.hash)
    return name


def renew(build: Build, name: str, now: datetime) -> bool:
    """Show a sign of life. False: the claim is lost."""
    return mine(build, name).update(claimed_until=now + LEASE) == 1


def finish(build: Build, name: str, *, now: datetime, **built: Any) -> bool:
    """It stands, as `built` says. False: the claim is lost and so is the right to say so."""
    ended = {"finished_at": now, "last_used_at": now, "claimed_by": "", "claimed_until": None}
    return mine(build, name).update(state=BuildState.READY, **ended, **built) == 1


def fail(build: Build, name: str, *, code: str, message: str, now: datetime) -> bool:
    return (
        mine(build, name).update(
            state=BuildState.FAILED,
            error_code=code,
            error=message,
            finished_at=now,
            claimed_by="",
            claimed_until=None,
        )
        == 1
    )


def give_back(build: Build, name: str) -> bool:
    """The builder is being stopped: let the next one start at once instead of after the lease."""
    return mine(build, name).update(state=BuildState.QUEUED, claimed_by="", claimed_until=None) == 1


def mine(build: Build, name: str) -> QuerySet[Any]:
    """The row, for as long as this claim on it holds."""
    return type(build).objects.filter(pk=build.pk, state=BuildState.BUILDING, claimed_by=name)
