"""What a request and its answer meet in a version's backend, as HAProxy's rules.

PURE. Behind both lanes of `router.haproxy.rules`. What is good leaves early: an answer of 2xx is counted by
its time and is through; the gates' words, outcomes and errors are for the others.

Never here: sockets, files, the clock.
"""

from typing import TYPE_CHECKING

from router.haproxy.answers import body, headers, own_error
from router.haproxy.names import (
    BUCKETS_MAP,
    CLIENT_ERRORS,
    DIRECT,
    FAILURES,
    GATES_MAP,
    NAMES_MAP,
    QUEUE,
    REJECTED,
    RETRY_MAP,
    SERVICE,
    TIMEOUTS,
    TOTAL,
    UNREADY,
)

if TYPE_CHECKING:
    from router.haproxy.render import RouterConfig

# Whose backend a request went to, where only the backend is known.
_SERVICE = f"%[var(txn.be),map_str({NAMES_MAP},unknown),field(1,/)]"
# In the fast lane nothing is kept of the id but what HAProxy keeps itself: only an error asks for it.
_REQUEST_ID = "lua.request_id"
_SHORT = 32 * 1024  # bytes of an answer: half a buffer
_NOT_REPLIED = "!{ var(txn.replied) -m found }"


def rules(config: "RouterConfig") -> list[str]:
    """Of every version's backend."""
    retry = f"%[var(txn.be),map_str({RETRY_MAP},1)]"
    gated = config.gated
    # with lines of an administrator's own no rule may end early: his would be passed over
    early = not config.custom.backend
    return [
        "balance leastconn",
        f"default-server check inter {config.check_interval_ms}ms fall 1 rise 1"
        " observe layer4 error-limit 1 on-error mark-down",
        # first of all, because it makes the id that every answer from here on bears
        "http-request add-header x-request-id %[unique-id] unless { var(txn.id) -m found }",
        "# a slow upload must not sit on a replica's slot, and is no part of the time it takes",
        f"http-request wait-for-body time {config.body_timeout}s",
        "http-request set-var(txn.t0) date(0,us)",
        "http-request track-sc0 var(txn.be) table counters",
        "http-request set-path /score unless { var(txn.op) -m found }",
        "http-request del-header authorization",
        "http-request set-timeout server var(txn.timeout) if { var(txn.timeout) -m found }",
        *(_gate_requests() if gated else ()),
        "acl good status 200:299",
        "acl at_once var(txn.wait) -m str 0",
        "acl waited var(txn.wait) -m int gt 0",
        "http-response set-var-fmt(txn.wait) %Tw",
        *(_through("{ res.body_len gt 0 }") if early else ()),
        *_whole(),
        *(_through() if early else (_at_once(),)),
        *_waited(),
        *(_gate_answers(retry) if gated else ()),
        'http-response set-status 502 reason "Bad Gateway" if { status 500 }',
        "http-response set-var(txn.replied) bool(true) if { status ge 500 }",
        # made above, and so cheaper than `%[unique-id]`; the full lane's own comes later
        "http-after-response set-header x-request-id %ID",
        # counted by its times, so it is good
        *(["http-after-response allow if { sc1_tracked }"] if early else ()),
        *_outcomes(),
        *_errors(retry),
        *config.custom.backend,
    ]


def _whole() -> list[str]:
    """A short answer whose head comes alone is passed on once its body is there: of a replica that dies
    between the two nothing has gone out yet, and the client is told 502 instead of being left with a head.

    Short is what a buffer holds beside its headers; a scoring server writes such a body in one piece.
    Longer ones and streams, which announce no length, pass as they come.
    """
    dead = body("ReplicaFailed", "Replica closed connection before replying", _REQUEST_ID)
    return [
        f"acl short var(txn.size) -m int 1:{_SHORT}",
        # what came in one piece has left before, where it may
        "http-response set-var(txn.size) res.fhdr(content-length) if { res.body_len lt 1 } good",
        "http-response wait-for-body time 1h if short",  # `timeout server` is what limits it
        f"http-response return status 502 {dead} if short {{ res.body_len,sub(txn.size) -m int lt 0 }}",
    ]


def _count(counter: int, microseconds: str, table: str, condition: str) -> str:
    """Count a 2xx answer by its time, exactly: being tracked counts an entry of a table by one.

    The buckets are found like addresses in a routing table, by one look-up.
    """
    key = f"{microseconds},map_ip({BUCKETS_MAP}),concat(.,txn.be)"
    return f"http-response track-sc{counter} {key} table {table} if {condition}"


_TOTAL_US = "date(0,us),sub(txn.t0)"


def _at_once(condition: str = "") -> str:
    """An answer that did not wait has one time, and is counted once."""
    return _count(1, _TOTAL_US, DIRECT, f"good at_once {condition}".rstrip())


def _through(condition: str = "") -> list[str]:
    """It is counted and meets no more rules. Nearly all answers did not wait and came in one piece: they
    are asked for first, and so pay for none of the others."""
    return [_at_once(condition), "http-response allow if { sc1_tracked }"]


def _waited() -> list[str]:
    """Only an answer that waited is counted three times."""
    return [
        "http-response set-var(txn.wait_us) var(txn.wait),mul(1000) if waited",
        f"http-response set-var(txn.spent_us) {_TOTAL_US},sub(txn.wait_us) if waited",
        "http-response set-var(txn.spent_us) int(0) if waited { var(txn.spent_us) -m int lt 0 }",
        _count(1, _TOTAL_US, TOTAL, "good waited"),
        _count(2, "var(txn.wait_us)", QUEUE, "good waited"),
        _count(3, "var(txn.spent_us)", SERVICE, "good waited"),
    ]


def _gate_requests() -> list[str]:
    """What takes a request that a replica's gate refused (425) to another replica.

    HAProxy can send a request again only when it kept a copy, and copying costs a third of all that a
    request costs. So it keeps one only where a gate may refuse, and says in the request that it did: while
    the backend is in the map of gates, and of requests that wait. (These rules were passed before a client
    left or a timeout struck; and where requests wait, HAProxy's time is not what is short.)
    """
    gated = f"{{ be_conn_free le 0 }} || {{ var(txn.be),map_str({GATES_MAP}) -m found }}"
    return [
        "retry-on conn-failure 425",
        f"http-request set-var(txn.gated) bool(true) if {gated}",
        "http-request disable-l7-retry unless { var(txn.gated) -m found }",
        "http-request set-header x-slipway-retry %[var(txn.t0)] if { var(txn.gated) -m found }",
    ]


def _gate_answers(retry: str) -> list[str]:
    """What a gate's last word becomes, and when a gate may have to speak.

    Three things leave a replica at work on what HAProxy has given up: a client that left (400 here), a
    timeout (504) and a worker's death (502). A replica's own 425 comes as 449 with a header.
    """
    busy = body(
        "TooManyRequests", f"Too many requests for service {_SERVICE} (overloaded)", _REQUEST_ID
    )
    given_up = "if { status 400 502 504 } !{ var(txn.answered) -m found }"
    full = "if { status 425 503 } { res.fhdr(x-slipway-gate) -m found }"
    return [
        "http-response set-var(txn.answered) bool(true) if { status 400 502 504 }",
        f"http-response set-var(txn.full) bool(true) {full}",
        f"http-response return status 503 {busy}{headers({'Retry-After': retry})}"
        " if { var(txn.full) -m found }",
        'http-response set-status 425 reason "Too Early"'
        " if { status 449 } { res.fhdr(x-slipway-status) -m found }",
        "http-response del-header x-slipway-status if { status 425 }",
        f"http-after-response set-map({GATES_MAP}) %[var(txn.be)] %[date] {given_up}",
    ]


def _outcomes() -> list[str]:
    """Count what did not go well.

    HAProxy says 503 as well when no replica could be reached; that one did not wait in vain, it tried.
    """
    alone = f"{{ status 503 }} {_NOT_REPLIED}"
    return [
        f"http-after-response set-var-fmt(txn.tries) %rc if {alone}",
        'http-after-response set-status 502 reason "Bad Gateway"'
        f" if {alone} {{ var(txn.tries) -m found }} !{{ var(txn.tries) -m str 0 }}"
        # a gate's refusals are tries too, and no failures
        " !{ var(txn.gated) -m found } !{ var(txn.full) -m found }",
        "http-after-response set-var(txn.counted) bool(true) if { status 400:499 }",
        f"http-after-response sc-inc-gpc({CLIENT_ERRORS},0) if {{ status 400:499 }}",
        f"http-after-response sc-inc-gpc({REJECTED},0) if {{ status 503 }} {_NOT_REPLIED}",
        # of these, what no replica could have taken: it says nothing about how many are needed
        f"http-after-response sc-inc-gpc({UNREADY},0) if {{ status 503 }} {_NOT_REPLIED}"
        " { nbsrv lt 1 }",
        f"http-after-response sc-inc-gpc({TIMEOUTS},0) if {{ status 504 }} {_NOT_REPLIED}",
        f"http-after-response sc-inc-gpc({FAILURES},0) if {{ status 500:502 }}",
        f"http-after-response sc-inc-gpc({FAILURES},0) if {{ status 503:599 }}"
        " { var(txn.replied) -m found }",
    ]


def _errors(retry: str) -> list[str]:
    """What HAProxy says by itself. Its 503 that becomes a 502 (`_outcomes`) has the words of the others:
    of that HAProxy tells nothing while it writes them."""
    ready = "nbsrv,bool,iif"
    return [
        own_error(
            400,
            "%[var(txn.error_code,BadRequest)]",
            "%[var(txn.error_message,The request is not valid)]",
            _REQUEST_ID,
        ),
        own_error(502, "ReplicaFailed", "Replica closed connection before replying", _REQUEST_ID),
        own_error(
            503,
            f"%[{ready}(TooManyRequests,NoReadyReplicas)]",
            f'%[{ready}("Too many requests for service ","No ready replicas for service ")]'
            f'{_SERVICE}%[{ready}(" (overloaded)","")]',
            _REQUEST_ID,
            **{"Retry-After": retry},
        ),
        own_error(504, "ScoringTimeout", f"Scoring timed out for service {_SERVICE}", _REQUEST_ID),
    ]
