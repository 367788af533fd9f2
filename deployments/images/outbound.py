"""Which addresses a registry may have and send us on to, so that looking one up cannot be turned inwards.

PURE but for the resolver that is passed in. An administrator names a registry, and a registry names its
token server, so what is allowed is:

- a registry over TLS anywhere but at link-local, multicast and unspecified addresses (cloud metadata);
- a registry over plain http at loopback addresses only;
- redirects: none;
- a token server over TLS whose every address is public; or at the registry's own host and port; or at a
  host that has a registry's row of its own, which an administrator made on purpose. Another one, at a
  private address or without TLS, is not asked and gets no credentials.
"""

import ipaddress
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from deployments.errors import InvalidInput

# host -> its addresses as text; raises OSError where it has none
Resolver = Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect: `address` is the one that was judged, so a name cannot change its mind."""

    scheme: str
    host: str
    port: int
    address: str
    path: str  # with its query

    @property
    def authority(self) -> str:
        """The Host header."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return shown if self.port == default else f"{shown}:{self.port}"


class NotAllowed(Exception):
    """The address is not one that is asked; the message says why."""


def registry_target(address: str, *, plain_http: bool, resolve: Resolver) -> Target:
    """Where a registry's API is. Raises InvalidInput, OSError."""
    host, port = host_and_port(address, default=80 if plain_http else 443)
    found = resolve(host)
    parsed = [ipaddress.ip_address(text) for text in found]
    if plain_http and not all(item.is_loopback for item in parsed):
        raise InvalidInput(
            f"{address} is not this machine: plain http is for registries on a loopback address such as "
            "127.0.0.1:5000. Reach it over TLS.",
            field="plain_http",
        )
    for item in parsed:
        if item.is_link_local or item.is_multicast or item.is_unspecified:
            raise InvalidInput(
                f"{address} is at {item}, which no registry has: link-local, multicast and unspecified "
                "addresses are not asked.",
                field="address",
            )
    return Target("http" if plain_http else "https", host, port, found[0], "")


def token_target(
    realm: str, *, registry: Target, trusted: Collection[str], resolve: Resolver
) -> Target:
    """Where a registry's token server is. Raises NotAllowed, OSError."""
    try:
        parts = urlsplit(realm)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise NotAllowed(f"its token server {realm[:200]!r} is not an address") from error
    host = (parts.hostname or "").lower()
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    if not host or parts.username or parts.password or parts.scheme not in ("http", "https"):
        raise NotAllowed(f"its token server {realm[:200]!r} is not a plain address")
    own = (host, port, parts.scheme) == (registry.host, registry.port, registry.scheme)
    if own:
        return Target(parts.scheme, host, port, registry.address, path or "/")
    if parts.scheme != "https":
        raise NotAllowed(f"its token server {host} is not asked without TLS")
    found = resolve(host)
    if f"{host}:{port}" in trusted or (port == 443 and host in trusted):
        return Target("https", host, port, found[0], path or "/")
    private = [text for text in found if not ipaddress.ip_address(text).is_global]
    if private:
        raise NotAllowed(
            f"its token server {host} is at the private address {private[0]}; add {host} as a registry "
            "of the kind “base images” if it is yours"
        )
    return Target("https", host, port, found[0], path or "/")


def host_and_port(address: str, *, default: int) -> tuple[str, int]:
    """`registry.example.com:5000`, `[::1]:5000`. Raises InvalidInput."""
    try:
        parts = urlsplit(f"//{address}")
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    clean = parts.netloc == address and not parts.username and "@" not in address
    if not clean or not parts.hostname or parts.path or parts.query:
        raise InvalidInput(
            f"{address!r} is not an address; write host and port without a scheme, such as "
            "registry.example.com or 127.0.0.1:5000.",
            field="address",
        )
    return parts.hostname.lower(), port or default
