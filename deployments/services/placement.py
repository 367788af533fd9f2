"""What a cluster's row says about a deployment: does it fit, and can its environment be made there.

Reads rows and looks which Pythons this machine has; changes nothing. `fits` and `mapping` decide.
"""

from django.conf import settings

from deployments.clusters.changes import capacity_of
from deployments.clusters.models import Cluster
from deployments.environments import interpreters
from deployments.environments.definition import Definition, parse
from deployments.environments.mapping import process_plan
from deployments.environments.models import BuildState, Environment, EnvironmentBuild
from deployments.errors import InvalidInput
from deployments.images.models import Registry
from deployments.services import fits
from deployments.services.config import DeploymentConfig


def misfits_on(config: DeploymentConfig, cluster: Cluster | None) -> list[InvalidInput]:
    """Why no replica could ever run there, by the capacity that was read last."""
    if cluster is None:
        return []
    return fits.misfits(config, capacity_of(cluster), cluster.purpose, cluster.sku.name)


def unbuildable(environment: Environment | None, cluster: Cluster | None) -> list[InvalidInput]:
    """Why this environment can never be built for this cluster; empty where it stands already."""
    if environment is None:
        return []
    if missing := unreachable(cluster):
        return missing
    ready = EnvironmentBuild.objects.filter(hash=environment.hash, state=BuildState.READY)
    if ready.exists():
        return []
    definition = parse(
        base_image=environment.base_image,
        docker_steps=environment.docker_steps,
        conda_yaml=environment.conda_yaml,
        pip_requirements=environment.pip_requirements,
    )
    return environment_problems(definition, cluster)


def environment_problems(definition: Definition, cluster: Cluster | None) -> list[InvalidInput]:
    """What of a definition this kind of cluster has no means for, such as conda's own packages."""
    if missing := unreachable(cluster):
        return missing
    if cluster is None or cluster.kind != Cluster.Kind.PROCESS:
        return []
    found = process_plan(definition, tuple(interpreters.find())).problems
    return [InvalidInput(item.message, field="environment") for item in found]


def unreachable(cluster: Cluster | None) -> list[InvalidInput]:
    """What the nodes of a Kubernetes cluster could not get: they pull images and fetch files themselves."""
    if cluster is None or cluster.kind != Cluster.Kind.KUBERNETES:
        return []
    found = []
    roles = (Registry.Role.WORKSPACE, Registry.Role.GLOBAL)
    if not Registry.objects.filter(role__in=roles).exists():
        found.append(
            f"The nodes of {cluster.name} pull images from a registry, and none is set up. Add the "
            "workspace's registry under Registries."
        )
    if not (cluster.kube_blob_url or settings.ENV.node_url):
        found.append(
            f"The pods of {cluster.name} fetch models' files from the portal, and no address is set by which "
            "they reach it. Enter one on the cluster's page, or set SLIPWAY_NODE_URL."
        )
    return [InvalidInput(message, field="cluster") for message in found]
