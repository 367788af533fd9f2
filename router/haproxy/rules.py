"""What a request meets on its way, as HAProxy's rules.

PURE. Each rule costs time on every request, so they come in two lanes:

- **The fast lane** is for what nearly all requests are: a POST to the score of a plain service (one
  version, nothing special asked of it) with a key that this very connection has shown before. One look
  into `tickets.map` tells both that the key is good and where the request goes. Nothing is remembered of
  a credential but on its own connection: its digest need not be made again, and it is looked up anew
  each time, so a key that was taken back stops working at once.
- **The full lane** does everything else, the first request of each connection included: ids that the client
  gave, versions and their shares, keys and tokens, origins, methods, sizes.

Both end in the same backend, whose rules stand in `router.haproxy.replica_rules`.

Never here: sockets, files, the clock.
"""

from typing import TYPE_CHECKING

from router.haproxy import peer_rules, request_line
from router.haproxy.answers import REQUEST_ID, answer, headers
from router.haproxy.names import (
    CLIENT_ERRORS,
    CORS_MAP,
    KEYS_MAP,
    MAPS,
    NAMES_MAP,
    OPEN_MAP,
    REVOKED_MAP,
    ROUTES_MAP,
    SCORES_MAP,
    SPLIT,
    SPLITS_MAP,
    TICKETS_MAP,
    TIMEOUTS_MAP,
    TOKENS_MAP,
    VERSIONS_MAP,
)

if TYPE_CHECKING:
    from router.haproxy.render import RouterConfig

HOP = "body_hop"  # the backend that hands bodies of unannounced length to the body frontend
_LONGEST_ID = 100
_ID = f"^[A-Za-z0-9._:+/=@-]{{1,{_LONGEST_ID}}}$"  # nothing that could break out of a JSON string

# A word of HAProxy's own start, its worker and its count of requests: unlike any other of this router, and
# a tenth of the price of a UUID. Made when it is first asked for.
_UNIQUE_ID = '"${SLIPWAY_BOOT}-%pid-%rt"'

# Headers that ask for something; whoever sends one takes the full lane.
_SPECIAL = (
    "x-request-id x-ms- azureml-model-deployment transfer-encoding origin upgrade expect x-slipway-"
)
_BEARER = "http_auth_bearer"
_CREDENTIAL = "req.fhdr(authorization,1)"  # the header that the bearer is taken from, as it came


def frontend_rules(config: "RouterConfig") -> list[str]:
    """Of the frontend that clients reach."""
    return [
        f"unique-id-format {_UNIQUE_ID}",
        "# never asked: HAProxy has only maps that something names, and the loop keeps them all",
        *(f"acl of_the_loop path,map_str({name}) -m found" for name in MAPS),
        *config.custom.frontend,
        *request_line.silent(config.log_socket),
        *_https_only(config),
        *_fast_lane(config),
        *_ids(),
        *_route(config),
        *_origins(),
        *_methods(),
        *_auth(config),
        *_size(config),
        *_forward(),
        *_frontend_answers(config),
        *peer_rules.handed(config),
        "use_backend %[var(txn.be)]",
    ]


def _https_only(config: "RouterConfig") -> list[str]:
    if config.tls_port is None or config.plain_http:
        return []
    return [
        "acl may_score ssl_fc",
        "acl may_score path /healthz",
        "http-request set-var(txn.id) unique-id unless may_score",
        "http-request set-var(txn.full_lane) bool(true) unless may_score",
        answer(
            403,
            "HttpsRequired",
            f"This router scores over HTTPS only, on port {config.tls_port}",
            "unless may_score",
        ),
    ]


def _fast_lane(config: "RouterConfig") -> list[str]:
    # the names of its headers are those of a request that asked for nothing and said its length
    common = f"METH_POST same_bearer same_names {{ req.body_size le {config.body_limit} }}"

    def sent(path: str) -> str:
        """Found is kept at once: a rule of its own for that costs as much as the look."""
        return f"{{ {path},set-var(txn.be) -m found }}"

    lines = [
        "# fast lane",
        f"acl special req.hdr_names -m sub {_SPECIAL}",
        f"acl same_bearer {_CREDENTIAL},strcmp(sess.credential) eq 0",
        "acl same_names req.hdr_names,strcmp(sess.names) eq 0",
        "acl sent var(txn.be) -m found",
        f"http-request allow if {common} {sent(f'path,concat(:,sess.digest),map_str({TICKETS_MAP})')}",
    ]
    if config.token_keys:
        lines += [
            f"http-request allow if {common}"
            " { path,strcmp(sess.path) eq 0 } { date,sub(sess.until) -m int lt 0 }"
            f" {{ var(sess.ticket),map_str({TOKENS_MAP}) -m found }}"
            f" {sent(f'path,map_str({SCORES_MAP})')}",
        ]
    return lines


def _ids() -> list[str]:
    """Kept when given and safe, made otherwise."""

    def safe(header: str) -> str:
        return f"if {{ req.fhdr({header}) -m reg {_ID} }}"

    return [
        "# full lane",
        "http-request set-var(txn.full_lane) bool(true)",
        "acl announced req.fhdr(content-length) -m found",
        "http-request set-var(sess.names) req.hdr_names if announced !special",
        "# ids",
        f"http-request set-var(txn.id) req.fhdr(x-request-id) {safe('x-request-id')}",
        "http-request set-var(txn.id) unique-id unless { var(txn.id) -m found }",
        f"http-request set-var(txn.client) req.fhdr(x-ms-request-id) {safe('x-ms-request-id')}",
        "http-request set-var(txn.client) req.fhdr(x-ms-client-request-id)"
        f" {safe('x-ms-client-request-id')}",
        *(
            answer(
                431,
                "RequestHeaderTooLarge",
                f"{header} must not exceed {_LONGEST_ID} characters",
                f"if {{ req.fhdr({header}) -m len {_LONGEST_ID + 1}:1000000 }}",
            )
            for header in ("x-request-id", "x-ms-client-request-id", "x-ms-request-id")
        ),
        f"http-request set-header x-request-id %[{REQUEST_ID}]",
        "# words between the router's own parts",
        "http-request del-header x-slipway- -m beg",
    ]


def _route(config: "RouterConfig") -> list[str]:
    """To which backend: the pinned version's, else one of those that share the service's traffic."""
    return [
        "# route",
        "http-request set-var(txn.svc) path,field(5,/) if { path_beg /api/v1/service/ }",
        f"http-request set-var(txn.be) var(txn.svc),map_str({ROUTES_MAP})",
        "http-request return status 200 content-type text/plain string Healthy if !sent { path /healthz }",
        answer(
            404,
            "ServiceNotFound",
            "No service named %[var(txn.svc),json(utf8s)]",
            "if !sent { var(txn.svc) -m found }",
        ),
        answer(404, "NotFound", "No such path", "if !sent"),
        "http-request set-var(txn.op) path,field(6,/,0)",
        "http-request set-var(txn.pin) req.fhdr(azureml-model-deployment)",
        "acl pinned var(txn.pin) -m found",
        f"http-request set-var(txn.shared) bool(true) if {{ var(txn.be) -m str {SPLIT} }}",
        "http-request set-var(txn.share) rand(100) if { var(txn.shared) -m found }",
        f"http-request set-var(txn.be) var(txn.svc),concat(~,txn.share),map_str({SPLITS_MAP})"
        " if { var(txn.shared) -m found } !pinned",
        f"http-request set-var(txn.be) var(txn.svc),concat(/,txn.pin),map_str({VERSIONS_MAP},none)"
        " if pinned",
        answer(
            404,
            "DeploymentNotFound",
            "No deployment %[var(txn.pin),json(utf8s)] in service %[var(txn.svc)]",
            "if pinned { var(txn.be) -m str none }",
        ),
        *request_line.loud(config.log_socket),
        "http-request track-sc0 var(txn.be) table counters",
        "acl score var(txn.op) -m str score",
        "acl swagger var(txn.op) -m str swagger.json",
        answer(404, "NotFound", "No such path", "if !score !swagger"),
    ]


def _origins() -> list[str]:
    """A browser's page of another origin. Where a service names some, the router alone judges, and no
    question of a browser reaches a replica; where it names none, they are its replicas' affair."""
    allowed = {
        "Access-Control-Allow-Origin": "%[var(txn.origin)]",
        "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
        "Access-Control-Allow-Headers": "authorization, content-type, x-request-id, "
        "x-ms-client-request-id, x-ms-request-id, azureml-model-deployment",
        "Access-Control-Max-Age": "600",
    }
    return [
        "# origins",
        "http-request set-var(txn.asking) req.fhdr(origin)",
        "acl asking var(txn.asking) -m found",
        "http-request set-var(txn.origin) var(txn.asking)"
        f" if asking {{ var(txn.svc),concat(:,txn.asking),map_str({CORS_MAP}) -m found }}",
        f"http-request set-var(txn.judged) var(txn.svc),map_str({CORS_MAP}) if asking",
        "http-request set-var(txn.origin) str(*) if { var(txn.judged) -m str * }",
        "http-request return status 204" + headers(allowed) + " if { method OPTIONS }"
        " { var(txn.origin) -m found }",
        "http-request return status 204 if { method OPTIONS } { var(txn.judged) -m found }",
    ]


def _methods() -> list[str]:
    return [
        answer(
            405,
            "MethodNotAllowed",
            "Use POST, GET or OPTIONS",
            "if score !{ method POST GET OPTIONS }",
            Allow="GET, POST, OPTIONS",
        ),
        answer(
            405,
            "MethodNotAllowed",
            "Use GET or OPTIONS",
            "if swagger !{ method GET OPTIONS }",
            Allow="GET, OPTIONS",
        ),
    ]


def _auth(config: "RouterConfig") -> list[str]:
    """Who is let in. `txn.who` is primary, secondary or token:<subject> afterwards; unset where the
    service is open to everyone. Only a key's digest is known here."""
    return [
        "# key; a browser's preflight carries none. The connection remembers what it was shown, and of a",
        "# token that was shown before nothing: it must not let in what is shown now",
        "http-request unset-var(sess.ticket)",
        # forgotten first, so that digest and credential are never of two
        "http-request unset-var(sess.credential)",
        "http-request unset-var(sess.digest)",
        f"http-request set-var(sess.digest) {_BEARER},sha2(256),hex",
        f"http-request set-var(sess.credential) {_CREDENTIAL} if {{ var(sess.digest) -m found }}",
        "http-request set-var(txn.digest) var(sess.digest),concat(:,txn.svc)"
        " if { var(sess.digest) -m found }",
        f"http-request set-var(txn.who) var(txn.digest),map_str({KEYS_MAP})",
        "acl known var(txn.who) -m found",
        f"http-request set-var(txn.access) var(txn.svc),map_str({OPEN_MAP}) if !known",
        *_token(config),
        answer(
            401,
            "Unauthorized",
            "Missing or wrong key for service %[var(txn.svc)]",
            "if !known !{ var(txn.access) -m str open } !{ method OPTIONS }",
            **{"WWW-Authenticate": "Bearer"},
        ),
    ]


def _token(config: "RouterConfig") -> list[str]:
    """A token is verified once; until it expires, its digest is looked up like a key's.

    The algorithm and the key are chosen here and never by the token. What is cheap to tell comes before
    the signature: forging work for this router takes a key id, and at most one verification a request.
    """
    if not config.token_keys:
        return []
    verifying = "if { var(txn.kid) -m found }"
    return [
        "# token: what was verified before",
        "acl takes_tokens var(txn.access) -m str token",
        f"http-request set-var(txn.seen) var(txn.digest),map_str({TOKENS_MAP}) if takes_tokens",
        "http-request set-var(txn.now) date if takes_tokens",
        "http-request set-var(txn.until) var(txn.seen),field(1,:) if { var(txn.seen) -m found }",
        "http-request set-var(txn.who) var(txn.seen),field(3,:,0)"
        " if { var(txn.until),sub(txn.now) -m int gt 0 }",
        "# token: verified now",
        f"http-request set-var(txn.kid) {_BEARER},jwt_header_query('$.kid') if takes_tokens !known",
        f"http-request set-var(txn.exp) {_BEARER},jwt_payload_query('$.exp','int') {verifying}",
        f"http-request set-var(txn.jti) {_BEARER},jwt_payload_query('$.jti') {verifying}",
        f"http-request set-var(txn.sub) {_BEARER},jwt_payload_query('$.sub') {verifying}",
        f"http-request set-var(txn.aud) {_BEARER},jwt_payload_query('$.aud') {verifying}",
        f"acl es256 {_BEARER},jwt_header_query('$.alg') -m str ES256",
        "acl alive var(txn.exp),sub(txn.now) -m int gt 0",
        "acl named var(txn.jti) -m found",
        "acl for_somebody var(txn.sub) -m found",
        "acl for_this_service var(txn.aud),strcmp(txn.svc) eq 0",
        f"acl revoked var(txn.jti),map_str({REVOKED_MAP}) -m found",
        *(
            f"http-request set-var(txn.verified) {_BEARER},jwt_verify(ES256,token-{index}.pem)"
            f" if {{ var(txn.kid) -m str {kid} }} alive for_this_service for_somebody named !revoked es256"
            for index, kid in enumerate(config.token_keys, 1)
        ),
        "acl verified var(txn.verified) -m int 1",
        "http-request set-var(txn.until) var(txn.exp) if verified",
        "http-request set-var-fmt(txn.who) token:%[var(txn.sub)] if verified",
        f"http-request set-map({TOKENS_MAP}) %[var(txn.digest)]"
        " %[var(txn.exp)]:%[var(txn.jti)]:%[var(txn.who)] if verified",
        "# the connection's next request with it takes the fast lane",
        "http-request set-var(sess.ticket) var(txn.digest) if takes_tokens known",
        "http-request set-var(sess.until) var(txn.until) if takes_tokens known",
        "http-request set-var(sess.path) path if takes_tokens known",
    ]


def too_large(config: "RouterConfig") -> str:
    return f"The request body must not exceed {config.body_limit} bytes"


def _size(config: "RouterConfig") -> list[str]:
    return [
        "# size: announced here, counted by the body frontend where it is not announced",
        answer(
            413,
            "RequestTooLarge",
            too_large(config),
            f"if {{ req.body_size gt {config.body_limit} }}",
        ),
        "http-request set-var(txn.home) var(txn.be) if !announced { method POST }",
        "http-request set-var(txn.home) var(txn.be)"
        " if !announced { req.fhdr(transfer-encoding) -m found }",
    ]


def _forward() -> list[str]:
    return [
        "http-request set-path /%[var(txn.op)]",
        f"http-request set-var(txn.timeout) var(txn.be),map_str({TIMEOUTS_MAP})",
        # what has a home to come to later goes to the body frontend now
        f"http-request set-var(txn.be) str({HOP}) if {{ var(txn.home) -m found }}",
    ]


def _frontend_answers(config: "RouterConfig") -> list[str]:
    return [
        *peer_rules.leaving(config),
        "http-after-response allow unless { var(txn.full_lane) -m found }",
        f"http-after-response set-header x-request-id %[{REQUEST_ID}]",
        "http-after-response set-header server-timing queue;dur=%Tw,replica;dur=%Tr"
        " if { var(txn.wait) -m found }",
        f"http-after-response sc-inc-gpc({CLIENT_ERRORS},0)"
        " if { status 400:499 } !{ var(txn.counted) -m found }",
        "http-after-response set-header x-ms-client-request-id %[var(txn.client)]"
        " if { var(txn.client) -m found }",
        "http-after-response del-header access-control-allow-origin if { var(txn.judged) -m found }",
        "http-after-response set-header access-control-allow-origin %[var(txn.origin)]"
        " if { var(txn.origin) -m found }",
        "http-after-response set-header access-control-expose-headers"
        ' "x-request-id, x-ms-client-request-id, retry-after, server-timing,'
        ' azureml-model-deployment" if { var(txn.origin) -m found }',
        "http-after-response add-header vary Origin if { var(txn.asking) -m found }",
        f"http-after-response set-header azureml-model-deployment"
        f" %[var(txn.be),map_str({NAMES_MAP},-),field(2,/)] if {{ var(txn.shared) -m found }}",
    ]


def hop_rules(config: "RouterConfig") -> list[str]:
    """Of the backend that hands bodies of unannounced length to the body frontend."""
    return [
        "timeout server 24h",
        *request_line.silent(config.log_socket),
        "http-request set-var(txn.be) var(txn.home)",
        *(
            f"http-request set-header x-slipway-{name} %[var(txn.{name})]"
            f" if {{ var(txn.{name}) -m found }}"
            for name in _HANDED_ON
        ),
        "http-after-response set-var(txn.counted) bool(true) if { status 400:499 }",
    ]


_HANDED_ON = ("be", "svc", "op", "timeout", "who", "client")


def body_rules(config: "RouterConfig") -> list[str]:
    """Of the frontend behind that backend: a Lua filter counts bodies as they pass.

    It costs 30 us, so requests that say their length never come here. Its socket belongs to the
    router's user alone, which is why the headers on it can be trusted.
    """
    return [
        f"filter lua.body_limit {config.body_limit}",
        "unique-id-format %[req.hdr(x-request-id)]",
        "http-request set-var(txn.id) req.hdr(x-request-id)",
        *(
            f"http-request set-var(txn.{name}) req.hdr(x-slipway-{name})"
            f" if {{ req.hdr(x-slipway-{name}) -m found }}"
            for name in _HANDED_ON
        ),
        "http-request del-header x-slipway- -m beg",
        *request_line.silent(config.log_socket),
        *request_line.loud(config.log_socket),
        'http-after-response set-status 413 reason "Payload Too Large"'
        " if { var(txn.too_large) -m found }",
        *peer_rules.handed(config),
        "use_backend %[var(txn.be)]",
    ]
