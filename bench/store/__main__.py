"""Run the measurements on SQLite and on PostgreSQL, one after the other; see `bench/telemetry`."""

import argparse
import contextlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent.parent
DATABASES = ("sqlite", "postgresql")
# Figures that issue 4 names: cores of the collector (on PostgreSQL), milliseconds of a page.
MOST_CORES, MOST_MS = 0.5, 150.0


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/telemetry", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small: does it run at all")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--database", choices=DATABASES, action="append", help="only this one")
    parser.add_argument("--services", type=int, help="at 1 Hz (1,000)")
    parser.add_argument("--seconds", type=int, help="of collecting (60)")
    parser.add_argument("--histories", type=int, help="services with all of their past (20)")
    parser.add_argument("--decisions", type=int, help="rows of the ledger (1,000,000)")
    asked = parser.parse_args(given)
    usual = (50, 5, 1, 5_000) if asked.quick else (1_000, 60, 20, 1_000_000)
    for name, value in zip(("services", "seconds", "histories", "decisions"), usual, strict=True):
        if getattr(asked, name) is None:
            setattr(asked, name, value)
        elif getattr(asked, name) < (0 if name == "decisions" else 1):
            parser.error(f"--{name} is too small")
    asked.histories = min(asked.histories, asked.services)
    asked.prune_minutes = 1 if asked.quick else 5
    asked.times = 3 if asked.quick else 9
    asked.database = asked.database or list(DATABASES)
    return asked


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """The URL of a server of its own on a socket, with the durability that production has."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not found:
        raise SystemExit("PostgreSQL is not installed, and DATABASE_URL names none.")
    as_: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL does not run as root
        as_ = ["runuser", "-u", "postgres", "--"]
        entry = pwd.getpwnam("postgres")
        os.chown(folder, entry.pw_uid, entry.pw_gid)

    def run(program: str, *options: str) -> None:
        command = [*as_, str(found[-1].parent / program), *options]
        done = subprocess.run(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        if done.returncode:
            raise SystemExit(f"{program} failed: {done.stderr.strip()}")

    data = str(folder / "data")
    run("initdb", "-D", data, "-A", "trust", "-U", "slipway")
    listen = f"-c listen_addresses='' -c unix_socket_directories='{folder}'"
    run("pg_ctl", "start", "-w", "-D", data, "-l", str(folder / "log"), "-o", listen)
    try:
        yield f"postgres://slipway@{str(folder).replace('/', '%2F')}/postgres"
    finally:
        run("pg_ctl", "stop", "-D", data, "-m", "immediate")


def measure(asked: argparse.Namespace, database: str) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="slipway-store-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        home = folder / "home"
        home.mkdir()
        url = ""
        if database == "postgresql":
            url = os.environ.get("DATABASE_URL", "")
            if not url:
                (folder / "pg").mkdir()
                folder.chmod(0o755)
                url = stack.enter_context(postgresql(folder / "pg"))
        print(f"{database}:", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "bench.store.measure", json.dumps({
                name: getattr(asked, name)
                for name in ("services", "seconds", "histories", "decisions", "prune_minutes", "times")
            } | {"folder": str(home)})],
            cwd=CHECKOUT,
            env={**os.environ, "DATABASE_URL": url, "SLIPWAY_HOME": str(home),
                 "DJANGO_SETTINGS_MODULE": "portal.settings"},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"the measurement on {database} ended with {done.returncode}")
        return {"database": database, **json.loads(done.stdout.splitlines()[-1])}


def misses(row: dict[str, Any]) -> list[str]:
    """Figures that are not reached, in words."""
    found = []
    cores = row["collect"]["collector_cores"]
    if row["database"] == "postgresql" and cores >= MOST_CORES:
        found.append(f"the collector takes {cores} of a core")
    for room in ("charts", "ledger"):
        for label, times in row[room].items():
            # the work of both processes: on a quiet machine it is what the wall clock shows
            work = times["cpu_ms"] + times["database_ms"]
            if work >= MOST_MS:
                found.append(f"{room} {label}: {work:.0f} ms")
    return [f"{row['database']}: {item}" for item in found]


def table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'':32}" + "".join(f"{row['database']:>16}" for row in rows)]

    def line(label: str, values: list[Any]) -> None:
        lines.append(f"{label:32}" + "".join(f"{value:>16}" for value in values))

    line("rows a second", [row["collect"]["rows_a_second"] for row in rows])
    line("collector, cores", [row["collect"]["collector_cores"] for row in rows])
    line("database process, cores", [row["collect"]["database_cores"] for row in rows])
    line("longest turn, ms", [row["collect"]["longest_turn_ms"] for row in rows])
    line("rows", [row["filled_rows"] for row in rows])
    line("size, MB", [row["database_mb"] for row in rows])
    line("bytes a row with its indexes", [row["bytes_a_row"] for row in rows])
    line("an hour's roll-up, s", [row["upkeep"]["hour_rollup_s"] for row in rows])
    line("  of it CPU, s", [row["upkeep"]["hour_rollup_cpu_s"] for row in rows])
    line("forgetting, rows", [row["upkeep"]["prune_rows"] for row in rows])
    line("forgetting, s", [row["upkeep"]["prune_s"] for row in rows])
    line("pages: CPU (wall clock)", [""] * len(rows))
    for room in ("charts", "ledger"):
        for label in rows[0][room]:
            times = [row[room][label] for row in rows]
            line(
                f"{room} {label}, ms",
                [
                    f"{item['cpu_ms'] + item['database_ms']:.0f} ({item['median_ms']:.0f})"
                    for item in times
                ],
            )
    return "\n".join(lines)


def main() -> None:
    asked = arguments()
    rows = [measure(asked, database) for database in asked.database]
    print(table(rows))
    missed = [item for row in rows for item in misses(row)]
    for item in missed:
        print(f"not reached: {item}")
    if not missed:
        print(f"all pages under {MOST_MS:.0f} ms, the collector under {MOST_CORES} of a core")
    if asked.json:
        print(json.dumps({"rows": rows, "missed": missed}))


if __name__ == "__main__":
    main()
