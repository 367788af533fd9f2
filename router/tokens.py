"""What becomes of tokens inside HAProxy: which it must refuse, and which it need not verify again.

PURE. HAProxy verifies a token once and notes that in the map of tokens; from then on it only looks
there. So a token that is revoked has to leave that map, and the order matters:

    1. its id is added to the map of revoked ids    no request can verify it from now on
    2. the map of tokens is read                    whatever was let in before is in it
    3. its entries are deleted                      the next request finds nothing, and verifies in vain

The other way round a request between the two would bring the entry back, and nobody would look again
for a minute. For the same reason the ids that an old worker of a reload is told come before its map is
emptied. An id is taken back only when its token expired a while ago.

Entries that expired open nothing; they are cleared away once a minute, so that the map stays small.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deployments.types import RouterSpec, ServiceSpec
from router.haproxy import names

LOOK_EVERY = 60.0  # seconds between looks through the tokens that HAProxy has verified


@dataclass(frozen=True, slots=True)
class Wanted:
    """What HAProxy is to know. `takers` are the names of the services that take tokens; None is that
    it is not known whose tokens it has taken."""

    revoked: frozenset[str] = frozenset()
    takers: frozenset[str] | None = frozenset()


@dataclass(frozen=True, slots=True)
class Step:
    """What to tell HAProxy, in this order: `first`, then (with `look`) what is out of date in the map
    of tokens, then `last`. `old` is for old workers, whose map is emptied altogether."""

    first: tuple[str, ...] = ()
    look: bool = False
    last: tuple[str, ...] = ()
    old: tuple[str, ...] = ()


def wanted(spec: RouterSpec, services: Sequence[ServiceSpec]) -> Wanted:
    """What follows from the cluster's settings and its services."""
    return Wanted(
        revoked=frozenset(spec.revoked_tokens),
        takers=frozenset(service.name for service in services if service.auth.token_enabled),
    )


def step(before: Wanted, after: Wanted, looked_ago: float | None) -> Step:
    """From what HAProxy knows to what it should.

    `looked_ago` is how many seconds ago the map of tokens was looked through; None is never.
    """
    added = sorted(after.revoked - before.revoked)
    gone = sorted(before.revoked - after.revoked)
    fewer = before.takers is None or not before.takers <= (after.takers or frozenset())
    less = bool(added) or fewer
    first = tuple(f"add map {names.REVOKED_MAP} {jti} revoked" for jti in added)
    return Step(
        first=first,
        look=less or looked_ago is None or looked_ago >= LOOK_EVERY,
        last=tuple(f"del map {names.REVOKED_MAP} {jti}" for jti in gone),
        old=(*first, f"clear map {names.TOKENS_MAP}") if less else (),
    )


def outdated(entries: Mapping[str, str], known: Wanted, now: float) -> tuple[str, ...]:
    """The keys of the map of tokens that must go: revoked, expired, of a service that takes none, or
    not of our making. `now` is epoch seconds."""
    found = []
    takers = known.takers or frozenset()
    for key, value in entries.items():
        _, _, service = key.partition(":")
        expires, _, rest = value.partition(":")
        jti = rest.partition(":")[0]
        alive = expires.isdigit() and int(expires) > now
        if not alive or jti in known.revoked or service not in takers:
            found.append(key)
    return tuple(sorted(found))


def forget(keys: Sequence[str]) -> tuple[str, ...]:
    """The commands that take these out of the map of tokens."""
    return tuple(f"del map {names.TOKENS_MAP} {key}" for key in keys)


def files(known: Wanted, entries: Mapping[str, str], now: float) -> dict[str, str]:
    """Both maps as HAProxy reads them when it starts: `entries` is what was verified before, and what
    of it is still good need not be verified again."""
    stale = set(outdated(entries, known, now))
    kept = {key: value for key, value in entries.items() if key not in stale}
    return {
        names.REVOKED_MAP: "".join(f"{jti} revoked\n" for jti in sorted(known.revoked)),
        names.TOKENS_MAP: "".join(f"{key} {value}\n" for key, value in sorted(kept.items())),
    }
