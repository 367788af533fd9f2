"""Print the table of `docs/settings.md`."""

from typing import Any

from django.core.management.base import BaseCommand

from portal.settings_table import markdown


class Command(BaseCommand):
    help = "Print the settings as the table that docs/settings.md holds."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(markdown(), ending="")
