"""Asks a router's admin API what people want to know, with a deadline. Reads and changes no rows.

A router that does not answer is `Unavailable`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deployments.clusters.custom import Remark
from deployments.codec import from_json, to_json
from deployments.errors import Unavailable
from deployments.types import CustomLines
from router.doors import Door, door
from router.setup import Status

_SHORT = 1.0  # seconds a page waits for a figure
_CHECK = 25.0  # HAProxy's own check has 20


def status(router: Path | Door) -> Status:
    """How far the router follows its settings. Raises Unavailable."""
    return _read(Status, door(router).ask("GET", "/setup", _SHORT))


def status_of_all(pods: Sequence[Door]) -> Status:
    """The same of a router of several pods: as far as the last of them. Raises Unavailable."""
    told = [status(pod) for pod in pods]
    if not told:
        raise Unavailable("No pod of the router takes requests.")
    problems = [item for item in told if item.problem]
    return problems[0] if problems else min(told, key=lambda item: item.generation)


def check(router: Path | Door, lines: CustomLines) -> tuple[bool, list[Remark]]:
    """Whether HAProxy would take these lines, and what it says to them. Raises Unavailable."""
    data = door(router).ask("POST", "/check", _CHECK, body=to_json(lines))
    if not isinstance(data, dict) or not isinstance(data.get("remarks"), list):
        raise Unavailable("The router's answer cannot be read; is it of another version?")
    return bool(data.get("ok")), [_read(Remark, item) for item in data["remarks"]]


def _read(kind: type[Any], data: Any) -> Any:
    try:
        return from_json(kind, data)
    except (ValueError, TypeError) as error:
        raise Unavailable(f"The router's answer cannot be read: {error}.") from error
