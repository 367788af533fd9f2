"""Requests a second: ours, bare HAProxy and the other proxies in turn, each on a full core."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.routing import figures, ours, peers
from bench.routing.context import Context
from bench.routing.figures import Round
from bench.routing.load import CONNECTIONS, SCORE, Target, answering, interleaved, wrk
from bench.routing.processes import BenchError, free_port

KEYS = frozenset({"vs_haproxy", "jwt_vs_key", "vs_envoy", "vs_nginx", "vs_asyncio"})
RAY = frozenset({"vs_ray"})
NEW_CONNECTIONS = frozenset({"new_connections_rps", "new_connections_failed"})

# A client that names its requests: they take the rules that most do without.
_NAMED = (("x-ms-client-request-id", "bench-0123456789"),)
_EACH_ITS_OWN = "A new connection per request to the replica, over unix sockets"
_CONNTRACK = Path("/proc/sys/net/netfilter/nf_conntrack_count")


def small_requests(run: Context) -> None:
    proxy, upstream, programs = run.cores.proxy, run.upstream, run.programs
    targets = [Target("direct", upstream, ()), answering(run.ours())]
    addresses = run.product.addresses
    makers: dict[str, Callable[[], Target]] = {
        "vs_haproxy": lambda: Target("bare", *peers.bare_haproxy(programs, proxy, addresses)),
        "vs_nginx": lambda: Target("nginx", *peers.nginx(programs, proxy, upstream)),
        "vs_envoy": lambda: Target("envoy", *peers.envoy(programs, proxy, upstream)),
        "vs_asyncio": lambda: Target("asyncio", *peers.asyncio_proxy(programs, proxy, upstream)),
        "jwt_vs_key": lambda: _with_token(run),
    }
    for key, make in makers.items():
        if key in run.wanted:
            try:
                targets.append(answering(make()))
            except (BenchError, subprocess.TimeoutExpired) as error:
                run.missing({key}, error)
    if run.length.beside:
        targets.append(replace(run.ours("named"), headers=_NAMED))
    before = run.product.counted()
    rounds = interleaved(
        targets, run.length.rounds, run.length.throughput, run.cores, programs.folder
    )
    counted = tuple(
        after - first for after, first in zip(run.product.counted(), before, strict=True)
    )
    for target in targets:
        programs.stop(target.name)
    run.rounds(f"Small JSON POSTs, {CONNECTIONS} connections", rounds)
    run.measured |= figures.throughput(rounds)
    if short := figures.idle_proxies(rounds):
        run.notes.append(
            f"{', '.join(short)} had less than a core: load or another program was the limit"
        )
    _check_telemetry(run, rounds, *counted)


def _with_token(run: Context) -> Target:
    path = SCORE.replace("bench", ours.TOKEN_SERVICE)
    return run.ours("jwt", run.product.token(), path)


def _check_telemetry(
    run: Context, rounds: dict[str, list[Round]], answers: int, timed: int
) -> None:
    """Fast and uncounted would be no feat: what the load saw has to be in the product's own figures."""
    seen = [item for name in ("ours", "jwt", "named") for item in rounds.get(name, ())]
    total = sum(item.requests - item.failed for item in seen)
    under_way = len(seen) * CONNECTIONS  # when wrk stops, nobody waits for these any more
    run.say(
        f"Our telemetry counted {answers:,} answers and the time of {timed:,}; "
        f"the load saw {total:,}, and up to {under_way:,} were under way as its rounds ended."
    )
    if not (total <= answers <= total + under_way and total <= timed <= total + under_way):
        run.notes.append("our telemetry did not count what the load saw")


def ray(run: Context) -> None:
    """Last, and by itself: its processes are never quite idle."""
    peer = Target("ray", *peers.ray_serve(run.programs, run.cores.proxy, run.cores.load))
    rounds = interleaved(
        [answering(run.ours()), answering(peer)],
        run.length.rounds,
        run.length.ray,
        run.cores,
        run.programs.folder,
    )
    run.programs.stop("ray", patience=15)
    run.rounds("Beside Ray Serve, the same requests", rounds)
    found = figures.throughput(rounds)
    run.measured |= {
        key: found[key] for key in ("vs_ray", "vs_ray_by_cpu", "rps_ray", "cpu_us_ray")
    }


def new_connections(run: Context, socket: Path) -> None:
    """As on a cluster of processes: unix sockets, and nothing kept. First beside bare HAProxy in the
    same mode, then for as long as the connection tracking of TCP would not have stood it."""
    product = ours.Ours(
        run.programs.folder / "close",
        free_port(),
        run.cores.proxy,
        (f"unix:{socket}",) * ours.REPLICAS,
        server_close=True,
    )
    run.programs.on_exit(product.close)
    target = answering(Target("ours", product.port, product.start(), ours.KEY))
    if run.length.beside:
        addresses = (f"unix@{socket}",) * ours.REPLICAS
        bare = peers.bare_haproxy(run.programs, run.cores.proxy, addresses, server_close=True)
        rounds = interleaved(
            [target, Target("bare", *bare)],
            run.length.rounds,
            run.length.throughput,
            run.cores,
            run.programs.folder,
        )
        run.programs.stop("bare")
        run.rounds(f"{_EACH_ITS_OWN}, beside bare HAProxy", rounds)
        run.measured["vs_haproxy_new_connections"] = figures.throughput(rounds)["vs_haproxy"]
    seconds = run.length.new_connections
    tracked, links = _conntrack(), product.links()
    done = wrk(target, seconds, run.cores, run.programs.folder)
    tracked = None if tracked is None else (_conntrack() or 0) - tracked
    links = {name: count - links[name] for name, count in product.links().items()}
    product.steady()
    product.close()
    run.rounds(f"{_EACH_ITS_OWN}, ours for {seconds} s", {"ours": [done]})
    run.measured |= {
        "new_connections_rps": round(done.rps, 1),
        "new_connections_failed": done.failed + links["econ"],
        "new_connections_made": links["connect"],
        "new_connections_conntrack": tracked,
        "cpu_us_new_connections": round(done.cpu_us, 2),
    }
    kernel = (
        "no count of the kernel's" if tracked is None else f"{tracked:+,} tracked by the kernel"
    )
    run.say(
        f"{done.requests:,} requests on {links['connect']:,} connections to replicas, "
        f"{links['econ']:,} of which could not be made; {kernel}."
    )


def _conntrack() -> int | None:
    """How many connections the kernel tracks; None where it tracks none."""
    try:
        return int(_CONNTRACK.read_text())
    except OSError:
        return None
