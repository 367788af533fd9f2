"""Origins of web pages that may call a service: what is one, and its one spelling.

PURE. Browsers send an origin in lower case and without the port that its scheme has anyway; kept like
that, the router finds it by looking it up.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv6Address

from deployments.errors import InvalidInput

ANY = "*"
MOST = 100  # origins of one service
_ORIGIN = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::([0-9]{1,5}))?")
_LONGEST = 200
_USUAL_PORTS = {"http": "80", "https": "443"}


def origins(given: Iterable[str]) -> tuple[str, ...]:
    """The origins in their one spelling, each once. Raises InvalidInput that repeats the wrong one."""
    found = tuple(dict.fromkeys(_origin(text) for text in given))
    if len(found) > MOST:
        raise InvalidInput(
            f"There are {len(found)} origins; at most {MOST} are taken.", field="cors_origins"
        )
    return found


def _origin(text: str) -> str:
    if text.strip() == ANY:
        return ANY
    parts = _ORIGIN.fullmatch(text.strip().rstrip("/").lower())
    if parts is None or len(text) > _LONGEST or not _is_host(parts[2]) or not _is_port(parts[3]):
        raise InvalidInput(
            f"{text.strip()[:80]} is not an origin; write scheme, host and port only, such as "
            "https://app.example.com, or * for every page.",
            field="cors_origins",
        )
    scheme, host, port = parts.groups()
    return f"{scheme}://{host}" + ("" if port in (None, _USUAL_PORTS[scheme]) else f":{int(port)}")


def _is_host(host: str) -> bool:
    if host.startswith("["):
        try:
            IPv6Address(host[1:-1])
        except ValueError:
            return False
        return True
    return all(
        label and len(label) <= 63 and not label.startswith("-") and not label.endswith("-")
        for label in host.split(".")
    )


def _is_port(port: str | None) -> bool:
    return port is None or 0 < int(port) <= 65535
