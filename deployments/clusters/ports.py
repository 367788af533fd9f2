"""Ports of the routers that this machine runs: each has one for plain HTTP and the next one for TLS.

`local` has the settings' own. Whether a port is free is seen by binding it for a moment.
"""

import socket

from django.conf import settings

from deployments.clusters.models import Cluster
from deployments.errors import InvalidInput

_MOST_TRIES = 200


def next_free() -> int:
    """The first pair after the settings' router port that nobody has."""
    taken = _taken()
    begin = settings.ENV.router_port + 2
    for port in range(begin, min(begin + 2 * _MOST_TRIES, 65534), 2):
        if {port, port + 1}.isdisjoint(taken) and _free(port) and _free(port + 1):
            return port
    return begin


def check(port: int) -> None:
    """Raises InvalidInput (router_port) when the pair cannot be had."""
    for number in (port, port + 1):
        what = f"{number} (TLS)" if number != port else str(number)
        if number in _taken():
            raise InvalidInput(
                f"Port {what} belongs to another cluster's router, or to Slipway itself. "
                f"{next_free()} is free.",
                field="router_port",
            )
        if not 0 < number < 65536 or not _free(number):
            raise InvalidInput(
                f"Port {what} is in use by another program. {next_free()} is free.",
                field="router_port",
            )


def _taken() -> set[int]:
    env = settings.ENV
    taken = {env.port, env.router_port, env.router_tls_port}
    for port in Cluster.objects.values_list("router_port", flat=True):
        taken |= {port, port + 1} if port is not None else set()
    return taken


def _free(port: int) -> bool:
    host = settings.ENV.router_bind
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError:
            return False
    return True
