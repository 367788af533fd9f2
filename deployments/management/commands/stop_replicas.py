"""`manage.py stop_replicas NAME`: end every replica of a process cluster whose agent is gone."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from deployments.agent.stopping import stop_replicas
from deployments.errors import Unavailable


class Command(BaseCommand):
    help = "Stop all replicas of a process cluster within about ten seconds. Stop its agent first."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("cluster", help="name of the cluster, such as local")
        parser.add_argument(
            "--grace", type=float, default=8.0, help="seconds before they are killed (8)"
        )
        parser.add_argument(
            "--wait", type=float, default=5.0, help="seconds to wait for the agent to end (5)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        root = settings.HOME.cluster(options["cluster"])
        try:
            result = stop_replicas(root, grace=options["grace"], wait=options["wait"])
        except Unavailable as error:
            raise CommandError(
                f"The agent of {options['cluster']} still runs and would start them again; "
                "stop it first."
            ) from error
        print(f"replicas stopped: {result.asked}, of which killed: {result.killed}")
