"""Rows of what the routers measured and decided.

One table a resolution, each with the same columns. A bucket's counts are sums over its measured
seconds, its means are over those seconds, its histogram is the merged one. A bucket in which
nothing was measured has no row: a gap stays a gap.

`at` is epoch seconds (UTC), where the bucket begins.
"""

import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from django.db import models

from router.samples import BUCKET_BOUNDS_US, BUCKETS

_PAIR = struct.Struct("<BI")  # a bucket's index and its count


def pack_histogram(counts: Sequence[int]) -> bytes:
    """A latency histogram as its filled buckets only; nothing counted is no bytes."""
    pack = _PAIR.pack
    return b"".join([pack(index, count) for index, count in enumerate(counts) if count])


def add_histogram(packed: bytes | memoryview, into: list[int]) -> None:
    """Add a packed histogram to counts of `BUCKETS` length."""
    for index, count in _PAIR.iter_unpack(packed):
        into[index] += count


def unpack_histogram(packed: bytes | memoryview) -> tuple[int, ...]:
    counts = [0] * BUCKETS
    add_histogram(packed, counts)
    return tuple(counts)


def packed_quantiles_us(
    packed: bytes | memoryview, shares: Sequence[float]
) -> tuple[float | None, ...]:
    """What `samples.quantile_us` says of the histogram, of several shares in one pass. Histograms that
    were put one behind the other count as one."""
    counts: dict[int, int] = {}
    for index, count in _PAIR.iter_unpack(packed):
        counts[index] = counts.get(index, 0) + count
    if not counts:
        return (None,) * len(shares)
    total = sum(counts.values())
    filled = sorted(counts.items())
    found: list[float | None] = []
    for share in shares:
        rank, seen, value = share * total, 0, float(BUCKET_BOUNDS_US[-1])
        for index, count in filled:
            if seen + count >= rank:
                low = BUCKET_BOUNDS_US[index - 1] if index else 0
                high = BUCKET_BOUNDS_US[index] if index < len(BUCKET_BOUNDS_US) else low
                value = low + (high - low) * (rank - seen) / count
                break
            seen += count
        found.append(value)
    return tuple(found)


class Series(models.Model):
    """One version of a service on a cluster. By name: figures outlive what they were taken of."""

    cluster = models.CharField(max_length=24)
    service = models.CharField(max_length=32, db_index=True)
    version = models.CharField(max_length=63)

    class Meta:
        ordering = ["service", "version"]
        verbose_name_plural = "series"
        constraints = [
            models.UniqueConstraint(
                fields=["cluster", "service", "version"], name="one_series_a_version"
            )
        ]

    def __str__(self) -> str:
        return f"{self.service} {self.version} on {self.cluster}"


class SampleRow(models.Model):
    """The columns of every resolution."""

    series = models.ForeignKey(Series, on_delete=models.CASCADE, related_name="+", db_index=False)
    at = models.BigIntegerField(db_index=True)
    seconds = models.PositiveIntegerField(default=1, help_text="Measured seconds in the bucket.")
    arrivals = models.BigIntegerField(default=0)
    ok = models.BigIntegerField(default=0)
    client_errors = models.BigIntegerField(default=0)
    rejected = models.BigIntegerField(default=0)
    unready = models.BigIntegerField(default=0, help_text="Of rejected: no replica was ready.")
    timeouts = models.BigIntegerField(default=0)
    failures = models.BigIntegerField(default=0)
    busy = models.FloatField(default=0.0)
    busy_peak = models.IntegerField(default=0)
    queued = models.FloatField(default=0.0)
    queued_peak = models.IntegerField(default=0)
    ready = models.FloatField(default=0.0)
    starting = models.FloatField(default=0.0)
    draining = models.FloatField(default=0.0)
    desired = models.FloatField(default=0.0)
    # Of 2xx answers, packed: total time in the router, wait in its queue, time at the replica.
    histogram = models.BinaryField(default=b"")
    queue_histogram = models.BinaryField(default=b"")
    service_histogram = models.BinaryField(default=b"")

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.series_id} at {self.at}"

    @property
    def time(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)


def _unique(name: str) -> list[models.BaseConstraint]:
    return [models.UniqueConstraint(fields=["series", "at"], name=name)]


class Second(SampleRow):
    """One second; kept for 2 hours."""

    class Meta:
        verbose_name = "sample (1 second)"
        verbose_name_plural = "samples (1 second)"
        constraints = _unique("one_row_a_second")


class TenSeconds(SampleRow):
    """Ten seconds; kept for 2 days."""

    class Meta:
        verbose_name = "sample (10 seconds)"
        verbose_name_plural = "samples (10 seconds)"
        constraints = _unique("one_row_ten_seconds")


class Minute(SampleRow):
    """One minute; kept for 30 days."""

    class Meta:
        verbose_name = "sample (1 minute)"
        verbose_name_plural = "samples (1 minute)"
        constraints = _unique("one_row_a_minute")


class Hour(SampleRow):
    """One hour; kept for 400 days."""

    class Meta:
        verbose_name = "sample (1 hour)"
        verbose_name_plural = "samples (1 hour)"
        constraints = _unique("one_row_an_hour")


class RollupMark(models.Model):
    """How far a resolution has been rolled up: its buckets before `until` are final."""

    step = models.PositiveIntegerField(unique=True, help_text="Seconds of a bucket.")
    until = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.step} s until {self.until}"


class DecisionManager(models.Manager["Decision"]):
    def get_queryset(self) -> models.QuerySet["Decision"]:
        return super().get_queryset().select_related("series")


class Decision(models.Model):
    """The ledger: an autoscaler verdict that changed something or was prevented from it."""

    series = models.ForeignKey(Series, on_delete=models.CASCADE, related_name="decisions")
    at = models.FloatField(db_index=True, help_text="Epoch seconds.")
    before = models.IntegerField()
    after = models.IntegerField()
    code = models.CharField(max_length=20)
    reason = models.TextField()
    applied = models.BooleanField()
    inputs = models.JSONField(default=dict)
    # When no fewer (no more, of a step down) than were asked for were ready. None: not seen.
    ready_at = models.FloatField(null=True, blank=True)
    # Of what was prevented: the last moment it is known to have been so, and whether that was its
    # end. None: the router did not say.
    until = models.FloatField(null=True, blank=True)
    over = models.BooleanField(default=False)
    # What a person searches by; the database works it out, so no row can say otherwise.
    kind = models.GeneratedField(
        expression=models.Case(
            models.When(applied=True, after__gt=models.F("before"), then=models.Value("up")),
            models.When(applied=True, after__lt=models.F("before"), then=models.Value("down")),
            default=models.Value("prevented"),
        ),
        output_field=models.CharField(max_length=10),
        db_persist=True,
    )

    objects = DecisionManager()

    class Meta:
        ordering = ["-at", "-pk"]
        constraints = [models.UniqueConstraint(fields=["series", "at"], name="one_decision_a_time")]
        # the rare kind among many of another is found without reading those
        indexes = [models.Index(fields=["series", "kind", "at"], name="decisions_by_kind")]

    def __str__(self) -> str:
        return self.reason

    @property
    def time(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    @property
    def waited(self) -> float | None:
        """Seconds from asking for a count to its being ready."""
        return None if self.ready_at is None else max(self.ready_at - self.at, 0.0)

    @property
    def changed(self) -> bool:
        return self.applied and self.before != self.after

    @property
    def direction(self) -> str:
        """ "up", "down" or "prevented": the mark's shape on the chart."""
        if not self.changed:
            return "prevented"
        return "up" if self.after > self.before else "down"

    def figures(self) -> list[tuple[str, Any]]:
        """The inputs with words a person reads, in the order of the formula."""
        return [
            (_WORDS.get(key, key.replace("_", " ")), "unknown" if value is None else value)
            for key, value in self.inputs.items()
        ]


_WORDS = {
    "service_seconds": "seconds a request",
    "start_seconds": "usual start, seconds",
    "placeable": "room in the cluster for",
    "target": "target, %",
    "needed": "replicas needed",
    "peak_demand": "peak of the last minute",
    "peak_needed": "replicas its peak needs",
    "kept_seconds": "looked back, seconds",
}


class RequestRecord(models.Model):
    """One request of a version that logs its requests. Never a body. By name, as `Series` is."""

    cluster = models.CharField(max_length=24)
    service = models.CharField(max_length=32)
    version = models.CharField(max_length=63)
    at = models.FloatField(help_text="When it came, epoch seconds.")
    request_id = models.CharField(max_length=100, blank=True)
    client_request_id = models.CharField(max_length=100, blank=True)
    method = models.CharField(max_length=16)
    operation = models.CharField(max_length=32, blank=True)
    status = models.PositiveSmallIntegerField()
    # milliseconds; None where the request did not come so far
    queue_ms = models.BigIntegerField(null=True)
    service_ms = models.BigIntegerField(null=True, help_text="Until the replica's first byte.")
    total_ms = models.BigIntegerField()
    bytes_in = models.BigIntegerField()
    bytes_out = models.BigIntegerField()
    replica = models.CharField(max_length=100, blank=True)
    who = models.CharField(max_length=300, blank=True, help_text="Key's name or token:subject.")
    termination_state = models.CharField(max_length=4, blank=True)

    class Meta:
        ordering = ["-pk"]
        indexes = [
            models.Index(fields=["service", "-id"], name="requests_of_a_service"),
            models.Index(fields=["service", "at"], name="requests_by_time"),
            models.Index(fields=["request_id"], name="requests_by_id"),
            models.Index(fields=["client_request_id"], name="requests_by_client_id"),
        ]

    def __str__(self) -> str:
        return f"{self.request_id} of {self.service}: {self.status}"

    @property
    def time(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)


class RequestGap(models.Model):
    """Lines of the request log that are not there. `lost` is how many, None when nobody knows."""

    cluster = models.CharField(max_length=24)
    start = models.FloatField(help_text="Epoch seconds.")
    end = models.FloatField()
    lost = models.PositiveIntegerField(null=True)
    why = models.CharField(max_length=100)

    class Meta:
        ordering = ["-end"]
        indexes = [models.Index(fields=["cluster", "end"], name="gaps_by_time")]

    def __str__(self) -> str:
        return f"{self.cluster}: {self.why}"

    @property
    def time(self) -> datetime:
        return datetime.fromtimestamp(self.start, UTC)

    @property
    def seconds(self) -> float:
        return max(self.end - self.start, 0.0)


class RequestPlace(models.Model):
    """How far a cluster's request log has been read; each pod of a router has its own."""

    cluster = models.CharField(max_length=24)
    source = models.CharField(
        max_length=63, blank=True, help_text="The router's pod; empty: there is but one router."
    )
    epoch = models.CharField(max_length=64, blank=True)
    seq = models.BigIntegerField(default=0)
    seen_at = models.FloatField(default=0.0, help_text="Epoch seconds of the last reading.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["cluster", "source"], name="one_place_a_request_log")
        ]

    def __str__(self) -> str:
        return f"{self.cluster} until {self.seq} of {self.epoch}"


class WhatIf(models.Model):
    """Recorded requests of a version, run through the simulator with other settings. By name, as `Series`.

        queued -> running -> done | failed        queued, running -> cancelled

    Only the holder of the claim works on it; `router.telemetry.what_if` moves it.
    """

    class State(models.TextChoices):
        QUEUED = "queued", "Queued"
        RUNNING = "running", "Running"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    cluster = models.CharField(max_length=24)
    service = models.CharField(max_length=32)
    version = models.CharField(max_length=63)
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    progress = models.FloatField(default=0.0, help_text="Share that is done, 0 to 1.")
    # Epoch seconds; what was asked (`what_if.Question`) and what came out (`what_if.answer`), as JSON.
    since = models.BigIntegerField()
    until = models.BigIntegerField()
    inputs = models.JSONField(default=dict)
    result = models.JSONField(null=True, blank=True)
    cause = models.TextField(blank=True)
    # Who works on it ("host:pid:start") and until when that is believed without a sign of life.
    claimed_by = models.CharField(max_length=200, blank=True)
    claimed_until = models.FloatField(null=True, blank=True)
    attempts = models.PositiveIntegerField(default=0)
    asked_by = models.CharField(max_length=150, blank=True)
    created_at = models.FloatField(help_text="Epoch seconds.")
    ended_at = models.FloatField(null=True, blank=True)

    class Meta:
        ordering = ["-pk"]
        verbose_name = "what-if"
        indexes = [
            models.Index(fields=["service", "-id"], name="what_ifs_of_a_service"),
            models.Index(fields=["state"], name="what_ifs_by_state"),
        ]

    def __str__(self) -> str:
        return f"what-if {self.pk} of {self.service}/{self.version}"

    @property
    def time(self) -> datetime:
        return datetime.fromtimestamp(self.created_at, UTC)

    @property
    def length(self) -> int:
        """Of the range, in seconds."""
        return self.until - self.since

    @property
    def finished(self) -> bool:
        return self.state not in (self.State.QUEUED, self.State.RUNNING)
