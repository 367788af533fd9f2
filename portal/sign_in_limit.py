"""How often one may try to sign in.

Tries are counted for a name from an address and for an address as a whole, in Django's cache: with the
default in-memory cache each web process counts for itself. A try is counted before the password is looked
at, so that many at once gain nothing; success forgets the name's count.
"""

import hashlib

from django.core.cache import cache

WINDOW = 300  # seconds a count lives after its first try
MOST_OF_A_NAME = 8
MOST_OF_AN_ADDRESS = 60


def _keys(username: str, address: str) -> tuple[str, str]:
    name = hashlib.sha256(f"{username.casefold()}\0{address}".encode()).hexdigest()
    whole = hashlib.sha256(address.encode()).hexdigest()
    return f"sign-in.name.{name}", f"sign-in.address.{whole}"


def _count(key: str) -> int:
    if cache.add(key, 1, WINDOW):
        return 1
    try:
        return cache.incr(key)
    except ValueError:  # it ran out between the two calls
        cache.add(key, 1, WINDOW)
        return 1


def may_try(username: str, address: str) -> bool:
    """Count one try; False when it is one too many."""
    name, whole = _keys(username, address)
    # Both are counted, whatever the first says.
    return (_count(name) <= MOST_OF_A_NAME) & (_count(whole) <= MOST_OF_AN_ADDRESS)


def forget(username: str, address: str) -> None:
    """After a success: the name's count starts anew."""
    cache.delete(_keys(username, address)[0])
