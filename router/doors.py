"""The ways from the portal to a router's admin API: a unix socket of this machine, or the API server's proxy.

A question has a deadline, and one that is not answered is `Unavailable`, whatever stood in the way. Both are
reading only; a router in a cluster needs no path to the portal and no address of its own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

import httpx

from deployments.drivers.kubernetes_router import ADMIN_PORT
from deployments.errors import PermanentError, TemporaryError, Unavailable
from deployments.kube.api import Kube

Query = Mapping[str, str | int]


class Door(Protocol):
    """One router, or one pod of it."""

    def ask(
        self,
        method: str,
        path: str,
        seconds: float,
        *,
        query: Query | None = None,
        body: Any = None,
    ) -> Any:
        """The answer's JSON. Raises Unavailable."""


@dataclass(frozen=True, slots=True)
class UnixDoor:
    """The router of a process or Docker cluster."""

    socket: Path

    def ask(
        self,
        method: str,
        path: str,
        seconds: float,
        *,
        query: Query | None = None,
        body: Any = None,
    ) -> Any:
        if not self.socket.is_socket():
            raise Unavailable(f"The router is not running: {self.socket} is missing.")
        # plain HTTP over a unix socket: there is no certificate to verify
        transport = httpx.HTTPTransport(uds=str(self.socket), verify=False)
        try:
            with httpx.Client(
                transport=transport, base_url="http://router", timeout=seconds
            ) as client:
                answer = client.request(method, path, params=query, json=body)
                answer.raise_for_status()
                return answer.json()
        except httpx.HTTPError as error:
            raise Unavailable(
                f"The router's admin API did not answer: {error}. Is `manage.py run_router` running?"
            ) from error
        except ValueError as error:
            raise Unavailable(f"The router's answer cannot be read: {error}.") from error


@dataclass(frozen=True, slots=True)
class PodDoor:
    """A pod of a router in a cluster, through the API server's proxy."""

    kube: Kube
    namespace: str
    pod: str

    def ask(
        self,
        method: str,
        path: str,
        seconds: float,
        *,
        query: Query | None = None,
        body: Any = None,
    ) -> Any:
        asked = f"{path}?{urlencode(query)}" if query else path
        raw = None if body is None else json.dumps(body).encode()
        try:
            data = self.kube.proxy(
                self.namespace, self.pod, ADMIN_PORT, method, asked, raw, seconds=seconds
            )
            return json.loads(data)
        except (PermanentError, TemporaryError) as error:
            raise Unavailable(
                f"The router's pod {self.pod} did not answer: {error.message}"
            ) from error
        except ValueError as error:
            raise Unavailable(f"The router's answer cannot be read: {error}.") from error

    def post(self, path: str, body: bytes, seconds: float) -> bytes:
        """The answer as it is. Raises SlipwayError with the API server's words, or the pod's."""
        return self.kube.proxy(
            self.namespace, self.pod, ADMIN_PORT, "POST", path, body, seconds=seconds
        )


def door(where: "Path | Door") -> Door:
    """A socket's path is the way to a router of this machine."""
    return UnixDoor(where) if isinstance(where, Path) else where
