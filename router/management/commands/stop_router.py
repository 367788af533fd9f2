"""`manage.py stop_router NAME`: end a cluster's HAProxy, gently first."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from router.haproxy.process import HAProxy
from router.run import Place


class Command(BaseCommand):
    help = "Let a cluster's HAProxy finish what it has, then end it. End run_router before."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("cluster", help="name of the cluster, such as local")
        parser.add_argument(
            "--wait", type=float, default=10.0, help="seconds that requests may take to finish"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        place = Place(options["cluster"], settings.HOME)
        # ending it needs no executable, so it works when that was removed or replaced
        outcome = HAProxy(Path(), place.paths).stop(soft=options["wait"])
        self.stdout.write(f"HAProxy of {place.cluster} {outcome}.")
