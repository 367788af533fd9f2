"""HAProxy's configuration as text, from a frozen description.

PURE. What a request meets here, in this order: ids, route, method, key, size, then its version's
backend, where one central queue holds what waits and each replica takes `maxconn` at a time. Whatever
changes while services come and go (routes, keys, timeouts, replicas) lives in maps and server slots
that the runtime socket changes; the text changes only when the number of backends, of slots or a
queue wait does, and only then is a reload needed.

`shape` names a text by its hash, whatever replicas stand in it. The running worker carries it as its
`description`, so a loop that finds HAProxy running knows what that worker was started with.

Never here: sockets, files, the clock.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, summarize_address_range

from deployments.types import CustomLines
from router.haproxy import names, peer_rules, replica_rules, request_line, rules
from router.haproxy.answers import own_error
from router.haproxy.slots import check_port
from router.samples import BUCKET_BOUNDS_US, BUCKETS

SCORING_TIMEOUT_MS = 60_000  # Azure's default
SCORE = "/score"  # where scoring servers take requests


@dataclass(frozen=True, slots=True)
class BackendShape:
    """One backend of the pool: its queue's patience, how many replicas it has room for, and where these
    score: a brought image may have a path of its own."""

    queue_wait_ms: int = 500
    slots: int = 32
    path: str = "/score"  # where its replicas score


@dataclass(frozen=True, slots=True)
class Placed:
    """A replica that stands in a slot when HAProxy starts. `address` is "host:port", or of a unix socket
    whatever says so: the slot's link leads there."""

    address: str
    concurrency: int


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """How pods of one router reach each other (`router.haproxy.peer_rules`)."""

    bind: str
    port: int  # of the inner door
    socket: str  # where it stands for this pod itself: the last resort
    token: str  # a secret of all pods: letters and digits
    slots: int = 16  # other pods at most


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """Everything the text is made from. Paths are absolute; seconds and bytes unless named otherwise.

    The maps (`MAPS`) and `router.lua` stand in the folder of the text's own file.
    """

    bind: str
    port: int
    stats_socket: str
    body_socket: str  # between the main frontend and the one that counts chunked bodies
    backends: tuple[BackendShape, ...]
    connections: int = 8000  # of clients, at once
    body_limit: int = 100 * 2**20
    header_timeout: int = 10
    body_timeout: int = 10  # until a body is there, or as much of it as fits one buffer
    idle_timeout: int = 65
    connect_timeout_ms: int = 1000
    scoring_timeout_ms: int = SCORING_TIMEOUT_MS  # of versions that are not in the map
    check_interval_ms: int = 500
    # An old worker's last moment after a reload: it stays for long requests, not for idle clients.
    hard_stop: int = 3600
    # A new connection for each request to a replica. Azure's scoring server closes after each answer
    # anyway, and only so does HAProxy report every replica's death as a 502.
    server_close: bool = True
    # What a cluster's RouterSpec says, through `router.setup`.
    tls_port: int | None = None  # None: no TLS; else the certificate stands in `site.pem`
    plain_http: bool = True  # whether the plain port scores
    custom: CustomLines = CustomLines()
    token_keys: tuple[str, ...] = ()  # the ids (kid) of `token-1.pem`, `token-2.pem`: newest first
    # Where each slot has a link to its replica's unix socket, and one to where that answers checks;
    # None: replicas have a host and a port.
    slot_folder: str | None = None
    log_socket: str = ""  # the loop's, to which lines of the request log are written; "": none are
    threads: int = 1  # see `router.selfscale`: several are exact only from HAProxy 3.2 on
    peers: PeerConfig | None = None  # other pods of this router; None: it is the only one, always

    @property
    def gated(self) -> bool:
        """Whether replicas have gates, which may refuse a request (425)."""
        return self.slot_folder is not None or self.peers is not None


def backend_name(index: int) -> str:
    """The name of the backend at this index of `RouterConfig.backends`."""
    return f"be_{index + 1:04d}"


def server_name(index: int) -> str:
    """The name of a backend's slot at this index."""
    return f"s{index + 1}"


CHECK_SUFFIX = ".up"  # of a slot's second link, to the socket where its replica answers checks


def slot_link(backend: str, server: str) -> str:
    """The name of a slot's link in `RouterConfig.slot_folder`."""
    return f"{backend}.{server}"


def shape(config: RouterConfig) -> str:
    """What the text is called, whatever replicas stand in it."""
    return _shape(render_with(config, {}, ""))


def render(config: RouterConfig, placed: Mapping[str, Mapping[str, Placed]] | None = None) -> str:
    """haproxy.cfg. `placed` is backend -> slot -> the replica that takes requests from the start."""
    return render_with(config, placed or {}, shape(config))


def _shape(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def render_with(
    config: RouterConfig, placed: Mapping[str, Mapping[str, Placed]], description: str
) -> str:
    parts = [
        _global(config, description),
        _base_defaults(config),
        *filter(None, (request_line.ring(config.log_socket),)),
        _main_frontend(config),
        _body_frontend(config),
        *_peers(config, placed.get(peer_rules.BACKEND, {})),
        _tables(config),
        _scoring_defaults(config),
    ]
    for index, backend in enumerate(config.backends):
        name = backend_name(index)
        parts.append(_backend(config, name, backend, placed.get(name, {})))
    return "\n\n".join(parts) + "\n"


def _global(config: RouterConfig, description: str) -> str:
    return f"""\
# Written by Slipway's router; changes made here are lost.
global
    default-path config              # maps and Lua stand beside this file
    description slipway-{description}
    nbthread {config.threads}
    maxconn {config.connections}
    hard-stop-after {config.hard_stop}s
    stats socket {_quoted(config.stats_socket)} mode 600 level admin expose-fd listeners
    stats timeout 10s
    tune.bufsize 65536
    tune.memory.hot-size 16777216    # buffers of this size would not stay in the cache otherwise
    tune.stick-counters 4
    ssl-default-bind-options ssl-min-ver TLSv1.2
    lua-load router.lua
    {_custom(config.custom.global_section)}"""


def _base_defaults(config: RouterConfig) -> str:
    # between pods connections are kept; `option http-server-close` is then the replicas' own
    keeps = not config.server_close or config.peers is not None
    close = "option http-keep-alive" if keeps else "option http-server-close"
    return f"""\
defaults base
    mode http
    timeout connect {config.connect_timeout_ms}ms
    timeout client {config.idle_timeout}s
    timeout http-request {config.header_timeout}s
    timeout http-keep-alive {config.idle_timeout}s
    timeout server {config.scoring_timeout_ms}ms
    timeout tunnel 1h
    timeout queue 500ms
    {close}
    option idle-close-on-response    # a reload lets idle clients finish their next request
    option abortonclose              # a client that leaves gives up its place in the queue
    option http-no-delay             # an event of a stream is not held back for the next one
    option redispatch 1
    retries 2
    retry-on conn-failure            # never resend what a replica may have begun
    http-reuse safe
    {own_error(400, "BadRequest", "The request is not valid HTTP", "unique-id")}
    {own_error(408, "RequestTimeout", "The request did not arrive in time", "unique-id")}
    {own_error(500, "RouterError", "The router failed; try again", "unique-id")}
    {own_error(503, "RouterError", "The router is not ready; try again", "unique-id")}
    {_custom(config.custom.defaults)}"""


def _custom(lines: Iterable[str]) -> str:
    """An administrator's own lines, or nothing."""
    return "\n    ".join(lines)


def _section(title: str, lines: Iterable[str]) -> str:
    return f"{title}\n" + "\n".join(f"    {line}" for line in lines)


def _main_frontend(config: RouterConfig) -> str:
    bind = [f"bind {_bind(config.bind, config.port)}"]
    if config.tls_port is not None:
        where = _bind(config.bind, config.tls_port)
        bind.append(f"bind {where} ssl crt site.pem alpn h2,http/1.1")
    logged = request_line.frontend(config.log_socket)
    return _section("frontend scoring from base", [*bind, *logged, *rules.frontend_rules(config)])


def _body_frontend(config: RouterConfig) -> str:
    socket = _quoted("unix@" + config.body_socket)
    logged = request_line.frontend(config.log_socket)
    lines = [*rules.hop_rules(config), f"server hop {socket}"]
    hop = _section(f"backend {rules.HOP} from base", lines)
    body = [f"bind {socket} mode 600", *logged, *rules.body_rules(config)]
    return f"{hop}\n\n{_section('frontend body from base', body)}"


def _peers(config: RouterConfig, placed: Mapping[str, Placed]) -> list[str]:
    """The other pods, and the door that they come in at."""
    peers = config.peers
    if peers is None:
        return []
    own = _quoted("unix@" + peers.socket)
    servers = []
    for index in range(peers.slots):
        name = peer_name(index)
        if (pod := placed.get(name)) is not None:
            servers.append(f"server {name} {pod.address} maxconn {pod.concurrency}")
        else:
            servers.append(f"server {name} 127.0.0.1:1 maxconn 1 disabled")
    out = [*peer_rules.backend_rules(config, peers), *servers, f"server self {own} no-check backup"]
    door = [
        f"bind {_bind(peers.bind, peers.port)}",
        f"bind {own} mode 600",
        *peer_rules.frontend_rules(config, peers),
    ]
    return [
        _section(f"backend {peer_rules.BACKEND} from base", out),
        _section(f"frontend {peer_rules.FRONTEND} from base", door),
    ]


def peer_name(index: int) -> str:
    """The slot of another pod at this index."""
    return f"p{index + 1}"


def _tables(config: RouterConfig) -> str:
    """Outcomes by backend, and times by backend and bucket."""
    backends = max(1024, 2 * len(config.backends))
    kinds = "\n\n".join(
        f"backend {table} from base\n    stick-table type string len 16"
        f" size {backends * BUCKETS} nopurge store http_req_cnt"
        for table in names.LATENCY_TABLES
    )
    return f"""\
backend counters from base
    stick-table type string len 16 size {backends} nopurge store gpc({names.COUNTERS})

{kinds}"""


def _scoring_defaults(config: RouterConfig) -> str:
    kept = config.peers is not None and config.server_close
    close = ["option http-server-close"] if kept else []
    return _section("defaults replicas from base", [*close, *replica_rules.rules(config)])


def _backend(
    config: RouterConfig, name: str, backend: BackendShape, placed: Mapping[str, Placed]
) -> str:
    lines = [f"backend {name} from replicas", f"    timeout queue {backend.queue_wait_ms}ms"]
    if config.gated:
        lines.append(f"    retries {retries(backend.queue_wait_ms)}")
    if backend.path != SCORE:
        # here and in no map: whoever has the usual path pays nothing for it
        lines.append(f"    http-request set-path {backend.path} if {{ path {SCORE} }}")
    if not placed and config.slot_folder is None:
        lines.append(f"    server-template s 1-{backend.slots} 127.0.0.1:1 maxconn 1 disabled")
        return "\n".join(lines)
    for index in range(backend.slots):
        server = server_name(index)
        replica = placed.get(server)
        if config.slot_folder is None:
            address, check = replica.address if replica else "127.0.0.1:1", ""
            if not address.endswith(f":{check_port(address)}"):
                check = f" port {check_port(address)}"
        else:
            link = f"unix@{config.slot_folder}/{slot_link(name, server)}"
            address, check = _quoted(link), f" addr {_quoted(link + CHECK_SUFFIX)}"
        taken = f"maxconn {replica.concurrency}" if replica else "maxconn 1 disabled"
        lines.append(f"    server {server} {address} {taken}{check}")
    return "\n".join(lines)


def retries(queue_wait_ms: int) -> int:
    """How often a request may be refused by gates: as often as it can be while it may wait, so that the
    wait decides and not the count. A gate keeps each for 20 ms at least; a replica that cannot be
    connected to is marked down at once, and uses up none."""
    return min(max(10, queue_wait_ms // 20), 1000)


def _bind(address: str, port: int) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"{host}:{port}"


def _quoted(path: str) -> str:
    return f'"{path}"'


def buckets_map() -> str:
    """`names.BUCKETS_MAP`: microseconds -> bucket. HAProxy finds an address' prefix in one look, and takes
    a number for an address."""
    bounds = (*BUCKET_BOUNDS_US, 2**32)
    lines, low = [], 0
    for index, bound in enumerate(bounds):
        ends = ip_address(low), ip_address(bound - 1)
        lines += [f"{prefix} {index}\n" for prefix in summarize_address_range(*ends)]
        low = bound
    return "".join(lines)


def render_lua(config: RouterConfig) -> str:
    """router.lua: the filter that counts bodies of unannounced length, and the id of a failed request."""
    return f"""\
-- Written by Slipway's router; changes made here are lost.
local Limit = {{ id = "body limit", flags = filter.FLT_CFG_FL_HTX }}
Limit.__index = Limit

function Limit:new()
  return setmetatable({{ seen = 0 }}, Limit)
end

function Limit:http_headers(txn, message)
  if not message:is_resp() then
    filter.register_data_filter(self, message.channel)
  end
  return filter.CONTINUE
end

function Limit:http_payload(txn, message)
  self.seen = self.seen + message:input()
  if self.seen > Limit.most + 1 then -- the end of the message counts as one byte
    txn:set_var("txn.too_large", true)
    txn:set_var("txn.error_code", "RequestTooLarge")
    txn:set_var("txn.error_message", "{rules.too_large(config)}")
    error("body over the limit") -- `return filter.ERROR` would be ignored
  end
end

-- For errors only: what the full lane kept, else HAProxy's own.
core.register_fetches("request_id", function(txn)
  return txn:get_var("txn.id") or txn.sf:unique_id()
end)

core.register_filter("body_limit", Limit, function(class, arguments)
  Limit.most = tonumber(arguments[1])
  return class
end)
"""
