"""A request's line in the request log, as HAProxy writes it.

PURE. One line a request, values in the order of `FIELDS` with a tab between them; times are milliseconds,
-1 where a request did not come so far; a value that is not there is "-". Never a body, a credential or a
query. Only versions that stand in `LOGGED_MAP` have lines.

HAProxy keeps the lines in a ring in its memory and writes them to the loop's socket: nothing waits for a
reader, and what is written while there is none is read later, as far as the ring holds it. (Datagrams would
not do: Linux lets ten of them wait.)
"""

LOGGED_MAP = "logged.map"  # backend -> on

_FORMAT = {
    "ended": "%[date(0,ms)]",  # epoch milliseconds when the answer was complete
    "service": "%[var(txn.svc)]",
    "backend": "%[var(txn.be)]",  # the loop knows whose it is
    "request_id": "%[var(txn.id)]",
    "client_request_id": "%[var(txn.client)]",
    "method": "%HM",
    "operation": "%[var(txn.op)]",  # score or swagger.json
    "status": "%ST",
    "queue_ms": "%Tw",
    "service_ms": "%Tr",  # until the replica's first byte
    "total_ms": "%Ta",
    "bytes_in": "%U",
    "bytes_out": "%B",
    "slot": "%b/%s",  # the loop knows which replica stands there
    "who": "%[var(txn.who),url_enc]",  # primary, secondary, token:<subject>
    "termination_state": "%tsc",
}
FIELDS = tuple(_FORMAT)

LONGEST = 4096  # bytes of a line; longer ones are cut and then not counted as lines
_RING = 4 * 2**20  # bytes: some ten thousand lines


def ring(socket: str) -> str:
    """The section that holds lines until the loop has read them; "" without a socket."""
    if not socket:
        return ""
    return f"""\
ring requests
    format raw
    maxlen {LONGEST}
    size {_RING}
    timeout connect 1s
    timeout server 10s
    server loop "unix@{socket}\""""


def frontend(socket: str) -> list[str]:
    """What the scoring frontend says once: where lines go and what is in them."""
    if not socket:
        return []
    line = "\\t".join(_FORMAT.values())
    return ["log ring@requests format raw local0", f'log-format "{line}"']


def silent(socket: str) -> list[str]:
    """The frontend's first rule: nothing is written of a request that belongs to no version."""
    return ["http-request set-log-level silent"] if socket else []


def loud(socket: str) -> list[str]:
    """Its rule once `txn.be` says which version a request belongs to."""
    if not socket:
        return []
    return [f"http-request set-log-level info if {{ var(txn.be),map_str({LOGGED_MAP}) -m found }}"]
