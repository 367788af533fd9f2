"""Addresses of stored contents that run out: how pods and other machines fetch a revision's files.

    <portal>/blobs/<sha256>?expires=<epoch seconds>&signature=<hex>

Whoever has one may read that one content until it runs out, and nothing else: no session, no row is asked.
It is as secret as the content; it stands in a Secret of the cluster, and in no log. The signature is an HMAC
under a key that is derived from SECRET_KEY: with another key, all of them are refused at once.

Within a stretch of half a lifetime the same content has the same address, so what holds it changes only
when it must; it is good for at least half a lifetime more whenever it is given out.
"""

import hmac
import re
from hashlib import sha256 as sha256_of
from urllib.parse import urlencode

from django.conf import settings

from deployments.errors import InvalidInput

PATH = "/blobs/"
_PURPOSE = b"slipway blob addresses"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_EXPIRES = re.compile(r"[0-9]{1,12}")
WRONG = "this address is not one that the portal gave out"
EXPIRED = "this address has run out"


def address(base: str, sha256: str, *, now: float, lifetime: int) -> str:
    """Of one content; `base` is where the portal is reached ("https://portal:8000"), `lifetime` in seconds.

    Raises InvalidInput for what is no SHA-256."""
    if not _SHA256.fullmatch(sha256):
        raise InvalidInput(f"{sha256!r} is not a SHA-256 in lower-case hex.")
    half = max(1, lifetime // 2)
    expires = str((int(now) // half + 2) * half)
    query = urlencode({"expires": expires, "signature": _signature(sha256, expires)})
    return f"{base.rstrip('/')}{PATH}{sha256}?{query}"


def refusal(sha256: str, expires: str, signature: str, *, now: float) -> str:
    """Why it may not be read, "" when it may. Takes the same time whatever is wrong with a signature."""
    if not _SHA256.fullmatch(sha256) or not _EXPIRES.fullmatch(expires):
        return WRONG
    expected = _signature(sha256, expires)
    if not hmac.compare_digest(expected.encode(), signature.encode()):
        return WRONG
    return EXPIRED if now >= int(expires) else ""


def _signature(sha256: str, expires: str) -> str:
    key = hmac.digest(settings.SECRET_KEY.encode(), _PURPOSE, sha256_of)
    return hmac.new(key, f"{sha256}\n{expires}".encode(), sha256_of).hexdigest()
