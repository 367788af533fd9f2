"""Deploy the example; part of the first run."""

from typing import Any

from django.core.management.base import BaseCommand

from portal.example import deploy_example


class Command(BaseCommand):
    help = "Train, register and deploy the example model, where that is not done yet."

    def handle(self, *args: Any, **options: Any) -> None:
        deploy_example()
