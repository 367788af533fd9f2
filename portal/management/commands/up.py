"""Bring Slipway up on this machine: migrations, first run, then all processes under a supervisor."""

import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from deployments.clusters.models import Cluster
from deployments.services.models import Deployment
from portal.cluster_programs import write_files
from portal.example import (
    CLUSTER,
    EXAMPLE,
    ExampleFailed,
    check_cluster,
    curl,
    router_url,
    wait_until_it_answers,
)
from portal.models import Role, User
from portal.processlog import ProcessLog
from portal.supervision import Program, Supervisor, programs, render

_PAGE_SECONDS = 60.0
_EXAMPLE_SECONDS = 300.0


class Command(BaseCommand):
    help = "Start all processes; see scripts/start."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--detach",
            action="store_true",
            help="Go to the background; on a first run, once the example's endpoint answers.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        with _one_start_at_a_time():
            supervisor = Supervisor(settings.HOME.run)
            if supervisor.pid() is not None:
                supervisor.start_all()  # the start before may have been cut off half-way
                self.stdout.write(
                    f"Slipway already runs at {portal_url()}. Stop it with scripts/stop."
                )
                return
            _refuse_taken_ports()
            first_run = self.prepare()
            wanted = _programs()
            _start(wanted)
        try:
            self.watch(supervisor, wanted, first_run, detach=options["detach"])
        except (KeyboardInterrupt, SystemExit):
            self.stdout.write("\nStopping ...")
            # a second Ctrl-C must not leave half of it running
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            call_command("down", stdout=self.stdout)

    def prepare(self) -> bool:
        """Database and static files. True on the first run."""
        call_command("migrate", verbosity=0, interactive=False)
        write_files()
        _collect_static()
        # the setting is the truth; a cluster that was attached under another port follows it
        Cluster.objects.filter(name=CLUSTER).exclude(router_url=router_url()).update(
            router_url=router_url()
        )
        return settings.ENV.seed and not Deployment.objects.exists()

    def watch(
        self, supervisor: Supervisor, wanted: tuple[Program, ...], first_run: bool, *, detach: bool
    ) -> None:
        """Wait for the first page and the example, say where they are; in the foreground, follow the log."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _exit)
        log = ProcessLog(
            {program.name: _log_file(program) for program in wanted}, colour=sys.stdout.isatty()
        )
        follow = None if detach else log
        self.wait_for_page(supervisor, follow)
        supervisor.start_all()
        if not User.objects.exists():
            _make_administrator()
        self.stdout.write(f"\nSlipway is at {portal_url()}")
        if settings.HOME.admin_password.exists():
            password = settings.HOME.admin_password.read_text().strip()
            self.stdout.write(f"Sign in as admin with the one-time password {password}")
            self.stdout.write(f"(kept in {settings.HOME.admin_password} until its first change)")
        if first_run:
            self.stdout.write("\nFirst run: training, registering and deploying the example ...")
            _run_example()
        if settings.ENV.seed:
            self.say_example(first_run, follow)
        if detach:
            return
        while supervisor.pid() is not None:
            self.print_log(log)
            time.sleep(0.2)
        raise CommandError("The supervisor has ended; see logs/processes/supervisord.log.")

    def wait_for_page(self, supervisor: Supervisor, log: ProcessLog | None) -> None:
        deadline = time.monotonic() + _PAGE_SECONDS
        with httpx.Client(timeout=2.0) as client:
            while time.monotonic() < deadline:
                self.print_log(log)
                try:
                    if client.get(f"{portal_url()}/healthz").status_code == httpx.codes.OK:
                        return
                except httpx.TransportError:
                    pass  # not listening yet
                time.sleep(0.1)
        raise CommandError(
            f"The portal did not answer within {_PAGE_SECONDS:.0f} s: {supervisor.states()}. "
            f"See {settings.HOME.logs / 'processes' / 'web.log'}."
        )

    def say_example(self, first_run: bool, log: ProcessLog | None) -> None:
        """On the first run wait for the example's endpoint; its curl is the last line either way."""
        try:
            for _ in wait_until_it_answers(_EXAMPLE_SECONDS if first_run else 0.0):
                self.print_log(log)
        except ExampleFailed as failed:
            if first_run:
                raise CommandError(str(failed)) from failed
        if command := curl():
            if first_run:
                check_cluster()
                self.stdout.write(f"The example {EXAMPLE} is live. Score it with:\n")
            self.stdout.write(command)

    def print_log(self, log: ProcessLog | None) -> None:
        if log is not None:
            for line in log.lines():
                self.stdout.write(line)


def portal_url() -> str:
    """Where a browser on this machine reaches the portal."""
    host = settings.ENV.bind if settings.ENV.bind not in ("0.0.0.0", "::") else "127.0.0.1"  # noqa: S104
    return f"http://{host}:{settings.ENV.port}"


def _exit(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


@contextmanager
def _one_start_at_a_time() -> Iterator[None]:
    with (settings.HOME.run / "start.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CommandError(
                "Another scripts/start is on its way for this SLIPWAY_HOME."
            ) from error
        yield


def _refuse_taken_ports() -> None:
    taken = [
        f"{name}={port}"
        for name, host, port in (
            ("SLIPWAY_PORT", settings.ENV.bind, settings.ENV.port),
            ("SLIPWAY_ROUTER_PORT", settings.ENV.router_bind, settings.ENV.router_port),
        )
        if not _can_bind(host, port) and not (name == "SLIPWAY_ROUTER_PORT" and _own_router_runs())
    ]
    if taken:
        raise CommandError(
            f"In use by another program: {', '.join(taken)}. Set the variable to a free port."
        )


def _can_bind(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _own_router_runs() -> bool:
    # HAProxy outlives its loop; after a crash of this machine's session ours may still serve
    return (settings.HOME.run / "haproxy-local.sock").exists()


def _collect_static() -> None:
    """Collect static files when any of them changed since the last time."""
    folder = settings.CHECKOUT / "static"
    requirements = (settings.CHECKOUT / "requirements.txt").stat().st_mtime_ns
    newest = max((path.stat().st_mtime_ns for path in folder.rglob("*")), default=0)
    mark = settings.HOME.root / "static" / ".collected"
    stamp = f"{newest} {requirements}"
    if mark.exists() and mark.read_text() == stamp:
        return
    call_command("collectstatic", verbosity=0, interactive=False, clear=False)
    mark.write_text(stamp)


def _make_administrator() -> None:
    """The first person, with a one-time password in a file only this user may read."""
    password = secrets.token_urlsafe(12)
    user = User(username="admin", role=Role.ADMINISTRATOR)
    user.set_password(password)
    descriptor = os.open(settings.HOME.admin_password, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(password + "\n")
    user.save()


def _programs() -> tuple[Program, ...]:
    return programs(
        python=sys.executable,
        checkout=settings.CHECKOUT,
        bind=settings.ENV.bind,
        port=settings.ENV.port,
        redis_socket=settings.HOME.redis_socket,
        own_redis=not settings.ENV.redis_url,
    )


def _log_file(program: Program) -> Path:
    path: Path = settings.HOME.logs / "processes" / f"{program.name}.log"
    return path


def _start(wanted: tuple[Program, ...]) -> None:
    logs = settings.HOME.logs / "processes"
    settings.HOME.cluster("local").mkdir(exist_ok=True)
    config = settings.HOME.run / "supervisord.conf"
    fresh = config.with_suffix(".new")
    fresh.write_text(render(wanted, checkout=settings.CHECKOUT, run=settings.HOME.run, logs=logs))
    fresh.rename(config)
    environ = {**os.environ, "SLIPWAY_HOME": str(settings.HOME.root)}
    # supervisord goes to the background by itself, in a session of its own: Ctrl-C reaches only us
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "-c", str(config)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
        start_new_session=True,
        check=False,
    )
    if done.returncode != 0:
        raise CommandError(
            f"The supervisor did not start: {done.stderr.strip() or done.stdout.strip()}"
        )


def _run_example() -> None:
    """In a process of its own: scikit-learn is loaded once, there, and never in the portal."""
    done = subprocess.run(
        [sys.executable, str(settings.CHECKOUT / "manage.py"), "seed"],
        capture_output=True,
        text=True,
        timeout=_EXAMPLE_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise CommandError(f"The example could not be deployed:\n{done.stderr.strip()}")
