"""The command `bench/router`: arguments, one run, tables, JSON, the page's figures."""

import argparse
import os
import platform
import shutil
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import psutil

from bench.routing import figures, peers, suites
from bench.routing.context import FULL, QUICK, Context, Length
from bench.routing.processes import CHECKOUT, BenchError, Cores, CpuTimes, Programs, busy_share

PAGE = CHECKOUT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- bench/router -->", "<!-- end of bench/router -->"
_BUSY = 0.1  # of all cores: from here on the figures say more about the machine's other work


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/router",
        description="The router's speed against other proxies on this machine.",
        epilog=f"Figures: {', '.join(figures.KEYS)}",
    )
    parser.add_argument("--quick", action="store_true", help="within two minutes: shorter rounds")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument(
        "--only", action="append", default=[], metavar="FIGURE", choices=figures.KEYS,
        help="this figure only; may be given more than once",
    )  # fmt: skip
    parser.add_argument(
        "--markdown",
        action="store_true",
        help=f"write the figures into {PAGE.relative_to(CHECKOUT)}",
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="rounds of which the median is taken"
    )
    parser.add_argument("--seconds", type=int, metavar="S", help="length of a round of throughput")
    chosen = parser.parse_args(words)
    for name in ("rounds", "seconds"):
        if (given := getattr(chosen, name)) is not None and given < 1:
            parser.error(f"--{name} must be at least 1")
    if chosen.markdown and chosen.only:
        parser.error("--markdown needs every figure: leave --only out")
    return chosen


def length(chosen: argparse.Namespace) -> Length:
    base = QUICK if chosen.quick else FULL
    return replace(
        base, rounds=chosen.rounds or base.rounds, throughput=chosen.seconds or base.throughput
    )


def main() -> int:
    chosen = arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))
    wanted = suites.asked(chosen.only)
    try:
        cores = Cores.choose()
        for name in ("wrk", "taskset"):
            if shutil.which(name) is None:
                raise BenchError(
                    f"{name} is missing: install it with your system's package manager"
                )
        before, began = busy_share(), CpuTimes.now()
        os.sched_setaffinity(0, {cores.load})  # the readings' own work is not the proxy's
        with (
            # short, whatever TMPDIR says: the path of a socket in it may hold 107 bytes
            tempfile.TemporaryDirectory(prefix="slipway-bench-", dir="/tmp") as name,
            Programs(Path(name)) as programs,
        ):
            _say(_setting(cores, length(chosen)))
            run = suites.measure(programs, cores, length(chosen), wanted, _say)
    except KeyboardInterrupt:
        print("bench/router: stopped; nothing of it runs any more", file=sys.stderr)
        return 130
    except BenchError as error:
        print(f"bench/router: {error}", file=sys.stderr)
        return 1
    if before > _BUSY:
        run.notes.append(f"other programs used {before:.0%} of the cores when this began")
    stolen = CpuTimes.now().stolen_since(began)
    run.measured["stolen"] = round(stolen, 4)
    run.notes.append(f"meanwhile the host took {stolen:.1%} of the cores for others (steal)")
    lines = figures.goals_table(run.measured, wanted, run.reasons)
    print(f"\n{figures.text_table(lines)}")
    for note in run.notes:
        print(f"Note: {note}.")
    if chosen.markdown:
        _write_page(run, lines)
    if chosen.json:
        print(figures.as_json(run.measured))
    return 1 if any(run.measured.get(key) is None for key in wanted) else 0


def _say(text: str) -> None:
    print(text, flush=True)  # each table as it comes, into a file too


def _setting(cores: Cores, length: Length) -> str:
    return (
        f"{_machine()}. The proxy on core {cores.proxy}, load and replicas on core {cores.load}; "
        f"medians of {length.rounds} interleaved rounds of {length.throughput} s."
    )


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    kernel = ".".join(platform.release().split(".")[:2])
    return f"{psutil.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {kernel}"


def _write_page(run: Context, goals: list[tuple[str, ...]]) -> None:
    used = ", ".join(f"{name} {version}" for name, version in peers.versions().items())
    parts = [
        f"{_machine()}. {used}. Medians of {run.length.rounds} rounds.",
        figures.markdown_table(goals),
    ]
    for title, lines in run.tables.items():
        parts += [f"{title}:", figures.markdown_table(lines)]
    parts += [f"Note: {note}." for note in run.notes]
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(figures.between(text, "\n\n".join(parts), BEGIN, END), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
