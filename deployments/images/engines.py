"""Which Docker Engine builds, and which must have an image before replicas start: read from rows."""

from dataclasses import dataclass

from django.conf import settings

from deployments.clusters.engines import spec_of
from deployments.clusters.models import Cluster
from deployments.types import EngineSpec


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image is wanted.

    `engine` builds it. `runs_there`: replicas are started from that very Engine, so the image must be on it.
    `needs_registry`: nodes pull it themselves. `refuse` is the cluster's severity, "" none.
    """

    engine: EngineSpec
    runs_there: bool = False
    needs_registry: bool = False
    refuse: str = ""


def place_of(cluster: Cluster) -> Place:
    """Raises PermanentError when a stored key cannot be decrypted."""
    docker = cluster.kind == Cluster.Kind.DOCKER
    engine = spec_of(cluster) if docker and cluster.engine_url else default_engine()
    return Place(
        engine=engine, runs_there=docker, needs_registry=not docker, refuse=cluster.refuse_severity
    )


def default_place() -> Place:
    """Of a build that somebody asked for on an environment's page."""
    return Place(engine=default_engine())


def default_engine() -> EngineSpec:
    return EngineSpec(settings.ENV.docker_host)


def all_engines() -> dict[str, EngineSpec]:
    """By address: the default one where images were built, and those of Docker clusters."""
    found = {settings.ENV.docker_host: default_engine()}
    for cluster in Cluster.objects.filter(kind=Cluster.Kind.DOCKER).exclude(engine_url=""):
        found[cluster.engine_url] = spec_of(cluster)
    return found
