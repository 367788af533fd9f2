"""Who builds a hash now: one row a hash, taken by compare-and-set, kept by a lease.

    queued | failed | removed | building with its lease run out
        -> building (claimed) -> ready | failed | queued (given back)

Every write of a builder names its own claim, so one that lost it (a machine that slept) changes
nothing any more. `decide` is pure; the rest are single updates.
"""

import secrets
from datetime import datetime, timedelta
from enum import Enum

from django.db.models import Q, QuerySet

from deployments.claims import holder, known_dead
from deployments.environments.models import BuildState, EnvironmentBuild
from deployments.signals import announce

LEASE = timedelta(seconds=30)


class Next(Enum):
    """What somebody who needs the build does next."""

    USE = "use"
    BUILD = "build"
    WAIT = "wait"
    FAIL = "fail"


def decide(state: str, *, complete: bool, running: bool, waited: bool) -> Next:
    """`complete`: the environment is on disk; `running`: somebody alive builds it; `waited`: this
    caller saw it being built before."""
    if state == BuildState.READY:
        return Next.USE if complete else Next.BUILD
    if state == BuildState.BUILDING and running:
        return Next.WAIT
    if state == BuildState.FAILED and waited:
        return Next.FAIL  # it ran while we waited: a second attempt would fail the same way
    return Next.BUILD


def is_running(build: EnvironmentBuild, now: datetime) -> bool:
    """Whether somebody who still shows signs of life builds it."""
    return (
        build.state == BuildState.BUILDING
        and build.claimed_until is not None
        and build.claimed_until > now
        and not known_dead(build.claimed_by.partition("#")[0])
    )


def claim(build: EnvironmentBuild, now: datetime) -> str:
    """Take the build as it was seen; the claim's name, or "" when somebody else was faster."""
    name = f"{holder()}#{secrets.token_hex(4)}"
    seen = Q(pk=build.pk, state=build.state, claimed_by=build.claimed_by)
    taken = EnvironmentBuild.objects.filter(seen, claimed_until=build.claimed_until).update(
        state=BuildState.BUILDING,
        claimed_by=name,
        claimed_until=now + LEASE,
        started_at=now,
        finished_at=None,
        location="",
        size=None,
        error="",
        error_code="",
    )
    if not taken:
        return ""
    announce("environment", build.hash)
    return name


def renew(pk: int, name: str, now: datetime) -> bool:
    """Show a sign of life. False: the claim is lost."""
    return _mine(pk, name).update(claimed_until=now + LEASE) == 1


def finish(pk: int, name: str, *, location: str, size: int, now: datetime) -> bool:
    """The environment stands. False: the claim is lost and so is the right to say so."""
    return (
        _mine(pk, name).update(
            state=BuildState.READY,
            location=location,
            size=size,
            finished_at=now,
            last_used_at=now,
            claimed_by="",
            claimed_until=None,
        )
        == 1
    )


def fail(pk: int, name: str, *, code: str, message: str, now: datetime) -> bool:
    return (
        _mine(pk, name).update(
            state=BuildState.FAILED,
            error_code=code,
            error=message,
            finished_at=now,
            claimed_by="",
            claimed_until=None,
        )
        == 1
    )


def give_back(pk: int, name: str) -> bool:
    """The builder is being stopped: let the next one start at once instead of after the lease."""
    return _mine(pk, name).update(state=BuildState.QUEUED, claimed_by="", claimed_until=None) == 1


def _mine(pk: int, name: str) -> QuerySet[EnvironmentBuild]:
    return EnvironmentBuild.objects.filter(pk=pk, state=BuildState.BUILDING, claimed_by=name)
