"""`manage.py run_agent NAME`: start and stop the replicas of a process cluster on this machine."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from deployments.agent.loop import Agent, run_until_told
from deployments.errors import Unavailable


class Command(BaseCommand):
    help = "Run the agent of a process cluster. SIGTERM ends it and leaves its replicas running."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("cluster", help="name of the cluster, such as local")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            run_until_told(Agent(settings.HOME.cluster(options["cluster"])))
        except Unavailable as error:
            raise CommandError(
                f"Another agent runs cluster {options['cluster']}. {error.message}"
            ) from error
