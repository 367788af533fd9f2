"""The groups of measurements in their order. Each starts what it needs; one that fails costs its own
figures only, and `Context.reasons` says why."""

import subprocess
from collections.abc import Callable, Collection, Sequence

from bench.routing import figures, latency, ours, peers, throughput
from bench.routing.context import Context, Length
from bench.routing.processes import BenchError, Cores, Programs, free_port


def measure(
    programs: Programs,
    cores: Cores,
    length: Length,
    wanted: Collection[str],
    say: Callable[[str], object],
) -> Context:
    """Runs what the wanted figures need. Raises BenchError when our own router does not start."""
    upstream, socket = peers.upstream(programs, cores.load)
    addresses = (f"127.0.0.1:{upstream}",) * ours.REPLICAS
    product = ours.Ours(programs.folder / "ours", free_port(), cores.proxy, addresses)
    programs.on_exit(product.close)
    run = Context(programs, cores, length, wanted, say, product, product.start(), upstream)
    groups: tuple[tuple[Collection[str], Callable[[], None]], ...] = (
        (throughput.KEYS, lambda: throughput.small_requests(run)),
        (latency.ADDED, lambda: latency.added(run)),
        (latency.BODIES, lambda: latency.bodies(run)),
        (throughput.NEW_CONNECTIONS, lambda: throughput.new_connections(run, socket)),
        (throughput.RAY, lambda: throughput.ray(run)),
    )
    for keys, group in groups:
        if set(keys) & set(wanted):
            try:
                group()
                product.steady()
            except (BenchError, subprocess.TimeoutExpired) as error:
                run.missing(keys, error)
    return run


def asked(names: Sequence[str]) -> tuple[str, ...]:
    """The figures to measure, in their order; all of them when none is named."""
    return tuple(key for key in figures.KEYS if not names or key in names)
