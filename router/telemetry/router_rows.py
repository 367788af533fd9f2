"""Rows of what the routers measured of themselves, and of the verdicts on their size.

One table a resolution with the same columns, as of services (`router.telemetry.models`): a bucket's means
are over its measured seconds, and a bucket in which nothing was measured has no row. `at` is epoch seconds
(UTC), where the bucket begins. By the cluster's name: figures outlive what they were taken of.
"""

from datetime import UTC, datetime
from typing import Any

from django.db import models


class RouterFigures(models.Model):
    """The columns of every resolution."""

    cluster = models.CharField(max_length=24)
    at = models.BigIntegerField(db_index=True)
    seconds = models.PositiveIntegerField(default=1, help_text="Measured seconds in the bucket.")
    probed = models.PositiveIntegerField(default=1, help_text="Of them, with a probe's answer.")
    routing_ms = models.FloatField(null=True, help_text="Mean of the probes; empty: no answer.")
    routing_peak_ms = models.FloatField(null=True)
    idle = models.FloatField(help_text="HAProxy's own word, percent of its threads' time.")
    cpu = models.FloatField(help_text="Cores that HAProxy used.")
    cpu_peak = models.FloatField()
    threads = models.FloatField()
    pods = models.FloatField()
    cores = models.FloatField(help_text="Given to the router.")
    connections = models.FloatField()
    connections_peak = models.FloatField()
    requests = models.FloatField(help_text="A second.")

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"router of {self.cluster} at {self.at}"

    @property
    def time(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)


def _unique(name: str) -> list[models.BaseConstraint]:
    return [models.UniqueConstraint(fields=["cluster", "at"], name=name)]


class RouterSecond(RouterFigures):
    """One second; kept for 2 hours."""

    class Meta:
        verbose_name = "router sample (1 second)"
        verbose_name_plural = "router samples (1 second)"
        constraints = _unique("one_router_row_a_second")


class RouterTenSeconds(RouterFigures):
    """Ten seconds; kept for 2 days."""

    class Meta:
        verbose_name = "router sample (10 seconds)"
        verbose_name_plural = "router samples (10 seconds)"
        constraints = _unique("one_router_row_ten_seconds")


class RouterMinute(RouterFigures):
    """One minute; kept for 30 days."""

    class Meta:
        verbose_name = "router sample (1 minute)"
        verbose_name_plural = "router samples (1 minute)"
        constraints = _unique("one_router_row_a_minute")


class RouterHour(RouterFigures):
    """One hour; kept for 400 days."""

    class Meta:
        verbose_name = "router sample (1 hour)"
        verbose_name_plural = "router samples (1 hour)"
        constraints = _unique("one_router_row_an_hour")


class RouterDecision(models.Model):
    """The ledger of a router's size: verdicts that changed it or were prevented from it."""

    cluster = models.CharField(max_length=24)
    at = models.FloatField(help_text="Epoch seconds.")
    code = models.CharField(max_length=20)
    reason = models.TextField()
    threads_before = models.IntegerField()
    threads_after = models.IntegerField()
    pods_before = models.IntegerField()
    pods_after = models.IntegerField()
    applied = models.BooleanField()
    inputs = models.JSONField(default=dict)
    # When the router had that size. None: not seen.
    done_at = models.FloatField(null=True, blank=True)
    # Of what was prevented: the last moment it is known to have been so, and whether that was its end.
    until = models.FloatField(null=True, blank=True)
    over = models.BooleanField(default=False)

    class Meta:
        ordering = ["-at", "-pk"]
        constraints = [
            models.UniqueConstraint(fields=["cluster", "at"], name="one_router_decision_a_time")
        ]

    def __str__(self) -> str:
        return self.reason

    @property
    def time(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    @property
    def direction(self) -> str:
        """ "up", "down" or "prevented": the mark's shape on the chart."""
        before = (self.threads_before, self.pods_before)
        after = (self.threads_after, self.pods_after)
        if not self.applied or before == after:
            return "prevented"
        return "up" if after > before else "down"

    @property
    def title(self) -> str:
        """What was done, in a few words."""
        if self.direction == "prevented":
            return "Stayed as it is"
        if self.pods_after != self.pods_before:
            return f"{self.pods_before} → {self.pods_after} pods"
        return f"{self.threads_before} → {self.threads_after} threads"

    @property
    def waited(self) -> float | None:
        """Seconds until the router had that size."""
        return None if self.done_at is None else max(self.done_at - self.at, 0.0)

    @property
    def lasted(self) -> float | None:
        """Seconds for which it was prevented, so far."""
        return None if self.until is None else max(self.until - self.at, 0.0)

    def figures(self) -> list[tuple[str, Any]]:
        """The inputs with words a person reads."""
        return [
            (_WORDS.get(key, key.replace("_", " ")), "unknown" if value is None else value)
            for key, value in self.inputs.items()
        ]


_WORDS = {
    "routing_ms": "routing time, ms",
    "limit_ms": "limit, ms",
    "idle": "HAProxy idle, %",
    "cpu": "cores used",
    "cores": "cores given",
    "free_cores": "cores free beside it",
}


class RouterPlace(models.Model):
    """How far a cluster's router figures have been read."""

    cluster = models.CharField(max_length=24, unique=True)
    epoch = models.CharField(max_length=64, blank=True)
    seq = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.cluster} until {self.seq} of {self.epoch}"
