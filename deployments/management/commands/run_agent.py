"""`manage.py run_agent NAME`: start and stop the replicas of a process or a Docker cluster."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from deployments.agent.hosts import host_for
from deployments.agent.loop import Agent, run_until_told
from deployments.drivers.process_layout import ClusterFolder
from deployments.errors import Unavailable
from deployments.types import ClusterKind


class Command(BaseCommand):
    help = "Run the agent of a cluster. SIGTERM ends it and leaves its replicas running."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("cluster", help="name of the cluster, such as local")
        parser.add_argument(
            "--kind",
            choices=[ClusterKind.PROCESS.value, ClusterKind.DOCKER.value],
            default=ClusterKind.PROCESS.value,
            help="what its replicas are (process)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        root = settings.HOME.cluster(options["cluster"])
        folder = ClusterFolder(root)
        try:
            host = host_for(folder, ClusterKind(options["kind"]))
        except Unavailable as error:
            raise CommandError(error.message) from error
        try:
            run_until_told(Agent(root, host))
        except Unavailable as error:
            raise CommandError(
                f"Another agent runs cluster {options['cluster']}. {error.message}"
            ) from error
