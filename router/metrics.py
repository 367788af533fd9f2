"""The router's figures in Prometheus' text form.

Counters are sums of samples since this run of the loop began: a second that could not be measured adds
nothing, and a restart begins at zero, as Prometheus expects of counters. Labels are service, version
and a fixed word, never anything a client sent.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from router.loop import RouterLoop
from router.samples import BUCKET_BOUNDS_US

_VERSION = ("service", "version")


class _Collector:
    def __init__(self, loop: RouterLoop) -> None:
        self._loop = loop

    def collect(self) -> Iterator[Metric]:
        yield from self._requests()
        yield from self._replicas()
        yield from self._router()

    def _requests(self) -> Iterator[Metric]:
        arrivals = CounterMetricFamily(
            "slipway_requests", "Requests that passed authorisation.", labels=_VERSION
        )
        answers = CounterMetricFamily(
            "slipway_responses", "Answers by outcome.", labels=(*_VERSION, "outcome")
        )
        duration = HistogramMetricFamily(
            "slipway_request_duration_seconds",
            "Time from request to answer in the router, of 2xx answers.",
            labels=_VERSION,
        )
        for key, total in self._loop.totals.items():
            labels = (key.service, key.version)
            arrivals.add_metric(labels, total.arrivals)
            for outcome, count in (
                ("ok", total.ok),
                ("client_error", total.client_errors),
                ("rejected", total.rejected),
                ("timeout", total.timeouts),
                ("failure", total.failures),
            ):
                answers.add_metric((*labels, outcome), count)
            seen, buckets = 0, []
            for bound, count in zip(BUCKET_BOUNDS_US, total.histogram, strict=False):
                seen += count
                buckets.append((f"{bound / 1e6:g}", float(seen)))
            buckets.append(("+Inf", float(sum(total.histogram))))
            duration.add_metric(labels, buckets, sum_value=None)
        yield arrivals
        yield answers
        yield duration

    def _replicas(self) -> Iterator[Metric]:
        replicas = GaugeMetricFamily(
            "slipway_replicas", "Replicas by state.", labels=(*_VERSION, "state")
        )
        inside = GaugeMetricFamily(
            "slipway_requests_in_flight", "Requests by place.", labels=(*_VERSION, "place")
        )
        for key, sample in self._loop.latest.items():
            labels = (key.service, key.version)
            for state, count in (
                ("ready", sample.ready),
                ("starting", sample.starting),
                ("draining", sample.draining),
                ("desired", sample.desired),
            ):
                replicas.add_metric((*labels, state), count)
            inside.add_metric((*labels, "replica"), sample.busy)
            inside.add_metric((*labels, "queue"), sample.queued)
        yield replicas
        yield inside

    def _router(self) -> Iterator[Metric]:
        status, plane = self._loop.status, self._loop.plane
        for name, help_text, value in (
            ("slipway_router_cycle_seconds", "How long the last turn took.", status.cycle_seconds),
            ("slipway_router_unplaced_replicas", "Ready, but no slot.", len(plane.unplaced)),
            ("slipway_haproxy_old_workers", "Workers of before a reload.", len(plane.old_workers)),
            ("slipway_router_healthy", "1 when the last turn had no trouble.", not status.trouble),
        ):
            yield GaugeMetricFamily(name, help_text, value=float(value))
        for name, help_text, value in (
            ("slipway_router_late_cycles", "Turns that began late.", status.late_cycles),
            ("slipway_haproxy_reloads", "Reloads by this run of the loop.", plane.reloads),
            ("slipway_haproxy_commands", "Commands that changed HAProxy.", plane.told),
        ):
            yield CounterMetricFamily(name, help_text, value=float(value))


def registry(loop: RouterLoop) -> CollectorRegistry:
    """A registry of this loop's figures alone."""
    made = CollectorRegistry(auto_describe=False)
    made.register(_Collector(loop))
    return made


def text(made: CollectorRegistry) -> bytes:
    return generate_latest(made)
