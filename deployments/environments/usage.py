"""Questions about who uses an environment. Reads only."""

from collections import defaultdict
from collections.abc import Iterable

from django.db.models import F, Q

from deployments.environments.models import Environment
from deployments.services.models import Deployment, DeploymentState, Revision, ServiceVersion

_UNFINISHED = (DeploymentState.QUEUED, DeploymentState.RUNNING, DeploymentState.ROLLING)


def services_using(hashes: Iterable[str]) -> dict[str, list[str]]:
    """Names of the services that run on each hash now, or are about to, in order.

    In use are the current revisions of a service's versions and, while one is deployed, the new one
    and the one to go back to. Earlier revisions of the history are not: rolling back to one builds it again.
    """
    wanted = list(hashes)
    found: dict[str, set[str]] = defaultdict(set)
    current = ServiceVersion.objects.filter(current__environment__hash__in=wanted)
    for name, key in current.values_list("service__name", "current__environment__hash"):
        found[key].add(name)
    unfinished = Deployment.objects.filter(state__in=_UNFINISHED).filter(
        Q(revision__environment__hash__in=wanted) | Q(previous__environment__hash__in=wanted)
    )
    rows = unfinished.values_list(
        "service__name", "revision__environment__hash", "previous__environment__hash"
    )
    for name, new, old in rows:
        for key in (new, old):
            if key in wanted:
                found[key].add(name)
    return {key: sorted(names) for key, names in found.items()}


def revisions_of(environment: Environment) -> list[tuple[str, int]]:
    """(service, revision number) of all revisions made with this very environment version."""
    rows = Revision.objects.filter(environment=environment).annotate(name=F("service__name"))
    return list(rows.order_by("name", "number").values_list("name", "number"))
