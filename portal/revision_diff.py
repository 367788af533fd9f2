"""What differs between two revisions, in a person's words.

Decides from rows that are already loaded (model links, environment, source); asks for nothing itself.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deployments.services import containers
from deployments.services.models import Revision

LABELS: dict[str, str] = {
    "autoscale_enabled": "Replicas follow the load",
    "autoscale_min_replicas": "Replicas at least",
    "autoscale_max_replicas": "Replicas at most",
    "autoscale_target_utilization": "Target utilisation, %",
    "autoscale_refresh_seconds": "Decide every, s",
    "num_replicas": "Replicas",
    "cpu_cores": "CPU cores",
    "memory_gb": "Memory, GiB",
    "cpu_cores_limit": "CPU limit",
    "memory_gb_limit": "Memory limit, GiB",
    "gpu_cores": "GPUs",
    "replica_max_concurrent_requests": "Requests at once per replica",
    "max_request_wait_time": "Longest wait in the queue, ms",
    "scoring_timeout_ms": "Scoring timeout, ms",
    "auth_enabled": "Requests may bring a key",
    "token_auth_enabled": "Requests may bring a token",
    "collect_model_data": "Model data collection",
    "enable_app_insights": "Request logging",
    "period_seconds": "Probe every, s",
    "initial_delay_seconds": "Time to start, s",
    "timeout_seconds": "Probe timeout, s",
    "success_threshold": "Successes to be alive",
    "failure_threshold": "Failures to be restarted",
    "namespace": "Namespace",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs; an empty text is "not set"."""

    label: str
    before: str
    after: str


def _words(value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def facts(revision: Revision) -> dict[str, str]:
    """Every field of a revision as label -> words."""
    models = [str(link.model_version) for link in revision.model_links.all()]
    result = {
        "Models": ", ".join(models),
        "Served by": revision.entry_script or ("" if revision.container else "no code"),
        **_container(revision),
        "Project folder": revision.source_id[:12] if revision.source_id else "",
        "Environment": f"{chosen} ({chosen.hash[:12]})" if (chosen := revision.environment) else "",
    }
    config: Mapping[str, Any] = revision.config
    for name, label in LABELS.items():
        result[label] = _words(config.get(name))
    for name in sorted(set(config) - set(LABELS)):
        result[name] = _words(config[name])
    return result


def _container(revision: Revision) -> dict[str, str]:
    """The parts of a brought image; those of a revision without one are empty."""
    found = containers.from_row(revision.container)
    labels = {"image": "Image", "port": "Port", **containers.LABELS}
    return {label: _words(getattr(found, name, None)) for name, label in labels.items()}


def changes(before: Revision | None, after: Revision) -> list[Change]:
    """Fields of `after` that differ from `before`; all that are set when there is no before."""
    old = facts(before) if before else {}
    new = facts(after)
    return [
        Change(label, old.get(label, ""), value)
        for label, value in new.items()
        if old.get(label, "") != value
    ]


def with_changes(newest_first: Iterable[Revision]) -> list[tuple[Revision, list[Change]]]:
    """Each revision with its difference from the one before it in number."""
    rows = list(newest_first)
    return [
        (row, changes(rows[index + 1] if index + 1 < len(rows) else None, row))
        for index, row in enumerate(rows)
    ]
