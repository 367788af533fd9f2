"""`manage.py run_router NAME`: the control loop of one cluster's router, with its HAProxy."""

import asyncio
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from deployments import drivers
from deployments.errors import SlipwayError
from deployments.types import ClusterKind
from router.dataplane import Settings
from router.run import Place, run


class Command(BaseCommand):
    help = (
        "Route requests to a cluster's replicas and scale them. "
        "On SIGTERM the loop ends and HAProxy serves on; stop_router ends HAProxy too."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("cluster", help="name of the cluster, such as local")
        parser.add_argument(
            "--kind",
            choices=[ClusterKind.PROCESS.value, ClusterKind.DOCKER.value],
            default=ClusterKind.PROCESS.value,
            help="what its replicas are (process)",
        )
        parser.add_argument("--bind", default=settings.ENV.router_bind)
        parser.add_argument("--port", type=int, default=settings.ENV.router_port)
        parser.add_argument("--tls-port", type=int, default=settings.ENV.router_tls_port)

    def handle(self, *args: Any, **options: Any) -> None:
        cluster = options["cluster"]
        place = Place(cluster, settings.HOME)
        driver = drivers.load(
            ClusterKind(options["kind"]), {"root": settings.HOME.cluster(cluster)}
        )
        chosen = Settings(
            bind=options["bind"],
            port=options["port"],
            backends=settings.ENV.router_backends,
            slots=settings.ENV.router_slots,
            tls_port=options["tls_port"],
            slot_folder=place.slots,
        )
        try:
            asyncio.run(run(place, driver, chosen, settings.ENV.haproxy_bin))
        except SlipwayError as error:
            raise CommandError(error.message) from error
