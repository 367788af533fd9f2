"""What the rounds say: medians, ratios, goals, tables, JSON.

PURE: values in, values and text out. A figure that was not measured is None, never 0, and no goal is
met by it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

FULL_CORE = 0.9  # a proxy that used less of its core was not what held the load back


@dataclass(frozen=True, slots=True)
class Round:
    """One round of one target. `failed`: no answer, or another one than 2xx and 3xx."""

    rps: float
    p50_ms: float
    p99_ms: float
    cpu_us: float  # of the proxy, for each request
    busy: float  # share of its core that the proxy used
    failed: int
    requests: int


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure with its bound: `least` or `most` (None: no such bound); `below` is a strict `most`."""

    key: str
    what: str
    least: float | None = None
    most: float | None = None
    below: float | None = None
    unit: str = ""
    digits: int = 2

    def met(self, value: float | None) -> bool | None:
        if value is None:
            return None
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    @property
    def bound(self) -> str:
        for sign, value in ((">=", self.least), ("<=", self.most), ("<", self.below)):
            if value is not None:
                return f"{sign} {value:,g}{self.unit}"
        return ""

    def shown(self, value: float | None) -> str:
        return "not measured" if value is None else f"{value:,.{self.digits}f}{self.unit}"


GOALS = (
    Goal("vs_haproxy", "our full configuration, key auth / bare HAProxy", least=0.85),
    Goal("jwt_vs_key", "a JWT each time / a key each time", least=0.8),
    Goal("vs_envoy", "ours / Envoy bare", least=1.5),
    Goal("vs_nginx", "ours / nginx, upstream keep-alive, no auth", least=0.9),
    Goal("vs_ray", "ours / Ray Serve's Python proxy", least=50, digits=0),
    Goal("vs_asyncio", "ours / an aiohttp + uvloop proxy", least=5, digits=1),
    Goal("added_p50_ms", "added latency at half of saturation, p50", below=0.3, unit=" ms"),
    Goal("added_p99_ms", "added latency at half of saturation, p99", below=2, unit=" ms"),
    Goal("body_1mb_vs_nginx", "1 MB body, latency / nginx's", most=1.1),
    Goal("body_10mb_vs_nginx", "10 MB body, latency / nginx's", most=1.1),
    Goal("new_connections_rps", "new connection per request to the replica, req/s", least=8000, digits=0),
    Goal("new_connections_failed", "failed requests of these", most=0, digits=0),
)  # fmt: skip
# The first of these are the keys of `--json` that others rely on; more may follow them.
KEYS = tuple(goal.key for goal in GOALS)

# The same ratio by the CPU that each needs for a request: steadier, where other programs run as well.
BY_CPU = "_by_cpu"

# figure -> the targets whose requests a second are divided
RATIOS = {
    "vs_haproxy": ("ours", "bare"),
    "jwt_vs_key": ("jwt", "ours"),
    "vs_envoy": ("ours", "envoy"),
    "vs_nginx": ("ours", "nginx"),
    "vs_asyncio": ("ours", "asyncio"),
    "vs_ray": ("ours", "ray"),
    "vs_haproxy_named": ("named", "bare"),  # no goal: requests that a client names by itself
}


def middle(rounds: Sequence[Round], field: str) -> float | None:
    """The median of one field; None where there was no round."""
    return median(getattr(item, field) for item in rounds) if rounds else None


def ratio(over: float | None, under: float | None, digits: int = 3) -> float | None:
    """One divided by the other; None when either is not known."""
    return round(over / under, digits) if over is not None and under else None


def throughput(rounds: Mapping[str, Sequence[Round]]) -> dict[str, float | None]:
    """The ratios, and each target's own figures, of rounds that were run in turn."""
    found: dict[str, float | None] = {}
    for key, (over, under) in RATIOS.items():
        if over in rounds and under in rounds:
            found[key] = ratio(middle(rounds[over], "rps"), middle(rounds[under], "rps"))
            cost = middle(rounds[under], "cpu_us"), middle(rounds[over], "cpu_us")
            found[f"{key}{BY_CPU}"] = ratio(*cost)
    for name, items in rounds.items():
        if items:
            found[f"rps_{name}"] = round(median(item.rps for item in items), 1)
            if name != "direct":
                found[f"cpu_us_{name}"] = round(median(item.cpu_us for item in items), 2)
    return found


def rounds_table(rounds: Mapping[str, Sequence[Round]]) -> list[tuple[str, ...]]:
    """A line for each target; the first one is the heading."""
    lines: list[tuple[str, ...]] = [
        ("target", "req/s", "spread", "p50 ms", "p99 ms", "CPU us/req", "of its core", "failed")
    ]
    for name, items in rounds.items():
        if not items:
            continue
        rates = [item.rps for item in items]
        spread = (max(rates) - min(rates)) / median(rates)
        proxy = name != "direct"
        lines.append(
            (
                name,
                f"{median(rates):,.0f}",
                f"{spread:.0%}",
                f"{middle(items, 'p50_ms'):.2f}",
                f"{middle(items, 'p99_ms'):.2f}",
                f"{middle(items, 'cpu_us'):.1f}" if proxy else "",
                f"{middle(items, 'busy'):.0%}" if proxy else "",
                str(sum(item.failed for item in items)),
            )
        )
    return lines


def idle_proxies(rounds: Mapping[str, Sequence[Round]]) -> tuple[str, ...]:
    """Targets whose core was not full: something else than the proxy was the limit."""
    return tuple(
        name
        for name, items in rounds.items()
        if name not in ("direct", "ray") and items and (middle(items, "busy") or 0) < FULL_CORE
    )


def goals_table(
    measured: Mapping[str, float | None], keys: Iterable[str], reasons: Mapping[str, str]
) -> list[tuple[str, ...]]:
    """Goal, measured, met, for the figures asked for. `reasons` say why one is missing."""
    lines: list[tuple[str, ...]] = [("what", "goal", "measured", "by CPU", "met")]
    wanted = set(keys)
    for goal in GOALS:
        if goal.key not in wanted:
            continue
        value = measured.get(goal.key)
        met = {True: "yes", False: "NO", None: reasons.get(goal.key, "")}[goal.met(value)]
        by_cpu = measured.get(f"{goal.key}{BY_CPU}")
        shown = "" if by_cpu is None else goal.shown(by_cpu)
        lines.append((goal.what, goal.bound, goal.shown(value), shown, met))
    return lines


def text_table(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    head, *rest = lines
    rows = [head, ["---"] * len(head), *rest]
    return "\n".join("| " + " | ".join(cell or " " for cell in row) + " |" for row in rows)


def as_json(measured: Mapping[str, float | None]) -> str:
    """One line: every key of `KEYS` in its order, null where it was not measured, then the others."""
    ordered = {key: measured.get(key) for key in KEYS}
    return json.dumps({**ordered, **{key: measured[key] for key in measured if key not in ordered}})


def between(text: str, fresh: str, begin: str, end: str) -> str:
    """`text` with what stands between two marks replaced. Raises ValueError when they are not there."""
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the marks {begin!r} and {end!r} are not in the page")
    return f"{before}{begin}\n{fresh.strip()}\n{end}{after}"
