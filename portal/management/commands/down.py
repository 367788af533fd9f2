"""Stop everything `up` started: the processes, then HAProxy and the replicas that outlive them."""

import time
from argparse import ArgumentParser
from contextlib import suppress
from typing import Any

import psutil
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import DatabaseError

from deployments.localruns import changes as local_runs
from portal.supervision import Supervisor

_SUPERVISOR_SECONDS = 30.0


class Command(BaseCommand):
    help = "Stop all processes, the router's HAProxy and all replicas on this machine."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--quiet", action="store_true", help="Say nothing when it works.")

    def handle(self, *args: Any, **options: Any) -> None:
        stopped = stop_supervisor(Supervisor(settings.HOME.run))
        _stop_local_runs()
        # No portal process is left that could start them again.
        for folder in sorted(settings.HOME.clusters.iterdir()):
            call_command("stop_router", folder.name, stdout=self.stdout)
            call_command("stop_replicas", folder.name, stdout=self.stdout)
        if not options["quiet"]:
            self.stdout.write("Slipway is stopped." if stopped else "Slipway was not running.")


def _stop_local_runs() -> None:
    # a database that is not there, or is older than this version, has none
    with suppress(DatabaseError):
        local_runs.stop_all()


def stop_supervisor(supervisor: Supervisor) -> bool:
    """Stop supervisord and its processes; kills it after 30 s. False when none ran."""
    pid = supervisor.pid()
    if pid is None:
        return False
    process = psutil.Process(pid)
    # its own processes only: HAProxy and the replicas below them are stopped gently, later
    children = process.children()
    supervisor.shutdown()
    deadline = time.monotonic() + _SUPERVISOR_SECONDS
    while time.monotonic() < deadline and process.is_running():
        time.sleep(0.05)
    for left in [process, *children]:
        # gone already, as a rule; psutil checks the start time too, so no stranger is hit
        with suppress(psutil.NoSuchProcess):
            left.kill()
    return True
