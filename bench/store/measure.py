"""One database's figures, taken in a process of its own: `python -m bench.store.measure` prints JSON.

What it reads from the environment is what the portal does (DATABASE_URL, SLIPWAY_HOME); its arguments are
those of `bench/telemetry`, as JSON.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django

CHART_RANGES = ("15m", "2h", "24h", "7d", "30d", "400d")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def timed(action: Callable[[], Any], times: int) -> dict[str, float]:
    """Best and middle wall clock, the least CPU of this process, and the mean one of the database's, in
    milliseconds. What others do on the machine is in the wall clock alone."""
    walls, cpus = [], []
    base = database_cpu()
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        action()
        walls.append(1000 * (time.perf_counter() - wall))
        cpus.append(1000 * (time.process_time() - cpu))
    walls.sort()
    return {
        "best_ms": round(walls[0], 1),
        "median_ms": round(walls[len(walls) // 2], 1),
        "cpu_ms": round(min(cpus), 1),
        "database_ms": round(1000 * (database_cpu() - base) / times, 1),
    }


def database_cpu() -> float:
    """CPU seconds of the PostgreSQL process that serves this connection; 0 without one of ours."""
    import psutil
    from django.db import connection

    if connection.vendor != "postgresql":
        return 0.0
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    try:
        used = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(used.user + used.system)


def database_bytes() -> int:
    from django.db import connection

    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_database_size(current_database())")
            return int(cursor.fetchone()[0])
    name = Path(str(connection.settings_dict["NAME"]))
    return sum(path.stat().st_size for path in name.parent.glob(f"{name.name}*") if path.is_file())


def collecting(services: int, seconds: int, folder: Path) -> dict[str, Any]:
    """What the controller's telemetry thread does, for so many seconds."""
    from deployments.clusters.models import Cluster
    from router.telemetry import rollups
    from router.telemetry.collect import collect
    from router.telemetry.models import RollupMark, Second

    cluster = Cluster.objects.get()
    socket, begin = folder / "feed.sock", int(time.time()) - 5
    # what fill made is rolled up already
    for level in rollups.LEVELS[1:]:
        RollupMark.objects.update_or_create(
            step=level.step, defaults={"until": begin - begin % level.step}
        )
    feed = subprocess.Popen(
        [sys.executable, "-m", "bench.store.feed", str(socket), str(services), str(begin)],
        stdout=subprocess.PIPE,
    )
    try:
        assert feed.stdout is not None
        feed.stdout.readline()
        collect(cluster, socket)  # the first reading learns the run's name
        before, cpu, base = Second.objects.count(), time.process_time(), database_cpu()
        longest, due, began = 0.0, time.monotonic(), time.monotonic()
        for _ in range(seconds):
            turn = time.monotonic()
            collect(cluster, socket)
            rollups.maintain(time.time())
            longest = max(longest, time.monotonic() - turn)
            due = max(due + 1.0, time.monotonic())
            time.sleep(max(due - time.monotonic(), 0.0))
        wall = time.monotonic() - began
        used, theirs = time.process_time() - cpu, database_cpu() - base
        rows = Second.objects.count() - before
    finally:
        feed.terminate()
        feed.wait(10)
    return {
        # a share of the time that the figures are of, however slow this machine is at it
        "seconds": round(wall, 1),
        "rows_a_second": round(services * seconds / wall, 1),
        "rows_kept": rows,
        "collector_cores": round(used / seconds, 3),
        "database_cores": round(theirs / seconds, 3),
        "longest_turn_ms": round(1000 * longest, 1),
    }


def upkeep(services: int, minutes: int) -> dict[str, Any]:
    """An hour of every service's minutes into hours, and what is too old out of the store."""
    from bench.store import fill
    from router.telemetry import rollups
    from router.telemetry.models import Hour, RollupMark

    ids, level = fill.series(services), rollups.LEVELS[2]
    now = int(time.time())
    hour = now - now % 3600 - 7200
    fill.samples(level, ids, hour, hour + 3600)
    Hour.objects.filter(at__gte=hour).delete()
    RollupMark.objects.filter(step=3600).update(until=hour)
    wall, cpu = time.perf_counter(), time.process_time()
    rollups.roll_up(float(now))
    took = time.perf_counter() - wall, time.process_time() - cpu
    seconds = rollups.LEVELS[0]
    old = now - seconds.keep - 60 * minutes
    written = fill.samples(seconds, ids, old, old + 60 * minutes)
    begin = time.perf_counter()
    gone = rollups.prune(float(now))
    pruned = time.perf_counter() - begin
    return {
        "hour_rollup_s": round(took[0], 2),
        "hour_rollup_cpu_s": round(took[1], 2),
        "prune_rows": gone,
        "prune_expected": written,
        "prune_s": round(pruned, 2),
    }


def pages(times: int, rows: int) -> dict[str, Any]:
    """Server time of the pages a person waits for, through the views themselves."""
    from django.conf import settings
    from django.test import Client

    from bench.store import fill
    from bench.store.feed import name
    from portal.models import User
    from router.telemetry.models import Decision, Series

    # the names of static files are looked up in a list that `manage.py up` makes
    plain = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    settings.STORAGES = {**settings.STORAGES, "staticfiles": plain}
    client = Client(headers={"host": "127.0.0.1"})
    client.force_login(User.objects.get(username="bench"))
    service, now = name(0), time.time()

    def get(path: str) -> Callable[[], Any]:
        def ask() -> None:
            answer = client.get(f"/services/{service}/{path}")
            assert answer.status_code == 200, (path, answer.status_code)
            assert b"".join(answer) if answer.streaming else answer.content

        return ask

    found: dict[str, Any] = {"charts": {}, "ledger": {}}
    get("metrics/data/?range=5m")()  # loads what the first page loads
    for key in CHART_RANGES:
        found["charts"][key] = timed(get(f"metrics/data/?range={key}"), times)
    if rows:
        say(f"  a ledger of {rows:,} rows")
        Decision.objects.all().delete()
        other, _ = Series.objects.get_or_create(
            cluster=fill.CLUSTER, service=service, version="canary"
        )
        fill.decisions([fill.series(1)[0], other.pk], rows, now - 399 * 86_400, now)
        middle = now - 200 * 86_400
        old = Decision.objects.order_by("at").values_list("at", "pk")[0]
        searches = {
            "first page": "",
            "scaled up": "?kind=up",
            "prevented": "?kind=prevented",
            "one version": "?version=default",
            "in force then": f"?at={middle:.0f}",
            "a day": f"?since={_iso(middle)}&until={_iso(middle + 86_400)}",
            "older rows": f"rows/?before={middle!r}_1",
            "the oldest": f"?open={old[1]}",
            "below the chart": "latest/",
        }
        for label, query in searches.items():
            found["ledger"][label] = timed(get(f"decisions/{query}"), times)
        found["ledger"]["marks, 400 d"] = timed(get("metrics/data/?range=400d"), times)
    return found


def _iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))


def main() -> None:
    asked = json.loads(sys.argv[1])
    django.setup()
    from django.core.management import call_command

    from bench.store import fill
    from bench.store.feed import name
    from deployments.clusters.models import Cluster, Sku
    from deployments.services.models import Service, ServiceVersion
    from portal.models import Role, User

    call_command("migrate", verbosity=0)
    sku, _ = Sku.objects.get_or_create(name="bench", defaults={"family": "CPU"})
    cluster, _ = Cluster.objects.get_or_create(
        name=fill.CLUSTER, defaults={"sku": sku, "router_url": "http://127.0.0.1:1"}
    )
    User.objects.get_or_create(username="bench", defaults={"role": Role.VIEWER})
    service, _ = Service.objects.get_or_create(name=name(0), defaults={"cluster": cluster})
    ServiceVersion.objects.get_or_create(
        service=service, name="default", defaults={"is_default": True}
    )
    ids = fill.series(asked["services"])
    say(f"  a full history of {asked['histories']} services")
    begin = time.perf_counter()
    written = fill.history(ids[: asked["histories"]], int(time.time()))
    filled = time.perf_counter() - begin
    say(f"  {asked['services']} services at 1 Hz for {asked['seconds']} s")
    found: dict[str, Any] = {
        "filled_rows": written,
        "filled_s": round(filled, 1),
        "bytes_a_row": 0,
        "collect": collecting(asked["services"], asked["seconds"], Path(asked["folder"])),
    }
    found["database_mb"] = round(database_bytes() / 1e6, 1)
    found["bytes_a_row"] = round(
        database_bytes() / (written + asked["services"] * asked["seconds"]), 1
    )
    say("  roll-up of an hour and retention")
    found["upkeep"] = upkeep(asked["services"], asked["prune_minutes"])
    say("  pages")
    found |= pages(asked["times"], asked["decisions"])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
