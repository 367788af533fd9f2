"""The router's figures in Prometheus' text form; docs/metrics.md lists them.

Counters are what HAProxy counted since this run of the loop began, as far as it could be read: a restart
begins at zero, as Prometheus expects of counters. Labels are service, version and a fixed word, never
anything a client sent. A version's lines are made again only when its figures changed: a thousand versions
have a hundred thousand lines.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import nan

from router.haproxy.pool import Key
from router.haproxy.stats import Counters
from router.loop import RouterLoop
from router.samples import BUCKET_BOUNDS_US, Sample
from router.size_wire import RouterSample

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: `kind` is counter, gauge or histogram; `labels` beside service and version."""

    name: str
    kind: str
    text: str
    labels: tuple[str, ...] = ()
    of_version: bool = True


REQUESTS = Family("slipway_requests_total", "counter", "Requests that passed authorisation.")
RESPONSES = Family("slipway_responses_total", "counter", "Answers by outcome.", ("outcome",))
DURATION = Family(
    "slipway_request_duration_seconds",
    "histogram",
    "Time in the router from request to answer, of answers with status 2xx.",
)
QUEUE = Family(
    "slipway_queue_duration_seconds",
    "histogram",
    "Part of it that was waiting in the queue, of answers with status 2xx.",
)
SERVICE = Family(
    "slipway_replica_duration_seconds",
    "histogram",
    "Part of it that was at the replica, of answers with status 2xx.",
)
REPLICAS = Family("slipway_replicas", "gauge", "Replicas by state.", ("state",))
INSIDE = Family(
    "slipway_requests_in_flight", "gauge", "Requests by place, mean of the last second.", ("place",)
)
OF_VERSIONS = (REQUESTS, RESPONSES, DURATION, QUEUE, SERVICE, REPLICAS, INSIDE)

_LOOP = (
    ("slipway_router_cycle_seconds", "gauge", "How long the last turn took."),
    ("slipway_router_late_cycles_total", "counter", "Turns that began late."),
    ("slipway_router_healthy", "gauge", "Whether the last turn had no trouble: 1 or 0."),
    ("slipway_router_unplaced_replicas", "gauge", "Replicas that are ready and have no slot."),
    (
        "slipway_haproxy_old_workers",
        "gauge",
        "Workers that still finish what they had at a reload.",
    ),
    ("slipway_haproxy_reloads_total", "counter", "Reloads by this run of the loop."),
    ("slipway_haproxy_commands_total", "counter", "Commands that changed HAProxy."),
    ("slipway_haproxy_threads", "gauge", "HAProxy's threads."),
    ("slipway_haproxy_cpu_cores", "gauge", "Cores that HAProxy used in the last second."),
    (
        "slipway_router_routing_seconds",
        "gauge",
        "How long the last second's probe of the router took.",
    ),
    ("slipway_request_log_lines_total", "counter", "Lines of the request log that were read."),
    ("slipway_request_log_unreadable_lines_total", "counter", "Lines of it that were none."),
)
OF_LOOP = tuple(Family(name, kind, text, (), False) for name, kind, text in _LOOP)
FAMILIES = (*OF_VERSIONS, *OF_LOOP)

_BOUNDS = (*(f"{bound / 1e6:g}" for bound in BUCKET_BOUNDS_US), "+Inf")


class Metrics:
    """Makes the text of one loop's figures; keeps each version's lines between two scrapes."""

    def __init__(self, loop: RouterLoop) -> None:
        self._loop = loop
        self._kept: dict[Key, tuple[Counters, Sample | None, dict[str, str]]] = {}

    def text(self) -> bytes:
        loop = self._loop
        kept: dict[Key, tuple[Counters, Sample | None, dict[str, str]]] = {}
        for key, total in loop.totals.items():
            latest, known = loop.latest.get(key), self._kept.get(key)
            if known is None or known[0] is not total:
                lines = _counted(key, total) | _now(key, latest)
            elif not _alike(known[1], latest):
                lines = known[2] | _now(key, latest)
            else:
                lines = known[2]
            kept[key] = (total, latest, lines)
        self._kept = kept
        parts: list[str] = []
        for family in OF_VERSIONS:
            parts += _head(family)
            parts += [lines[family.name] for _, _, lines in kept.values() if lines[family.name]]
        for family, value in zip(OF_LOOP, self._of_loop(), strict=True):
            parts += (*_head(family), f"{family.name} {float(value)!r}")
        return ("\n".join(parts) + "\n").encode()

    def _of_loop(self) -> tuple[float, ...]:
        loop, plane, status = self._loop, self._loop.plane, self._loop.status
        return (
            status.cycle_seconds,
            status.late_cycles,
            not status.trouble,
            len(plane.unplaced),
            len(plane.old_workers),
            plane.reloads,
            plane.told,
            *_own(loop.sizing.latest),
            loop.requests.taken,
            loop.requests.unreadable,
        )


def _own(second: RouterSample | None) -> tuple[float, float, float]:
    """NaN, Prometheus' own word, for what the last second did not tell."""
    if second is None:
        return (nan, nan, nan)
    routing = nan if second.routing_ms is None else second.routing_ms / 1000
    return second.threads, second.cpu, routing


def _head(family: Family) -> tuple[str, str]:
    return f"# HELP {family.name} {family.text}", f"# TYPE {family.name} {family.kind}"


def _labels(key: Key, **more: str) -> str:
    pairs = {"service": key.service, "version": key.version, **more}
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _lines(name: str, key: Key, label: str, values: Mapping[str, float]) -> str:
    return "\n".join(
        f"{name}{{{_labels(key, **{label: word})}}} {float(value)!r}"
        for word, value in values.items()
    )


def _counted(key: Key, total: Counters) -> dict[str, str]:
    outcomes = {
        "ok": total.ok,
        "client_error": total.client_errors,
        "overloaded": total.rejected - total.unready,
        "not_ready": total.unready,
        "timeout": total.timeouts,
        "failure": total.failures,
    }
    return {
        REQUESTS.name: f"{REQUESTS.name}{{{_labels(key)}}} {float(total.arrivals)!r}",
        RESPONSES.name: _lines(RESPONSES.name, key, "outcome", outcomes),
        DURATION.name: _histogram(DURATION.name, key, total.histogram),
        QUEUE.name: _histogram(QUEUE.name, key, total.queue_histogram),
        SERVICE.name: _histogram(SERVICE.name, key, total.service_histogram),
    }


def _histogram(name: str, key: Key, counts: Iterable[int]) -> str:
    """Buckets that count up, and all of them. No `_sum`: HAProxy counts buckets alone, and one made of
    their middles would lie."""
    labels, seen, lines = _labels(key), 0, []
    for bound, count in zip(_BOUNDS, counts, strict=True):
        seen += count
        lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {float(seen)!r}')
    lines.append(f"{name}_count{{{labels}}} {float(seen)!r}")
    return "\n".join(lines)


def _now(key: Key, sample: Sample | None) -> dict[str, str]:
    """Nothing where the last second was not measured: unknown is not zero."""
    if sample is None:
        return {REPLICAS.name: "", INSIDE.name: ""}
    states = {
        "ready": sample.ready,
        "starting": sample.starting,
        "draining": sample.draining,
        "desired": sample.desired,
    }
    return {
        REPLICAS.name: _lines(REPLICAS.name, key, "state", states),
        INSIDE.name: _lines(
            INSIDE.name, key, "place", {"replica": sample.busy, "queue": sample.queued}
        ),
    }


def _alike(one: Sample | None, other: Sample | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.ready, one.starting, one.draining, one.desired, one.busy, one.queued) == (
        other.ready,
        other.starting,
        other.draining,
        other.desired,
        other.busy,
        other.queued,
    )
