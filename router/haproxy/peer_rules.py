"""How routers of one cluster hand requests to each other, as HAProxy's rules.

PURE. Where a cluster's router is several pods, each version of a service is served by one of them at a time:
there its requests wait in one queue and there each of its replicas is counted, so that a replica never gets
more than it takes. `router.peers` decides whose a version is; a backend that is another pod's stands in
`OWNERS_MAP`, and its requests go there through `BACKEND`:

    client -> any pod: route, key, size -> (another pod's) inner door -> that pod's queue -> replica

What comes in at the inner door is served there and never handed on, whoever that pod believes to be the
owner: so views that differ for a moment cost a look at the gates, never a circle. A pod that cannot be
connected to is passed over at once, and where nobody is left the pod serves by itself.

Never here: sockets, files, the clock.
"""

from typing import TYPE_CHECKING

from router.haproxy import request_line
from router.haproxy.answers import REQUEST_ID, answer
from router.haproxy.names import FAILURES, GATES_MAP, NAMES_MAP, OWNERS_MAP, VERSIONS_MAP

if TYPE_CHECKING:
    from router.haproxy.render import PeerConfig, RouterConfig

BACKEND = "to_peers"
FRONTEND = "from_peers"
LEAVING = "proc.leaving"  # set when this pod is about to go: connections end with their next answer

# Of the full lane; a request of the fast lane has none of them.
_HANDED_ON = ("svc", "op", "timeout", "who", "client")
_TOKEN = "x-slipway-peer"  # noqa: S105  a header's name
_WHOSE = "x-slipway-version"


def handed(config: "RouterConfig") -> list[str]:
    """Where a request of another pod's version goes; before all other choices of a backend."""
    if config.peers is None:
        return []
    return [f"use_backend {BACKEND} if {{ var(txn.be),map_str({OWNERS_MAP}) -m found }}"]


def leaving(config: "RouterConfig") -> list[str]:
    """A pod that goes tells so in each answer, before it stops to take connections."""
    if config.peers is None:
        return []
    return [f"http-after-response set-header connection close if {{ var({LEAVING}) -m found }}"]


def backend_rules(config: "RouterConfig", peers: "PeerConfig") -> list[str]:
    """Of the backend whose servers are the other pods."""
    return [
        "balance leastconn",
        "option http-keep-alive",
        "http-reuse always",  # `idle-close-on-response` there: a connection is not closed under a request
        "option srvtcpka",
        "srvtcpka-idle 5s",
        "srvtcpka-intvl 2s",
        "srvtcpka-cnt 3",
        "timeout server 24h",  # the other pod holds the limits
        f"default-server check inter {config.check_interval_ms}ms fall 1 rise 1"
        " observe layer4 error-limit 1 on-error mark-down"
        # what was sent to a machine that vanished is given up then, and not after a quarter of an hour
        " tcp-ut 10s",
        *request_line.silent(config.log_socket),  # the other pod writes the line
        "http-request track-sc0 var(txn.be) table counters",
        f"http-request set-var(txn.peer) var(txn.be),map_str({OWNERS_MAP})",
        "http-request del-header authorization",
        "http-request set-header x-request-id %[unique-id] unless { var(txn.id) -m found }",
        f"http-request set-header {_TOKEN} {peers.token}",
        f"http-request set-header {_WHOSE} %[var(txn.be),map_str({NAMES_MAP})]",
        *(
            f"http-request set-header x-slipway-{name} %[var(txn.{name})]"
            f" if {{ var(txn.{name}) -m found }}"
            for name in _HANDED_ON
        ),
        "use-server %[var(txn.peer)] if { var(txn.peer) -m found }",
        "http-response set-var(txn.replied) bool(true)",
        "http-after-response set-var(txn.counted) bool(true) if { status 400:499 }",
        f"http-after-response sc-inc-gpc({FAILURES},0) if {{ status 500:599 }}"
        " !{ var(txn.replied) -m found }",
    ]


def frontend_rules(config: "RouterConfig", peers: "PeerConfig") -> list[str]:
    """Of the inner door. Whoever has the token is another router of this cluster."""
    return [
        *request_line.frontend(config.log_socket),
        f"acl a_peer req.hdr({_TOKEN}) -m str {peers.token}",
        "unique-id-format %[req.hdr(x-request-id)]",
        *request_line.silent(config.log_socket),
        "http-request deny deny_status 403 unless a_peer",
        "http-request set-var(txn.id) req.hdr(x-request-id)",
        *(
            f"http-request set-var(txn.{name}) req.hdr(x-slipway-{name})"
            f" if {{ req.hdr(x-slipway-{name}) -m found }}"
            for name in _HANDED_ON
        ),
        f"http-request set-var(txn.be) req.hdr({_WHOSE}),map_str({VERSIONS_MAP})",
        answer(
            503,
            "RouterError",
            "The router is not ready; try again",
            "unless { var(txn.be) -m found }",
        ),
        "# this pod is not whom it believes to have it: two may send to its replicas now",
        f"http-request set-map({GATES_MAP}) %[var(txn.be)] %[date]"
        f" if {{ var(txn.be),map_str({OWNERS_MAP}) -m found }}",
        "http-request del-header x-slipway- -m beg",
        *request_line.loud(config.log_socket),
        *leaving(config),
        f"http-after-response set-header x-request-id %[{REQUEST_ID}]",
        "http-after-response set-header server-timing queue;dur=%Tw,replica;dur=%Tr"
        " if { var(txn.wait) -m found } { var(txn.op) -m found }",
        "use_backend %[var(txn.be)]",
    ]
