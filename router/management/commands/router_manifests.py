"""`manage.py router_manifests FOLDER`: a cluster's router as manifests that `kubectl apply -k` takes."""

import os
import secrets
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from deployments.drivers import kubernetes_manifests as manifests
from deployments.types import KubeSettings, Purpose

_SERVICES = ("ClusterIP", "NodePort", "LoadBalancer")


class Command(BaseCommand):
    help = (
        "Write the objects of a router on Kubernetes to a folder, for kubectl apply -k. Attaching a cluster "
        "in the portal makes the same ones; this is for those who keep manifests themselves."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("folder", type=Path, help="made where it is not there")
        parser.add_argument("--image", required=True, help="what scripts/router-image printed")
        parser.add_argument("--cluster", default="kubernetes", help="the cluster's name in Slipway")
        parser.add_argument("--namespace", default="slipway", help="of the services and the router")
        parser.add_argument(
            "--purpose", choices=[item.value for item in Purpose], default=Purpose.DEV_TEST.value
        )
        parser.add_argument("--service-type", choices=_SERVICES, default="ClusterIP")
        parser.add_argument(
            "--pull-secret", default="", help="a Secret that is there, for the image"
        )
        parser.add_argument(
            "--policy",
            choices=["v1", "v1beta1"],
            default="v1",
            help="v1beta1 before Kubernetes 1.21",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        settings = KubeSettings(
            options["namespace"],
            Purpose(options["purpose"]),
            options["service_type"],
            pull_secret=options["pull_secret"],
            router_image=options["image"],
        )
        files = manifests.folder(
            settings, options["cluster"], budgets=f"policy/{options['policy']}"
        )
        folder: Path = options["folder"]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in files.items():
                (folder / name).write_text(text, encoding="utf-8")
            _keep_token(folder / manifests.TOKEN_FILE)
        except OSError as error:
            raise CommandError(
                f"The manifests could not be written to {folder}: {error}."
            ) from error
        self.stdout.write(
            f"{folder} has the router of {options['cluster']}. Make its namespace, then:\n"
            f"    kubectl apply -k {folder}\n"
            f"{manifests.TOKEN_FILE} is a secret: keep it out of the repository that has the rest."
        )


def _keep_token(path: Path) -> None:
    """Made once, since pods with another token do not know each other; for its owner's eyes."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
    except FileExistsError:
        return
