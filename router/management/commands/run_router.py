"""`manage.py run_router NAME`: the control loop of one cluster's router, with its HAProxy."""

import asyncio
import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from deployments import drivers
from deployments.drivers import kubernetes_router as shapes
from deployments.drivers.base import Driver
from deployments.errors import SlipwayError
from deployments.types import ClusterKind, KubeSettings, Purpose
from router.dataplane import Settings
from router.haproxy.render import PeerConfig
from router.run import Place, Pod, run


class Command(BaseCommand):
    help = (
        "Route requests to a cluster's replicas and scale them. "
        "On SIGTERM the loop ends and HAProxy serves on; stop_router ends HAProxy too. "
        "In a pod (--kind kubernetes) SIGTERM drains both."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("cluster", help="name of the cluster, such as local")
        parser.add_argument(
            "--kind",
            choices=[kind.value for kind in ClusterKind],
            default=ClusterKind.PROCESS.value,
            help="what its replicas are (process); kubernetes is for inside the cluster only",
        )
        parser.add_argument("--bind", default=settings.ENV.router_bind)
        parser.add_argument("--port", type=int, default=settings.ENV.router_port)
        parser.add_argument("--tls-port", type=int, default=settings.ENV.router_tls_port)
        pod = parser.add_argument_group("in a pod (deployments/drivers/kubernetes_router.py)")
        pod.add_argument("--pod", default="", help="this pod's name")
        pod.add_argument("--pod-ip", default="")
        pod.add_argument("--node", default="", help="the node that it runs on")
        pod.add_argument("--namespace", default="default")
        pod.add_argument(
            "--purpose", choices=[item.value for item in Purpose], default=Purpose.DEV_TEST.value
        )
        pod.add_argument("--peer-token-file", type=Path, help="what all pods know each other by")

    def handle(self, *args: Any, **options: Any) -> None:
        place = Place(options["cluster"], settings.HOME)
        kind = ClusterKind(options["kind"])
        try:
            if kind is ClusterKind.KUBERNETES:
                asyncio.run(_in_pod(place, options))
                return
            driver = drivers.load(kind, {"root": settings.HOME.cluster(place.cluster)})
            chosen = Settings(
                bind=options["bind"],
                port=options["port"],
                backends=settings.ENV.router_backends,
                slots=settings.ENV.router_slots,
                tls_port=options["tls_port"],
                slot_folder=place.slots,
            )
            asyncio.run(run(place, driver, chosen, settings.ENV.haproxy_bin))
        except SlipwayError as error:
            raise CommandError(error.message) from error


async def _in_pod(place: Place, options: dict[str, Any]) -> None:
    """The router as one pod of its cluster."""
    from deployments.kube.access import inside
    from deployments.kube.api import Kube
    from router.kube_source import KubeSource

    namespace, token = options["namespace"], _token(options["peer_token_file"])
    spec = inside(os.environ)  # Kubernetes' own words to a pod
    if spec is None:
        raise CommandError("This is no pod: nothing says where its API server is.")
    kube = Kube(spec)
    wanted = KubeSettings(namespace=namespace, purpose=Purpose(options["purpose"]))
    driver: Driver = drivers.load(ClusterKind.KUBERNETES, {"kube": kube, "settings": wanted})
    bind = "::" if ":" in options["pod_ip"] else "0.0.0.0"  # noqa: S104  what a pod is for
    chosen = Settings(
        bind=bind,
        port=shapes.SCORE_PORT,
        backends=settings.ENV.router_backends,
        slots=settings.ENV.router_slots,
        tls_port=shapes.TLS_PORT,
        peers=PeerConfig(bind, shapes.PEER_PORT, str(settings.HOME.run / "peer.sock"), token),
        node=options["node"],
    )
    source = KubeSource(kube, namespace)
    grace = shapes.GRACE_SECONDS - shapes.LEAVE_SECONDS - 10.0
    pod = Pod(options["pod"], source, token, shapes.ADMIN_PORT, grace)
    try:
        await run(place, driver, chosen, settings.ENV.haproxy_bin, pod)
    finally:
        source.close()


def _token(file: Path | None) -> str:
    if file is None:
        raise CommandError("A router in a pod takes --peer-token-file.")
    try:
        token = file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}.") from error
    if not token.isalnum():
        raise CommandError(f"{file} holds no token of letters and digits.")
    return token
