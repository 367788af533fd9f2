"""The measurements, each a group of figures that are taken together. A group starts what it needs.

A peer that is missing or does not run costs its own figure only, and `Suites.reasons` says why.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.routing import figures, ours, peers
from bench.routing.figures import Round
from bench.routing.load import SCORE, Target, answering, interleaved, wrk
from bench.routing.processes import CHECKOUT, BenchError, Cores, Programs, free_port

THROUGHPUT = frozenset({"vs_haproxy", "jwt_vs_key", "vs_envoy", "vs_nginx", "vs_asyncio"})
ADDED = frozenset({"added_p50_ms", "added_p99_ms"})
BODIES = {"body_1mb_vs_nginx": 2**20, "body_10mb_vs_nginx": 10 * 2**20}
NEW_CONNECTIONS = frozenset({"new_connections_rps", "new_connections_failed"})

_CONNTRACK = Path("/proc/sys/net/netfilter/nf_conntrack_count")


@dataclass(frozen=True, slots=True)
class Length:
    """How many rounds, and how many seconds each takes."""

    rounds: int = 5
    throughput: int = 5
    added: int = 5
    body: int = 3
    ray: int = 5
    new_connections: int = 60
    beside: bool = True  # also measure what no goal speaks of: bare HAProxy in further modes


FULL = Length()
QUICK = Length(rounds=3, throughput=2, added=2, body=1, ray=1, new_connections=6, beside=False)


@dataclass
class Suites:
    """Runs the groups that the wanted figures need. `say` gets tables as they come."""

    programs: Programs
    cores: Cores
    length: Length
    wanted: Collection[str]
    say: Callable[[str], object]
    measured: dict[str, float | None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    tables: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def run(self) -> None:
        port, socket = peers.upstream(self.programs, self.cores.load)
        self.upstream = port
        addresses = (f"127.0.0.1:{port}",) * ours.REPLICAS
        self.product = ours.Ours(
            self.programs.folder / "ours", free_port(), self.cores.proxy, addresses
        )
        self.programs.on_exit(self.product.close)
        self.pids = self.product.start()
        for keys, group in (
            (THROUGHPUT, self._throughput),
            (ADDED, self._added),
            (BODIES.keys(), self._bodies),
            (NEW_CONNECTIONS, lambda: self._new_connections(socket)),
            ({"vs_ray"}, self._ray),  # last: it is never quite idle
        ):
            if set(keys) & set(self.wanted):
                self._guarded(keys, group)

    def _guarded(self, keys: Collection[str], group: Callable[[], None]) -> None:
        try:
            group()
            self.product.steady()
        except (BenchError, subprocess.TimeoutExpired) as error:
            for key in set(keys) & set(self.wanted):
                self.measured[key] = None
                self.reasons.setdefault(key, str(error))
            self.say(f"not measured: {', '.join(sorted(keys))}: {error}")

    def _ours(self, name: str = "ours", token: str = ours.KEY, path: str = SCORE) -> Target:
        return Target(name, self.product.port, self.pids, token, path)

    def _table(self, title: str, rounds: dict[str, list[Round]]) -> None:
        self.tables[title] = figures.rounds_table(rounds)
        self.say(f"\n{title}\n{figures.text_table(self.tables[title])}")

    # ---- requests a second ---------------------------------------------------------------------

    def _throughput(self) -> None:
        targets = [Target("direct", self.upstream, ()), self._ours()]
        makers: dict[str, tuple[str, Callable[[], peers.Peer]]] = {
            "vs_haproxy": ("bare", self._bare),
            "vs_nginx": ("nginx", lambda: peers.nginx(self.programs, self.cores.proxy, self.upstream)),
            "vs_envoy": ("envoy", lambda: peers.envoy(self.programs, self.cores.proxy, self.upstream)),
            "vs_asyncio": (
                "asyncio",
                lambda: peers.asyncio_proxy(self.programs, self.cores.proxy, self.upstream),
            ),
        }  # fmt: skip
        for key, (name, make) in makers.items():
            if key in self.wanted:
                self._guarded(
                    (key,), lambda n=name, m=make: targets.append(answering(Target(n, *m())))
                )
        if "jwt_vs_key" in self.wanted:
            self._guarded(("jwt_vs_key",), lambda: targets.append(self._with_token()))
        rounds = interleaved(
            targets, self.length.rounds, self.length.throughput, self.cores, self.programs.folder
        )
        for target in targets:
            if target.name not in ("direct", "ours"):
                self.programs.stop(target.name)
        self._table("Small JSON POSTs, 64 connections", rounds)
        self.measured |= figures.throughput(rounds)
        for name in figures.idle_proxies(rounds):
            self.notes.append(
                f"{name} had less than its core: the load or another program was the limit"
            )

    def _bare(self) -> peers.Peer:
        return peers.bare_haproxy(self.programs, self.cores.proxy, self.product.addresses)

    def _with_token(self) -> Target:
        target = self._ours("jwt", self.product.token(), SCORE.replace("bench", ours.TOKEN_SERVICE))
        return answering(target)

    def _ray(self) -> None:
        peer = peers.ray_serve(self.programs, self.cores.proxy, self.cores.load)
        ray = answering(Target("ray", *peer))
        try:
            rounds = interleaved(
                [self._ours(), ray],
                self.length.rounds,
                self.length.ray,
                self.cores,
                self.programs.folder,
            )
        finally:
            self.programs.stop("ray", patience=15)
        self._table("Beside Ray Serve, the same requests", rounds)
        found = figures.throughput(rounds)
        self.measured |= {
            key: found[key] for key in ("vs_ray", "vs_ray_by_cpu", "rps_ray", "cpu_us_ray")
        }

    # ---- latency -------------------------------------------------------------------------------

    def _added(self) -> None:
        saturation = self.measured.get("rps_ours")
        if saturation is None:
            found = [self._closed_loop(2) for _ in range(3)]
            saturation = median(item.rps for item in found)
        rate = round(saturation / 2)
        ports = {
            "direct": (self.upstream, "none"),
            "ours": (self.product.port, ours.KEY),
        }
        results: dict[str, list[dict[str, float]]] = {name: [] for name in ports}
        for _ in range(self.length.rounds):
            for name, (port, token) in ports.items():
                results[name].append(self._open_loop(port, token, rate))
        lines: list[tuple[str, ...]] = [
            ("target", "asked/s", "sent/s", "p50 ms", "p99 ms", "sent late", "failed")
        ]
        middle = {
            (name, key): median(item[key] for item in items)
            for name, items in results.items()
            for key in ("rate", "p50_ms", "p99_ms", "late")
        }
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
        title = "Constant rate at half of our saturation, from when each request was due"
        self.tables[title] = lines
        self.say(f"\n{title}\n{figures.text_table(lines)}")
        for key in ("p50_ms", "p99_ms"):
            self.measured[f"added_{key}"] = round(middle["ours", key] - middle["direct", key], 3)
        if middle["ours", "rate"] < 0.98 * rate:
            self.notes.append(
                "the constant rate was not reached: added latency is not to be trusted"
            )

    def _closed_loop(self, seconds: int) -> Round:
        return wrk(self._ours(), seconds, self.cores, self.programs.folder)

    def _open_loop(self, port: int, token: str, rate: int) -> dict[str, float]:
        seconds = self.length.added
        done = subprocess.run(
            ["taskset", "-c", str(self.cores.load), sys.executable, "-m", "bench.routing.openloop",
             str(port), SCORE, token, str(rate), str(seconds)],
            capture_output=True, text=True, check=False, timeout=seconds + 30, cwd=CHECKOUT,
        )  # fmt: skip
        if done.returncode:
            raise BenchError(f"the load at a constant rate failed: {done.stderr[-400:]}")
        found: dict[str, float] = json.loads(done.stdout)
        return found

    # ---- bodies --------------------------------------------------------------------------------

    def _bodies(self) -> None:
        reader = peers.body_upstream(self.programs, self.cores.load)
        addresses = (f"127.0.0.1:{reader}",) * ours.REPLICAS
        product = ours.Ours(
            self.programs.folder / "bodies", free_port(), self.cores.proxy, addresses
        )
        self.programs.on_exit(product.close)
        pids = product.start()
        nginx = peers.nginx(self.programs, self.cores.proxy, reader, buffering=False, name="nginx")
        targets = [
            Target("ours", product.port, pids, ours.KEY),
            Target("nginx", *nginx),
        ]
        if self.length.beside:
            bare = peers.bare_haproxy(self.programs, self.cores.proxy, addresses)
            targets += [Target("direct", reader, ()), Target("bare", *bare)]
        for key, size in BODIES.items():
            if key not in self.wanted:
                continue
            rounds = interleaved(
                targets,
                self.length.rounds,
                self.length.body,
                self.cores,
                self.programs.folder,
                connections=1,
                body_size=size,
            )
            self._table(f"Bodies of {size // 2**20} MB, one client", rounds)
            p50 = {name: figures.middle(items, "p50_ms") for name, items in rounds.items()}
            self.measured[key] = figures.ratio(p50["ours"], p50["nginx"])
            short = key.removesuffix("_vs_nginx")
            self.measured |= {f"{short}_{name}_ms": value for name, value in p50.items()}
        for name in ("nginx", "bare", "bodies"):
            self.programs.stop(name)
        product.steady()
        product.close()

    # ---- a new connection for each request -----------------------------------------------------

    def _new_connections(self, socket: Path) -> None:
        """As on a cluster of processes: unix sockets, and nothing kept. First beside bare HAProxy in
        the same mode, then for as long as the connection tracking of TCP would not have stood it."""
        product = ours.Ours(
            self.programs.folder / "close",
            free_port(),
            self.cores.proxy,
            (f"unix:{socket}",) * ours.REPLICAS,
            server_close=True,
        )
        self.programs.on_exit(product.close)
        target = Target("ours", product.port, product.start(), ours.KEY)
        seconds = self.length.new_connections
        if self.length.beside:
            addresses = (f"unix@{socket}",) * ours.REPLICAS
            bare = peers.bare_haproxy(self.programs, self.cores.proxy, addresses, server_close=True)
            rounds = interleaved(
                [target, Target("bare", *bare)],
                self.length.rounds,
                self.length.throughput,
                self.cores,
                self.programs.folder,
            )
            self.programs.stop("bare")
            self._table("A new connection per request to the replica, over unix sockets", rounds)
            self.measured["vs_haproxy_new_connections"] = figures.throughput(rounds)["vs_haproxy"]
        tracked, links = _conntrack(), product.links()
        done = wrk(target, seconds, self.cores, self.programs.folder)
        tracked = None if tracked is None else (_conntrack() or 0) - tracked
        links = {name: count - links[name] for name, count in product.links().items()}
        product.steady()
        product.close()
        self._table(f"The same, ours alone for {seconds} s", {"ours": [done]})
        self.measured |= {
            "new_connections_rps": round(done.rps, 1),
            "new_connections_failed": done.failed + links["econ"],
            "new_connections_made": links["connect"],
            "new_connections_conntrack": tracked,
            "cpu_us_new_connections": round(done.cpu_us, 2),
        }
        self.say(
            f"{done.requests:,} requests on {links['connect']:,} connections to replicas, "
            f"{links['econ']} of which could not be made; "
            + (
                "nothing tracks connections here"
                if tracked is None
                else f"{tracked:+,} tracked by the kernel"
            )
        )


def _conntrack() -> int | None:
    """How many connections the kernel tracks; None where it tracks none."""
    try:
        return int(_CONNTRACK.read_text())
    except OSError:
        return None


def asked(names: Sequence[str]) -> tuple[str, ...]:
    """The figures to measure. Raises BenchError for one that does not exist."""
    for name in names:
        if name not in figures.KEYS:
            raise BenchError(f"There is no figure {name!r}; there are: {', '.join(figures.KEYS)}")
    return tuple(key for key in figures.KEYS if not names or key in names)
