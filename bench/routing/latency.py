"""Latency: what our router adds at half of its saturation, and how long large bodies take."""

from statistics import median

from bench.routing import figures, ours, peers
from bench.routing.context import Context
from bench.routing.load import Target, interleaved, wrk
from bench.routing.openloop import OpenLoop
from bench.routing.processes import free_port

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
    load = OpenLoop(run.cores.load, run.length.rounds, run.length.added)
    run.programs.on_exit(load.close)
    addresses = (f"127.0.0.1:{load.port}",) * ours.REPLICAS
    product = ours.Ours(run.programs.folder / "added", free_port(), run.cores.proxy, addresses)
    run.programs.on_exit(product.close)
    pids = product.start()
    targets = [Target("direct", 0, ()), Target("ours", product.port, pids, ours.KEY)]
    if run.length.beside:
        bare = peers.bare_haproxy(run.programs, run.cores.proxy, addresses)
        targets.append(Target("bare", *bare))
    results = load.run(targets, rate)
    run.programs.stop("bare")
    product.steady()
    product.close()
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
        if ("bare", key) in middle:
            over = middle["bare", key] - middle["direct", key]
            run.measured[f"added_by_bare_{key}"] = round(over, 3)
    if min(middle[name, "rate"] for name in results) < _REACHED * rate:
        run.notes.append("the constant rate was not reached: added latency is not to be trusted")


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
