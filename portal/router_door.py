"""The way from the portal to a router of this machine that answers TLS.

The name on the certificate may lead elsewhere from here, or nowhere, and the certificate may be one that
no authority of this machine knows. So the portal connects to the router itself, asks for it by its name,
and trusts exactly the chain that an administrator gave it: a certificate of anybody else is refused.
"""

import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings

from deployments.clusters.models import Cluster

_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "[::]": "[::1]", "*": "127.0.0.1"}  # noqa: S104


@dataclass(frozen=True, slots=True)
class Door:
    """Where to connect to instead of the scoring URI's own host. `name` is who must answer there."""

    address: str  # host:port
    name: str
    chain: str  # PEM

    def context(self) -> ssl.SSLContext:
        """Trusts this chain and nothing else. Raises ssl.SSLError when it cannot be read."""
        made = ssl.create_default_context(cadata=self.chain)
        # a chain may end below its root
        made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return made

    def url(self, uri: str) -> str:
        """The URI with the door's address in the place of its host."""
        parts = urlsplit(uri)
        return parts._replace(netloc=self.address).geturl()


def door_of(cluster: Cluster) -> Door | None:
    """The door of a router on this machine; None where its address is good as it is."""
    if cluster.kind == Cluster.Kind.KUBERNETES or not cluster.tls_chain:
        return None
    bind = settings.ENV.router_bind
    bracketed = f"[{bind}]" if ":" in bind and not bind.startswith("[") else bind
    host = _EVERY_ADDRESS.get(bind, bracketed)
    return Door(f"{host}:{cluster.tls_port}", cluster.tls_cname, cluster.tls_chain)
