"""Run one local run (`deployments.localruns`). Spawned by the portal; not for people."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from deployments.localruns import runner


class Command(BaseCommand):
    help = "Build and keep one local run until it is stopped, unused or gone."
    requires_system_checks = []  # they load every page; a run should start at once

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("run", type=int)

    def handle(self, *args: Any, **options: Any) -> None:
        runner.run(options["run"])
