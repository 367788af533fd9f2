"""The controller process: follows rollouts, shows states, collects the routers' telemetry and request logs.

One at a time in a SLIPWAY_HOME (a lock that the kernel frees when its holder dies). Each cycle starts
at its deadline; one that is late is said. Nothing but a signal ends the loop.
"""

import contextlib
import fcntl
import logging
import os
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, close_old_connections, connection
from django.utils import timezone

from deployments.clusters import detaching
from deployments.clusters.models import Cluster
from deployments.clusters.router_addresses import AddressLearner
from deployments.clusters.router_keeping import RouterKeeper
from deployments.controller import Controller
from deployments.errors import SlipwayError, Unavailable

log = logging.getLogger(__name__)

_PERIOD = 0.5
_COLLECT_EVERY = 1.0
_TIDY_EVERY = 60.0
_ASKED_AT_ONCE = 4  # routers inside clusters
_CLUSTERS_EVERY = 3.0
_LATE = 2.0


class Command(BaseCommand):
    help = "Follow rollouts, show the states of services, collect the routers' telemetry."
    requires_system_checks = []  # they load every page; a restart should take no longer than it must

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--period", type=float, default=_PERIOD, help="Seconds from one cycle to the next."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()

        def ask(number: int, frame: FrameType | None) -> None:
            stop.set()

        signal.signal(signal.SIGTERM, ask)
        signal.signal(signal.SIGINT, ask)
        lock = _lock()
        try:
            run(stop, options["period"])
        finally:
            os.close(lock)


def run(stop: threading.Event, period: float) -> None:
    """Cycle until `stop`. Telemetry has a thread of its own: a slow router delays no rollout."""
    collector = threading.Thread(target=_collect_until, args=(stop,), name="telemetry")
    collector.start()
    keeper = threading.Thread(target=_keep_clusters, args=(stop,), name="clusters")
    keeper.start()
    controller = Controller()
    reader = threading.Thread(target=controller.pod_logs.run, args=(stop,), name="pod-logs")
    reader.start()
    log.info("the controller runs, a cycle each %.1f s", period)
    due = time.monotonic()
    while not stop.is_set():
        close_old_connections()
        began = time.monotonic()
        try:
            controller.cycle()
        except DatabaseError as error:
            log.warning("this cycle failed: the database: %s", error)
        except Exception:
            log.exception("this cycle failed")
        if (took := time.monotonic() - began) > _LATE:
            log.warning("a cycle took %.1f s", took)
        due = max(due + period, time.monotonic())
        stop.wait(due - time.monotonic())
    collector.join(timeout=5)
    keeper.join(timeout=5)
    reader.join(timeout=5)
    log.info("the controller stops")


def _keep_clusters(stop: threading.Event) -> None:
    """Agents and routers of Docker clusters, routers of Kubernetes ones and where these are reached; what was
    detached is taken apart. An Engine or an API server may be slow."""
    from portal.cluster_programs import ClusterPrograms

    programs, routers, addresses = ClusterPrograms(), RouterKeeper(), AddressLearner()
    while not stop.wait(_CLUSTERS_EVERY):
        for what in (programs.follow, routers.round, addresses.round, _requeue_detachments):
            try:
                close_old_connections()
                what()
            except Exception:
                log.exception("keeping clusters: this round failed")
    close_old_connections()


def _requeue_detachments() -> None:
    """Of clusters whose worker died over them."""
    with contextlib.suppress(Unavailable):  # without a queue deployments wait too: that is said
        detaching.requeue_lost(timezone.now())


def _collect_until(stop: threading.Event) -> None:
    """Take over every router's figures each second; a router that is away is said once. Those inside
    clusters are asked beside the others: an API server may be slow."""
    from router.telemetry import requests, rollups, router_rollups, what_if

    away: set[str] = set()
    asked: dict[str, Future[None]] = {}
    pool = ThreadPoolExecutor(_ASKED_AT_ONCE, "routers")
    tidied = time.monotonic()
    due = time.monotonic()
    while not stop.is_set():
        try:
            close_old_connections()
            for cluster in Cluster.objects.exclude(state=Cluster.State.DETACHING):
                if cluster.kind != Cluster.Kind.KUBERNETES:
                    _collect_of(cluster, away)
                elif (last := asked.get(cluster.name)) is None or last.done():
                    asked[cluster.name] = pool.submit(_collect_beside, cluster, away)
            rollups.maintain(time.time())
            router_rollups.maintain(time.time())
            what_if.revive(time.time())
            if time.monotonic() - tidied > _TIDY_EVERY:
                tidied = time.monotonic()
                requests.prune(
                    time.time(),
                    days=settings.ENV.request_log_days,
                    rows=settings.ENV.request_log_rows,
                )
        except Exception:
            log.exception("telemetry: this round failed")
        due = max(due + _COLLECT_EVERY, time.monotonic())
        stop.wait(due - time.monotonic())
    pool.shutdown(wait=False, cancel_futures=True)
    close_old_connections()


def _collect_of(cluster: Cluster, away: set[str]) -> None:
    """One router's figures, requests and size. `away` are the clusters whose trouble was said."""
    from portal.router_doors import doors
    from router.telemetry import requests, router_collect
    from router.telemetry.collect import collect

    try:
        found = doors(cluster)
        collect(cluster, found.leader)
        for name, pod in found.pods.items():
            requests.collect(cluster.name, pod, source=name)
        router_collect.collect(cluster.name, found.leader)
        away.discard(cluster.name)
    except SlipwayError as error:
        if cluster.name not in away:
            away.add(cluster.name)
            log.warning("telemetry of %s: %s", cluster.name, error.message)


def _collect_beside(cluster: Cluster, away: set[str]) -> None:
    """The same in a thread that is nobody's: its connection to the database ends with it."""
    try:
        _collect_of(cluster, away)
    except Exception:
        log.exception("telemetry of %s: this round failed", cluster.name)
    finally:
        connection.close()


def _lock() -> int:
    """Held for as long as this process lives. Raises CommandError when another one has it."""
    path = settings.HOME.run / "controller.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    # one that is being replaced may need a moment to end
    for _ in range(50):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            time.sleep(0.1)
    os.close(descriptor)
    raise CommandError(f"Another controller runs in {settings.HOME.root}; stop it first.")
