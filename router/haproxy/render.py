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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deployments.types import CustomLines
from router.haproxy import request_line
from router.samples import BUCKET_BOUNDS_US

# Counters of the stick table `counters`, one entry per backend; the histogram follows them.
REJECTED, TIMEOUTS, FAILURES, CLIENT_ERRORS, UNREADY, HISTOGRAM = 0, 1, 2, 3, 4, 5
COUNTERS = HISTOGRAM + len(BUCKET_BOUNDS_US) + 1

ROUTES_MAP = "routes.map"  # service -> backend of its default version
VERSIONS_MAP = "versions.map"  # service/version -> backend
KEYS_MAP = "keys.map"  # upper-case SHA-256 of a key:service -> allowed
OPEN_MAP = "open.map"  # service that asks for no key -> open
TIMEOUTS_MAP = "timeouts.map"  # backend -> scoring timeout, milliseconds
RETRY_MAP = "retry.map"  # backend -> seconds a client should wait after 503
MAPS = (ROUTES_MAP, VERSIONS_MAP, KEYS_MAP, OPEN_MAP, TIMEOUTS_MAP, RETRY_MAP, request_line.LOGGED_MAP)
# backend -> epoch seconds since when a replica may still be at work on what HAProxy has given up: its
# gate may refuse then, and refused requests go on to another replica. HAProxy itself adds to it.
GATES_MAP = "gates.map"

_ID = "^[A-Za-z0-9._:+/=@-]{1,100}$"  # nothing that could break out of a header or a JSON string
_LONGEST_ID = 100


@dataclass(frozen=True, slots=True)
class BackendShape:
    """One backend of the pool: its queue's patience and how many replicas it has room for."""

    queue_wait_ms: int = 500
    slots: int = 32


@dataclass(frozen=True, slots=True)
class Placed:
    """A replica that stands in a slot when HAProxy starts. `address` is "host:port", or of a unix socket
    whatever says so: the slot's link leads there."""

    address: str
    concurrency: int


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
    scoring_timeout_ms: int = 60_000  # of versions that are not in the map
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
    token_keys: int = 0  # how many of `token-1.pem`, `token-2.pem` there are, the newest first
    token_keys_id: str = ""  # names their content, which HAProxy reads when it starts only
    # Where each slot has a link to its replica's unix socket, and one to where that answers checks;
    # None: replicas have a host and a port.
    slot_folder: str | None = None
    log_socket: str = ""  # the loop's, to which lines of the request log are written; "": none are


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
        _counters(config),
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
    nbthread 1                       # exact concurrency needs one thread before HAProxy 3.2
    maxconn {config.connections}
    hard-stop-after {config.hard_stop}s
    stats socket {_quoted(config.stats_socket)} mode 600 level admin expose-fd listeners
    stats timeout 10s
    tune.bufsize 65536
    ssl-default-bind-options ssl-min-ver TLSv1.2
    lua-load router.lua"""


def _base_defaults(config: RouterConfig) -> str:
    close = "option http-server-close" if config.server_close else "option http-keep-alive"
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
    option http-no-delay
    option redispatch 1
    retries 2
    retry-on conn-failure            # never resend what a replica may have begun
    http-reuse safe
    {_own_error(400, "BadRequest", "The request is not valid HTTP", "unique-id")}
    {_own_error(408, "RequestTimeout", "The request did not arrive in time", "unique-id")}
    {_own_error(500, "RouterError", "The router failed; try again", "unique-id")}
    {_own_error(503, "RouterError", "The router is not ready; try again", "unique-id")}"""


def _main_frontend(config: RouterConfig) -> str:
    too_long = f"-m len {_LONGEST_ID + 1}:1000000"
    lines = [
        *request_line.frontend(config.log_socket),
        *request_line.silent(config.log_socket),
        "# ids: kept when given and safe, made otherwise",
        "unique-id-format %[uuid()]",
        "http-request set-var(txn.t0) date(0,us)",
        f"http-request set-var(txn.id) req.fhdr(x-request-id) {_safe('x-request-id')}",
        "http-request set-var(txn.id) unique-id unless { var(txn.id) -m found }",
        f"http-request set-var(txn.client) req.fhdr(x-ms-request-id) {_safe('x-ms-request-id')}",
        "http-request set-var(txn.client) req.fhdr(x-ms-client-request-id)"
        f" {_safe('x-ms-client-request-id')}",
        *(
            _answer(
                431,
                "RequestHeaderTooLarge",
                f"{header} must not exceed {_LONGEST_ID} characters",
                f"if {{ req.fhdr({header}) {too_long} }}",
            )
            for header in ("x-request-id", "x-ms-client-request-id", "x-ms-request-id")
        ),
        "http-request set-header x-request-id %[var(txn.id)]",
        "# route",
        "http-request set-var(txn.svc) path,field(5,/) if { path_beg /api/v1/service/ }",
        f"http-request set-var(txn.be) var(txn.svc),map_str({ROUTES_MAP})",
        "acl routed var(txn.be) -m found",
        "http-request return status 200 content-type text/plain string Healthy if !routed { path /healthz }",
        _answer(
            404,
            "ServiceNotFound",
            "No service named %[var(txn.svc),json(utf8s)]",
            "if !routed { var(txn.svc) -m found }",
        ),
        _answer(404, "NotFound", "No such path", "if !routed"),
        "http-request set-var(txn.op) path,field(6,/,0)",
        "# a client may pin one version",
        "http-request set-var(txn.pin) req.fhdr(azureml-model-deployment)",
        f"http-request set-var(txn.be) var(txn.svc),concat(/,txn.pin),map_str({VERSIONS_MAP},none)"
        " if { var(txn.pin) -m found }",
        _answer(
            404,
            "DeploymentNotFound",
            "No deployment %[var(txn.pin),json(utf8s)] in service %[var(txn.svc)]",
            "if { var(txn.pin) -m found } { var(txn.be) -m str none }",
        ),
        "http-request track-sc0 var(txn.be) table counters",
        *request_line.loud(config.log_socket),
        "acl score var(txn.op) -m str score",
        "acl swagger var(txn.op) -m str swagger.json",
        _answer(404, "NotFound", "No such path", "if !score !swagger"),
        _answer(
            405,
            "MethodNotAllowed",
            "Use POST, GET or OPTIONS",
            "if score !{ method POST GET OPTIONS }",
            Allow="GET, POST, OPTIONS",
        ),
        _answer(
            405,
            "MethodNotAllowed",
            "Use GET or OPTIONS",
            "if swagger !{ method GET OPTIONS }",
            Allow="GET, OPTIONS",
        ),
        "# key: only its digest is known here; a browser's preflight carries none",
        "http-request set-var(txn.let_in) http_auth_bearer,sha2(256),hex,concat(:,txn.svc),"
        f"map_str({KEYS_MAP})",
        f"http-request set-var(txn.let_in) var(txn.svc),map_str({OPEN_MAP})"
        " unless { var(txn.let_in) -m found }",
        _answer(
            401,
            "Unauthorized",
            "Missing or wrong key for service %[var(txn.svc)]",
            "if !{ var(txn.let_in) -m found } !{ method OPTIONS }",
            **{"WWW-Authenticate": "Bearer"},
        ),
        "http-request del-header authorization",
        "# size: announced here, counted by the body frontend where it is not announced",
        _answer(
            413,
            "RequestTooLarge",
            _too_large(config),
            f"if {{ req.body_size gt {config.body_limit} }}",
        ),
        "# a slow upload must not sit on a replica's slot",
        f"http-request wait-for-body time {config.body_timeout}s if {{ method POST }}",
        "http-request set-path /%[var(txn.op)]",
        "http-after-response sc-inc-gpc"
        f"({CLIENT_ERRORS},0) if {{ status 400:499 }} !{{ var(txn.counted) -m found }}",
        "http-after-response set-header x-request-id %[var(txn.id)] if { var(txn.id) -m found }",
        "http-after-response set-header x-ms-client-request-id %[var(txn.client)]"
        " if { var(txn.client) -m found }",
        "use_backend body_hop if !{ req.fhdr(content-length) -m found } { method POST }",
        "use_backend body_hop if !{ req.fhdr(content-length) -m found }"
        " { req.fhdr(transfer-encoding) -m found }",
        "use_backend %[var(txn.be)]",
    ]
    return f"frontend scoring from base\n    bind {_bind(config)}\n" + "\n".join(
        f"    {line}" for line in lines
    )


def _body_frontend(config: RouterConfig) -> str:
    """A second hop for bodies of unannounced length: a Lua filter counts them as they pass.

    It costs 30 us, so requests that say their length never come here. The socket belongs to the
    router's user alone, which is why the headers on it can be trusted.
    """
    return f"""\
backend body_hop from base
    timeout server 24h
    http-request set-header x-slipway-backend %[var(txn.be)]
    http-request set-header x-slipway-service %[var(txn.svc)]
    http-after-response set-var(txn.counted) bool(true) if {{ status 400:499 }}
    server hop {_quoted("unix@" + config.body_socket)}

frontend body from base
    bind {_quoted("unix@" + config.body_socket)} mode 600
    filter lua.body_limit {config.body_limit}
    unique-id-format %[req.hdr(x-request-id)]
    http-request set-var(txn.t0) date(0,us)
    http-request set-var(txn.id) req.hdr(x-request-id)
    http-request set-var(txn.be) req.hdr(x-slipway-backend)
    http-request set-var(txn.svc) req.hdr(x-slipway-service)
    http-request del-header x-slipway- -m beg
    http-request track-sc0 var(txn.be) table counters
    http-after-response set-status 413 reason "Payload Too Large" if {{ var(txn.too_large) -m found }}
    use_backend %[var(txn.be)]"""


def _counters(config: RouterConfig) -> str:
    return f"""\
backend counters from base
    stick-table type string len 16 size {max(1024, 2 * len(config.backends))} nopurge store gpc({COUNTERS})"""


def _scoring_defaults(config: RouterConfig) -> str:
    retry = f"%[var(txn.be),map_str({RETRY_MAP},1)]"
    service = "%[var(txn.svc)]"
    mine = "!{ var(txn.replied) -m found }"
    lines = [
        "balance leastconn",
        *(_gate_requests() if config.slot_folder is not None else ()),
        f"default-server check inter {config.check_interval_ms}ms fall 1 rise 1"
        " observe layer4 error-limit 1 on-error mark-down",
        _answer(
            503,
            "NoReadyReplicas",
            f"No ready replicas for service {service}",
            "if { nbsrv lt 1 }",
            **{"Retry-After": retry},
        ),
        "http-request set-timeout server"
        f" var(txn.be),map_str_int({TIMEOUTS_MAP},{config.scoring_timeout_ms})",
        *(_gate_answers(service, retry) if config.slot_folder is not None else ()),
        'http-response set-status 502 reason "Bad Gateway" if { status 500 }',
        "http-response set-var(txn.replied) bool(true) if { status ge 500 }",
        "http-response set-header server-timing queue;dur=%Tw,replica;dur=%Tr",
        "http-after-response set-var(txn.counted) bool(true) if { status 400:499 }",
        f"http-after-response sc-inc-gpc({CLIENT_ERRORS},0) if {{ status 400:499 }}",
        f"http-after-response sc-inc-gpc({REJECTED},0) if {{ status 503 }} {mine}",
        # of these, what no replica could have taken: it says nothing about how many are needed
        f"http-after-response sc-inc-gpc({UNREADY},0) if {{ status 503 }} {mine} {{ nbsrv lt 1 }}",
        f"http-after-response sc-inc-gpc({TIMEOUTS},0) if {{ status 504 }} {mine}",
        f"http-after-response sc-inc-gpc({FAILURES},0) if {{ status 500:502 }}",
        f"http-after-response sc-inc-gpc({FAILURES},0) if {{ status 503:599 }}"
        " { var(txn.replied) -m found }",
        "http-after-response set-var(txn.us) date(0,us),sub(txn.t0) if { status 200:299 }",
        *(
            f"http-after-response sc-inc-gpc({HISTOGRAM + index},0) if {{ var(txn.us) -m int {span} }}"
            for index, span in enumerate(_spans())
        ),
        _own_error(
            400,
            "%[var(txn.error_code,BadRequest)]",
            "%[var(txn.error_message,The request is not valid)]",
        ),
        _own_error(502, "ReplicaFailed", "Replica closed connection before replying"),
        _own_error(
            503,
            "%[nbsrv,bool,iif(TooManyRequests,NoReadyReplicas)]",
            f'%[nbsrv,bool,iif("Too many requests for service ","No ready replicas for service ")]'
            f'{service}%[nbsrv,bool,iif(" (overloaded)","")]',
            **{"Retry-After": retry},
        ),
        _own_error(504, "ScoringTimeout", f"Scoring timed out for service {service}"),
    ]
    return "defaults replicas from base\n" + "\n".join(f"    {line}" for line in lines)


def _gate_requests() -> tuple[str, ...]:
    """What takes a request that a replica's gate refused (425) to another replica.

    HAProxy can send a request again only when it kept a copy, and copying costs a third of all that a
    request costs. So it keeps one only while a gate may refuse, and says in the request that it did.
    """
    marked = f"{{ var(txn.be),map_str({GATES_MAP}) -m found }}"
    return (
        "retries 10",
        "retry-on conn-failure 425",
        f"http-request disable-l7-retry unless {marked}",
        f"http-request set-header x-slipway-retry %[var(txn.t0)] if {marked}",
    )


def _gate_answers(service: str, retry: str) -> tuple[str, ...]:
    """What a gate's last word becomes, and when a gate may have to speak.

    Three things leave a replica at work on what HAProxy has given up: a client that left (400 here), a
    timeout (504) and a worker's death (502). A replica's own 425 comes as 449 with a header.
    """
    body = _body(
        "TooManyRequests", f"Too many requests for service {service} (overloaded)", "var(txn.id)"
    )
    return (
        "http-response set-var(txn.answered) bool(true) if { status 400 502 504 }",
        f"http-response return status 503 {body}{_headers({'Retry-After': retry})}"
        " if { status 425 503 } { res.fhdr(x-slipway-gate) -m found }",
        'http-response set-status 425 reason "Too Early"'
        " if { status 449 } { res.fhdr(x-slipway-status) -m found }",
        "http-response del-header x-slipway-status if { status 425 }",
        f"http-after-response set-map({GATES_MAP}) %[var(txn.be)] %[date]"
        " if { status 400 502 504 } !{ var(txn.answered) -m found }",
    )


def _backend(
    config: RouterConfig, name: str, backend: BackendShape, placed: Mapping[str, Placed]
) -> str:
    lines = [f"backend {name} from replicas", f"    timeout queue {backend.queue_wait_ms}ms"]
    if not placed and config.slot_folder is None:
        lines.append(f"    server-template s 1-{backend.slots} 127.0.0.1:1 maxconn 1 disabled")
        return "\n".join(lines)
    for index in range(backend.slots):
        server = server_name(index)
        replica = placed.get(server)
        if config.slot_folder is None:
            address, check = replica.address if replica else "127.0.0.1:1", ""
        else:
            link = f"unix@{config.slot_folder}/{slot_link(name, server)}"
            address, check = _quoted(link), f" addr {_quoted(link + CHECK_SUFFIX)}"
        taken = f"maxconn {replica.concurrency}" if replica else "maxconn 1 disabled"
        lines.append(f"    server {server} {address} {taken}{check}")
    return "\n".join(lines)


def _safe(header: str) -> str:
    return f"if {{ req.fhdr({header}) -m reg {_ID} }}"


def _spans() -> Sequence[str]:
    """The histogram's buckets as HAProxy's integer ranges, the last one open."""
    lows = (0, *BUCKET_BOUNDS_US)
    highs = (*(bound - 1 for bound in BUCKET_BOUNDS_US), 2**62)
    return [f"{low}:{high}" for low, high in zip(lows, highs, strict=True)]


def _too_large(config: RouterConfig) -> str:
    return f"The request body must not exceed {config.body_limit} bytes"


def _body(code: str, message: str, request_id: str) -> str:
    body = f'{{"error":{{"code":"{code}","message":"{message}","request_id":"%[{request_id}]"}}}}'
    return f"content-type application/json lf-string '{body}'"


def _headers(headers: Mapping[str, str]) -> str:
    return "".join(f" hdr {name} '{value}'" for name, value in headers.items())


def _answer(status: int, code: str, message: str, condition: str, **headers: str) -> str:
    """The router answers by itself. `message` may hold log-format fetches."""
    body = _body(code, message, "var(txn.id)")
    return f"http-request return status {status} {body}{_headers(headers)} {condition}"


def _own_error(
    status: int, code: str, message: str, request_id: str = "var(txn.id)", **headers: str
) -> str:
    """HAProxy's own error. A fetch without a value would empty the whole reply: give defaults."""
    return f"http-error status {status} {_body(code, message, request_id)}{_headers(headers)}"


def _bind(config: RouterConfig) -> str:
    host = f"[{config.bind}]" if ":" in config.bind else config.bind
    return f"{host}:{config.port}"


def _quoted(path: str) -> str:
    return f'"{path}"'


def render_lua(config: RouterConfig) -> str:
    """router.lua: the filter that counts bodies of unannounced length."""
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
    txn:set_var("txn.error_message", "{_too_large(config)}")
    error("body over the limit") -- `return filter.ERROR` would be ignored
  end
end

core.register_filter("body_limit", Limit, function(class, arguments)
  Limit.most = tonumber(arguments[1])
  return class
end)
"""
