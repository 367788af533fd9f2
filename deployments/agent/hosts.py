"""Which host a cluster's folder asks for; each is imported on first use."""

from deployments.agent.host import Host
from deployments.drivers import engine_file
from deployments.drivers.process_layout import ClusterFolder


def host_for(folder: ClusterFolder) -> Host:
    """Containers where the folder says how an Engine is reached, else processes of this machine.

    Raises Unavailable when it says so and cannot be read.
    """
    if engine_file.path_of(folder.root).exists():
        from deployments.agent.container_host import ContainerHost

        return ContainerHost(folder)
    from deployments.agent.process_host import ProcessHost

    return ProcessHost(folder)
