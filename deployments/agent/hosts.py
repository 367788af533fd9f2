"""The hosts by kind of cluster; each is imported on first use."""

from deployments.agent.host import Host
from deployments.drivers import engine_file
from deployments.drivers.process_layout import ClusterFolder
from deployments.types import ClusterKind


def host_for(folder: ClusterFolder, kind: ClusterKind) -> Host:
    """Raises Unavailable when a Docker cluster's folder does not say how its Engine is reached."""
    if kind is ClusterKind.DOCKER:
        from deployments.agent.container_host import ContainerHost

        return ContainerHost(folder)
    from deployments.agent.process_host import ProcessHost

    return ProcessHost(folder)


def kind_of(folder: ClusterFolder) -> ClusterKind:
    """What a folder that stands is, for whoever ends what runs there without a row to ask."""
    docker = engine_file.path_of(folder.root).exists()
    return ClusterKind.DOCKER if docker else ClusterKind.PROCESS
