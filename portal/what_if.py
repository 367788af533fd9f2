"""What-ifs for people: the question out of a form's values, the answer in words and numbers of a table.

Reads rows, changes none; `router.telemetry.what_if` keeps and runs them, `deployments.services.changes`
applies their settings.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deployments.errors import Conflict, InvalidInput, NotFound
from deployments.services.changes import DeployRequest, deploy
from deployments.services.models import Deployment, Service
from portal.models import User
from portal.templatetags.slipway import duration
from router.telemetry import recording
from router.telemetry.as_set import AsSet, as_set
from router.telemetry.models import WhatIf
from router.telemetry.what_if import Question, Settings

STEPS = {1: "1 s", 10: "10 s", 60: "1 minute", 3_600: "1 hour"}
_FAR = 4_000_000_000  # epoch seconds that a date can still be made of, in any zone
_QUESTION = ("minimum", "maximum", "target", "concurrency", "start_seconds")


def then(service: Service, version: str, since: float, until: float) -> AsSet:
    """How the version was set. Raises InvalidInput when it never was."""
    ids = recording.series(service.cluster.name, service.name, version)
    found = as_set(service, version, ids, since, until)
    if found is None:
        raise InvalidInput(
            f"Nothing of {service.name}/{version} was deployed yet.", field="version"
        )
    return found


def question(
    service: Service,
    version: str,
    since: int,
    until: int,
    given: Mapping[str, float | None],
    price: float | None,
) -> Question:
    """`given` has values of `Settings`; what is missing stays as it was set. Raises InvalidInput."""
    for field, moment in (("since", since), ("until", until)):
        if not 0 <= moment < _FAR:
            raise InvalidInput("This is no time.", field=field)
    was = then(service, version, since, until)
    values: dict[str, Any] = {name: getattr(was.settings, name) for name in _QUESTION}
    values |= {name: value for name, value in given.items() if value is not None}
    if values["maximum"] < values["minimum"]:
        raise InvalidInput(
            f"The most replicas ({values['maximum']}) are below the least ({values['minimum']}).",
            field="maximum",
        )
    return Question(
        cluster=service.cluster.name,
        service=service.name,
        version=version,
        since=since,
        until=until,
        settings=Settings(**values, refresh_seconds=was.settings.refresh_seconds),
        as_set=was.settings,
        queue_seconds=was.config.max_request_wait_time / 1000,
        scoring_seconds=was.config.scoring_timeout_ms / 1000,
        price=price,
        notes=was.notes,
    )


def default_version(service: Service) -> str:
    """The version whose settings a page begins with; "" when there is none."""
    rows = service.versions.order_by("-is_default", "name").values_list("name", flat=True)
    return rows.first() or ""


def apply(actor: User, service: Service, row: WhatIf) -> Deployment:
    """Deploy a revision with the settings that were tried. Raises what `changes.deploy` does, Conflict
    while the what-if has not ended, and NotFound when its version is gone."""
    if row.state != WhatIf.State.DONE:
        raise Conflict("This what-if has no result whose settings could be applied.")
    if not service.versions.filter(name=row.version).exists():
        raise NotFound(f"{service.name} has no version {row.version} any more.")
    tried = row.inputs["settings"]
    return deploy(
        actor,
        DeployRequest(
            name=service.name,
            update=True,
            version=row.version,
            config={
                "autoscale_enabled": True,
                "num_replicas": None,
                "autoscale_min_replicas": tried["minimum"],
                "autoscale_max_replicas": tried["maximum"],
                "autoscale_target_utilization": tried["target"],
                "replica_max_concurrent_requests": tried["concurrency"],
            },
            note=f"Settings of what-if {row.pk}",
        ),
    )


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the comparison, ready to show. `tone`: good, bad or empty."""

    label: str
    recorded: str
    as_set: str
    settings: str
    error: str = ""  # how far the simulator is off what was measured
    change: str = ""
    tone: str = ""


def settings_words(values: Mapping[str, Any]) -> str:
    """ "1 to 10 replicas, target 70 %, 1 at a time, starting in 20 s" """
    low, high = values["minimum"], values["maximum"]
    count = f"{low} to {high} replicas" if low != high else f"{low} replica{'s' * (low != 1)}"
    if not values.get("autoscale", True):
        return f"{count}, fixed, {values['concurrency']} at a time"
    return (
        f"{count}, target {values['target']} %, {values['concurrency']} at a time, "
        f"starting in {duration(values['start_seconds'])}"
    )


def comparison(row: WhatIf) -> list[Line]:
    """The three runs line by line; of a row that is done."""
    result, price = row.result or {}, row.inputs.get("price")
    was, same, would = (result[name] for name in ("recorded", "as_set", "settings"))
    lines = [
        _line("Requests", was, same, would, "requests", _count, better=None),
        _line("Rejected (503)", was, same, would, "rejected", _count, shares=True),
        _line("Timed out (504)", was, same, would, "timeouts", _count),
        _line("Wait in the queue, p95", was, same, would, "wait_p95", _wait),
        _line("Replica-hours", was, same, would, "replica_hours", _hours),
        _line("Most replicas at a time", was, same, would, "peak", _count, better=None),
        _line("Changes of their number", was, same, would, "actions", _count, better=None),
    ]
    if price is not None:
        cost = ({"cost": item["replica_hours"] * price} for item in (was, same, would))
        label = f"Cost at {price:g} a replica-hour"
        lines.insert(5, _line(label, next(cost), next(cost), next(cost), "cost", _money))
    return lines


def _line(
    label: str,
    was: Mapping[str, Any],
    same: Mapping[str, Any],
    would: Mapping[str, Any],
    name: str,
    words: Callable[[Any], str],
    *,
    better: str | None = "less",
    shares: bool = False,
) -> Line:
    def text(item: Mapping[str, Any]) -> str:
        share = f" ({100 * item['rejected_share']:.2g} %)" if shares and item["requests"] else ""
        return f"{words(item[name])}{share}"

    change = _difference(same[name], would[name], words)
    tone = ""
    if better and change and same[name] is not None and would[name] is not None:
        tone = "good" if would[name] < same[name] else "bad"
    error = _difference(was[name], same[name], words)
    return Line(label, text(was), text(same), text(would), error, change, tone)


def _difference(before: float | None, after: float | None, words: Callable[[Any], str]) -> str:
    """ "+12 %", or the plain difference where there is no share of nothing; "" when they look the same."""
    if before is None or after is None or words(before) == words(after):
        return ""
    sign = "+" if after > before else "−"
    percent = 100 * abs(after - before) / before if before else math.inf
    if percent >= 1_000:  # a share of next to nothing says nothing
        return f"{sign}{words(abs(after - before))}"
    return f"{sign}{percent:.0f} %" if percent >= 1 else f"{sign}{percent:.1f} %"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _hours(value: float) -> str:
    return f"{value:,.2f}"


def _money(value: float) -> str:
    return f"{value:,.2f}"


def _wait(value: float | None) -> str:
    if value is None:
        return "unknown"
    return "under 1 ms" if value < 0.001 else str(duration(value))


def remarks(row: WhatIf) -> list[str]:
    """What a person should know before believing the numbers."""
    result = row.result or {}
    step = result["step"]
    found = list(row.inputs.get("notes", []))
    if step > 1:
        found.append(
            f"Of this range, figures of {STEPS[step]} are what is still kept: bursts shorter than that are "
            "not in the replay, so it is kinder than it was."
        )
    missing = result["seconds"] - result["measured"]
    if missing:
        found.append(
            f"{duration(missing)} of the range was not measured: no requests are made up for it, and "
            "replica-hours are of the measured time alone."
        )
    if not row.inputs["as_set"].get("autoscale", True):
        found.append("The number of replicas was fixed then; applying turns autoscaling on.")
    return found


def as_json(row: WhatIf) -> dict[str, Any]:
    """The row for the API."""
    return {
        "id": row.pk,
        "service": row.service,
        "version": row.version,
        "state": row.state,
        "progress": round(row.progress, 3),
        "since": _utc(row.since),
        "until": _utc(row.until),
        "settings": row.inputs["settings"],
        "asSet": row.inputs["as_set"],
        "pricePerReplicaHour": row.inputs.get("price"),
        "askedBy": row.asked_by,
        "createdTime": _utc(row.created_at),
        "endTime": None if row.ended_at is None else _utc(row.ended_at),
        "error": {"message": row.cause} if row.cause else None,
        "result": row.result,
    }


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()
