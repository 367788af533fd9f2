"""Latency: what our router adds at half of its saturation, and how long large bodies take."""

import json
import subprocess
import sys
from statistics import median

from bench.routing import figures, ours, peers
from bench.routing.context import Context
from bench.routing.load import SCORE, Target, interleaved, wrk
from bench.routing.processes import CHECKOUT, BenchError, free_port

ADDED = frozenset({"added_p50_ms", "added_p99_ms"})
BODIES = {"body_1mb_vs_nginx": 2**20, "body_10mb_vs_nginx": 10 * 2**20}

_REACHED = 0.98  # of the rate asked for; with less, the load itself was too slow


def added(run: Context) -> None:
    saturation = run.measured.get("rps_ours")
    if saturation is None:
        saturation = median(
            wrk(run.ours(), 2, run.cores, run.programs.folder).rps for _ in range(3)
        )
    rate = round(saturation / 2)
    ports = {"direct": (run.upstream, "none"), "ours": (run.product.port, ours.KEY)}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in ports}
    for _ in range(run.length.rounds):
        for name, (port, token) in ports.items():
            results[name].append(_open_loop(run, port, token, rate))
    middle = {
        (name, key): median(item[key] for item in items)
        for name, items in results.items()
        for key in ("rate", "p50_ms", "p99_ms", "late")
    }
    lines: list[tuple[str, ...]] = [
        ("target", "asked/s", "sent/s", "p50 ms", "p99 ms", "sent late", "failed")
    ]
    for name, items in results.items():
        lines.append(
            (
                name,
                f"{rate:,}",
                f"{middle[name, 'rate']:,.0f}",
                f"{middle[name, 'p50_ms']:.3f}",
                f"{middle[name, 'p99_ms']:.3f}",
                f"{middle[name, 'late']:.2%}",
                f"{sum(item['failed'] for item in items):.0f}",
            )
        )
    run.table("A constant rate, half of our saturation, from when each request was due", lines)
    for key in ("p50_ms", "p99_ms"):
        run.measured[f"added_{key}"] = round(middle["ours", key] - middle["direct", key], 3)
    if min(middle[name, "rate"] for name in ports) < _REACHED * rate:
        run.notes.append("the constant rate was not reached: added latency is not to be trusted")


def _open_loop(run: Context, port: int, token: str, rate: int) -> dict[str, float]:
    seconds = run.length.added
    done = subprocess.run(
        ["taskset", "-c", str(run.cores.load), sys.executable, "-m", "bench.routing.openloop",
         str(port), SCORE, token, str(rate), str(seconds)],
        capture_output=True, text=True, check=False, timeout=seconds + 30, cwd=CHECKOUT,
    )  # fmt: skip
    if done.returncode:
        raise BenchError(f"the load at a constant rate failed: {done.stderr[-400:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def bodies(run: Context) -> None:
    programs, proxy = run.programs, run.cores.proxy
    reader = peers.body_upstream(programs, run.cores.load)
    addresses = (f"127.0.0.1:{reader}",) * ours.REPLICAS
    product = ours.Ours(programs.folder / "bodies", free_port(), proxy, addresses)
    programs.on_exit(product.close)
    targets = [
        Target("ours", product.port, product.start(), ours.KEY),
        Target("nginx", *peers.nginx(programs, proxy, reader, buffering=False)),
    ]
    if run.length.beside:
        bare = peers.bare_haproxy(programs, proxy, addresses)
        targets += [Target("direct", reader, ()), Target("bare", *bare)]
    for key, size in BODIES.items():
        if key not in run.wanted:
            continue
        rounds = interleaved(
            targets, run.length.rounds, run.length.body, run.cores, programs.folder,
            connections=1, body_size=size,
        )  # fmt: skip
        run.rounds(f"Bodies of {size // 2**20} MB, one client", rounds)
        p50 = {name: figures.middle(items, "p50_ms") for name, items in rounds.items()}
        run.measured[key] = figures.ratio(p50["ours"], p50["nginx"])
        short = key.removesuffix("_vs_nginx")
        run.measured |= {f"{short}_{name}_ms": value for name, value in p50.items()}
    for name in ("nginx", "bare", "bodies"):
        programs.stop(name)
    product.steady()
    product.close()
