"""What the environments' pages show: versions with their build's state and who uses them. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q, QuerySet

from deployments.environments import claims, usage
from deployments.environments.models import BuildState, Environment, EnvironmentBuild

NOT_BUILT = "not built"
STALLED = "stalled"


@dataclass(frozen=True, slots=True)
class Row:
    """One version. `state` is a build state's word, "not built", or "stalled": its builder is gone."""

    environment: Environment
    build: EnvironmentBuild | None
    state: str
    used_by: tuple[str, ...]

    @property
    def can_build(self) -> bool:
        return self.state in (NOT_BUILT, STALLED, BuildState.FAILED, BuildState.REMOVED)

    @property
    def can_remove(self) -> bool:
        return self.state == BuildState.READY and not self.used_by


def versions(search: str = "") -> QuerySet[Environment]:
    """Environment versions whose name, hash or description contains the text."""
    found = Environment.objects.select_related("created_by")
    if search:
        found = found.filter(
            Q(name__icontains=search)
            | Q(hash__istartswith=search)
            | Q(description__icontains=search)
        )
    return found


def rows(environments: Sequence[Environment], now: datetime) -> list[Row]:
    """Rows for these versions, in their order."""
    hashes = {environment.hash for environment in environments}
    builds = {build.hash: build for build in EnvironmentBuild.objects.filter(hash__in=hashes)}
    used = usage.services_using(hashes)
    return [
        Row(
            environment,
            builds.get(environment.hash),
            _state(builds.get(environment.hash), now),
            tuple(used.get(environment.hash, ())),
        )
        for environment in environments
    ]


def _state(build: EnvironmentBuild | None, now: datetime) -> str:
    if build is None:
        return NOT_BUILT
    if build.state == BuildState.BUILDING and not claims.is_running(build, now):
        return STALLED
    return str(build.state)
