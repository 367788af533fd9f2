"""Asks a router's admin API what people want to know, with a deadline. Reads and changes no rows.

The router stands on a unix socket of this machine; one that does not answer is `Unavailable`.
"""

from pathlib import Path
from typing import Any

import httpx

from deployments.clusters.custom import Remark
from deployments.codec import from_json, to_json
from deployments.errors import Unavailable
from deployments.types import CustomLines
from router.setup import Status

_SHORT = 1.0  # seconds a page waits for a figure
_CHECK = 25.0  # HAProxy's own check has 20


def status(admin_socket: Path) -> Status:
    """How far the router follows its settings. Raises Unavailable."""
    return _read(Status, _ask(admin_socket, "GET", "/setup", _SHORT))


def check(admin_socket: Path, lines: CustomLines) -> tuple[bool, list[Remark]]:
    """Whether HAProxy would take these lines, and what it says to them. Raises Unavailable."""
    data = _ask(admin_socket, "POST", "/check", _CHECK, to_json(lines))
    if not isinstance(data, dict) or not isinstance(data.get("remarks"), list):
        raise Unavailable("The router's answer cannot be read; is it of another version?")
    return bool(data.get("ok")), [_read(Remark, item) for item in data["remarks"]]


def _ask(admin_socket: Path, method: str, path: str, deadline: float, body: Any = None) -> Any:
    if not admin_socket.is_socket():
        raise Unavailable(f"The router is not running: {admin_socket} is missing.")
    # plain HTTP over a unix socket: there is no certificate to verify
    transport = httpx.HTTPTransport(uds=str(admin_socket), verify=False)
    try:
        with httpx.Client(
            transport=transport, base_url="http://router", timeout=deadline
        ) as client:
            answer = client.request(method, path, json=body)
            answer.raise_for_status()
            return answer.json()
    except httpx.HTTPError as error:
        raise Unavailable(
            f"The router's admin API did not answer: {error}. Is `manage.py run_router` running?"
        ) from error
    except ValueError as error:
        raise Unavailable(f"The router's answer cannot be read: {error}.") from error


def _read(kind: type[Any], data: Any) -> Any:
    try:
        return from_json(kind, data)
    except (ValueError, TypeError) as error:
        raise Unavailable(f"The router's answer cannot be read: {error}.") from error
