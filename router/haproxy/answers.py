"""The router's own answers: one JSON shape, `{"error": {"code", "message", "request_id"}}`.

PURE. Lines of HAProxy's configuration. A message may hold log-format fetches; one that has no value empties
the whole answer, so give each a default.
"""

from collections.abc import Mapping

REQUEST_ID = "var(txn.id)"


def body(code: str, message: str, request_id: str = REQUEST_ID) -> str:
    """The JSON as arguments of `return` and `http-error`."""
    text = f'{{"error":{{"code":"{code}","message":"{message}","request_id":"%[{request_id}]"}}}}'
    return f"content-type application/json lf-string '{text}'"


def headers(given: Mapping[str, str]) -> str:
    return "".join(f" hdr {name} '{value}'" for name, value in given.items())


def answer(status: int, code: str, message: str, condition: str, **given: str) -> str:
    """The router answers by itself where `condition` holds."""
    return f"http-request return status {status} {body(code, message)}{headers(given)} {condition}"


def own_error(
    status: int, code: str, message: str, request_id: str = REQUEST_ID, **given: str
) -> str:
    """What HAProxy says when it fails by itself."""
    return f"http-error status {status} {body(code, message, request_id)}{headers(given)}"
