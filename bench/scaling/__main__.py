"""The command `bench/autoscaler`: arguments, all runs on the machine's cores, table, picture, JSON."""

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from bench.scaling import report, runs, traces

FULL_SECONDS, QUICK_SECONDS = 3600.0, 1200.0
QUICK_LOADS = (5, 50)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/autoscaler",
        description="Autoscalers against each other on the same requests, in the simulator.",
        epilog=f"Generated shapes: {', '.join(traces.SHAPES)}. Policies: {', '.join(runs.SCALERS)}.",
    )
    parser.add_argument(
        "--trace", action="append", default=[], type=Path, metavar="FILE",
        help="recorded requests (CSV); may be given more than once",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true",
        help=f"loads {' and '.join(map(str, QUICK_LOADS))}, twenty minutes of each trace",
    )  # fmt: skip
    parser.add_argument("--load", action="append", type=int, choices=runs.LOADS)
    parser.add_argument("--start", action="append", type=int, choices=runs.START_SECONDS)
    parser.add_argument("--only", action="append", choices=list(traces.SHAPES), metavar="SHAPE")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N",
        help="vary the generated shapes' moments, heights and lengths (0: as described)",
    )  # fmt: skip
    parser.add_argument("--half", choices=("first", "second"), help="only this half of each file")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="a Pareto plot (HTML)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    chosen = parser.parse_args(words)
    if chosen.jobs < 1:
        parser.error("--jobs must be at least 1")
    return chosen


def tasks(chosen: argparse.Namespace) -> list[runs.Task]:
    seconds = QUICK_SECONDS if chosen.quick else FULL_SECONDS
    loads = chosen.load or (QUICK_LOADS if chosen.quick else runs.LOADS)
    sources: list[Path | str] = [*chosen.trace, *(chosen.only or traces.SHAPES)]
    return [
        runs.Task(source, load, start, seconds, chosen.seed, chosen.half or "")
        for source in sources
        for load in loads
        for start in chosen.start or runs.START_SECONDS
    ]


def main() -> None:
    chosen = arguments()
    try:
        for path in chosen.trace:
            traces.read(path)  # what is no trace is said before anything runs
    except traces.TraceError as error:
        raise SystemExit(f"bench/autoscaler: {error}") from error
    with ProcessPoolExecutor(chosen.jobs) as pool:
        rows = [row for found in pool.map(runs.run, tasks(chosen)) for row in found]
    print(report.table(rows))
    for trace, load, how in dict.fromkeys((row.trace, row.load, row.how) for row in rows):
        if how != "generated":
            print(f"{trace} at {load}: {how}")
    print()
    print(report.summary(rows))
    if chosen.plot:
        report.plot(rows, chosen.plot)
        print(f"plot: {chosen.plot}")
    if chosen.json:
        print(report.as_json(rows))


if __name__ == "__main__":
    main()
