"""Which backend of the pool serves which version, and what the maps hold.

PURE. A backend belongs to one version at a time and is given away only when all of its slots are
free. A version's queue wait (and the path of a brought image) is part of HAProxy's text, so a version
takes a free backend with its wait where there is one; else a free backend's wait is changed, or the
pool grows, and the text with it: that is a reload, and `Assignment.why` says so.

Maps are changed in the order that no request can fall between: what a route needs comes before it,
and goes after it.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from deployments.types import ServiceSpec
from router.haproxy import names, render, request_line
from router.haproxy.render import SCORE, SCORING_TIMEOUT_MS, BackendShape

# Slots beyond the most replicas wanted: while a revision rolls in a quarter more exist, and those that leave
# still stand in theirs. Without them each rollout would cost a reload.
_SURGE_LEAST, _SURGE_SHARE = 2, 0.25
_MOST_GROWN = (
    256  # backends made at once: beyond that doubling takes more memory than reloads are worth
)
_MOST_SLOTS = 1024
_KEY_NAMES = ("primary", "secondary")  # in the order of AuthSpec.key_digests


class Key(NamedTuple):
    """A version of a service. A tuple: it is looked up some ten thousand times a second."""

    service: str
    version: str

    def __str__(self) -> str:
        return f"{self.service}/{self.version}"


@dataclass(frozen=True, slots=True)
class Need:
    """What a version asks of its backend."""

    queue_wait_ms: int
    slots: int
    path: str = SCORE


@dataclass(frozen=True, slots=True)
class Assignment:
    """`backends` by version, the pool's shapes, and why they differ from before (else empty)."""

    backends: dict[Key, str]
    shapes: tuple[BackendShape, ...]
    why: tuple[str, ...] = ()


def needs(services: Sequence[ServiceSpec], replicas: Mapping[Key, int]) -> dict[Key, Need]:
    """What each version asks for; `replicas` is how many it has now, those leaving included."""
    found = {}
    for spec in services:
        for version in spec.versions:
            key = Key(spec.name, version.name)
            most = version.scaling.maximum
            slots = most + max(_SURGE_LEAST, math.ceil(most * _SURGE_SHARE))
            container = version.revision.container
            path = container.scoring_path if container is not None else SCORE
            found[key] = Need(
                version.revision.max_request_wait_ms, max(slots, replicas.get(key, 0)), path
            )
    return found


def assign(
    held: Mapping[Key, str],
    shapes: Sequence[BackendShape],
    wanted: Mapping[Key, Need],
    occupied: Collection[str],
    least_slots: int,
) -> Assignment:
    """Each wanted version with a backend that suits it.

    `held` is what was assigned before; a version that is not wanted any more keeps its backend while
    that is `occupied` (a slot in it is not free), so that nobody else gets it.
    """
    pool = list(shapes)
    why: list[str] = []
    changed: set[int] = set()  # waits for which a backend was changed
    backends = {
        key: backend for key, backend in held.items() if key in wanted or backend in occupied
    }
    index_of = {render.backend_name(index): index for index in range(len(pool))}
    taken = set(backends.values()) | set(occupied)
    for key in sorted(wanted, key=str):
        need = wanted[key]
        slots = min(_doubled(least_slots, need.slots), _MOST_SLOTS)
        if key not in backends:
            free = [name for name in index_of if name not in taken]
            fitting = [
                name
                for name in free
                if pool[index_of[name]].queue_wait_ms == need.queue_wait_ms
                and pool[index_of[name]].slots >= min(need.slots, _MOST_SLOTS)
                and pool[index_of[name]].path == need.path
            ]
            if not free:
                grown = min(max(len(pool), 1), _MOST_GROWN)
                why.append(f"no backend is free for {key}: {grown} more are made")
                for _ in range(grown):
                    index_of[render.backend_name(len(pool))] = len(pool)
                    pool.append(BackendShape(need.queue_wait_ms, least_slots))
                free = [name for name in index_of if name not in taken]
            backends[key] = (fitting or free)[0]
            taken.add(backends[key])
        index = index_of[backends[key]]
        if pool[index].queue_wait_ms != need.queue_wait_ms:
            why.append(f"{key} waits {need.queue_wait_ms} ms in its queue")
            pool[index] = replace(pool[index], queue_wait_ms=need.queue_wait_ms)
            changed.add(need.queue_wait_ms)
        if pool[index].path != need.path:
            why.append(f"{key} scores at {need.path}")
            pool[index] = replace(pool[index], path=need.path)
        if pool[index].slots < min(need.slots, _MOST_SLOTS):
            why.append(f"{key} needs room for {need.slots} replicas")
            pool[index] = replace(pool[index], slots=slots)
    spare = [index for name, index in index_of.items() if name not in taken] if changed else []
    waits = Counter(need.queue_wait_ms for need in wanted.values())
    for wait in sorted(changed):
        _stock(pool, spare, wait, waits)
    return Assignment(backends, tuple(pool), tuple(why))


def _stock(
    pool: list[BackendShape], free: Sequence[int], wait: int, waits: Mapping[int, int]
) -> None:
    """Since there is a reload for this wait, have as many free backends with it as versions that have
    it: so the reloads that a wait costs grow with the logarithm of its versions.

    Those with a wait that nobody has are taken first, then up to half of those with the usual one.
    """
    usual = BackendShape().queue_wait_ms
    stray = [i for i in free if pool[i].queue_wait_ms not in (usual, *waits)]
    plain = [i for i in free if pool[i].queue_wait_ms == usual != wait]
    missing = waits[wait] - sum(pool[i].queue_wait_ms == wait for i in free)
    for index in (*stray, *plain[len(plain) - len(plain) // 2 :])[: max(missing, 0)]:
        pool[index] = replace(pool[index], queue_wait_ms=wait)


def _doubled(size: int, need: int) -> int:
    return size if need <= size else size * 2 ** math.ceil(math.log2(need / size))


def maps(
    services: Sequence[ServiceSpec],
    backends: Mapping[Key, str],
    retry_after: Mapping[Key, int],
) -> dict[str, dict[str, str]]:
    """What every map should hold for these services."""
    wanted: dict[str, dict[str, str]] = {name: {} for name in names.MAPS}
    for spec in services:
        for version in spec.versions:
            key = Key(spec.name, version.name)
            backend = backends[key]
            wanted[names.VERSIONS_MAP][str(key)] = backend
            wanted[names.NAMES_MAP][backend] = str(key)
            wanted[names.TIMEOUTS_MAP][backend] = str(version.revision.scoring_timeout_ms)
            if version.revision.request_log:
                wanted[request_line.LOGGED_MAP][backend] = "on"
            if key in retry_after:
                wanted[names.RETRY_MAP][backend] = str(retry_after[key])
        default = backends[default_version(spec)]
        shared = shares(spec)
        wanted[names.ROUTES_MAP][spec.name] = names.SPLIT if shared else default
        for place, version_name in enumerate(shared):
            entry = f"{spec.name}~{place}"
            wanted[names.SPLITS_MAP][entry] = backends[Key(spec.name, version_name)]
        _access(spec, default if _plain(spec) else None, wanted)
        if spec.cors_origins:
            every = "*" in spec.cors_origins
            wanted[names.CORS_MAP][spec.name] = "*" if every else "listed"
            for origin in () if every else spec.cors_origins:
                wanted[names.CORS_MAP][f"{spec.name}:{origin}"] = "yes"
    return wanted


def shares(spec: ServiceSpec) -> tuple[str, ...]:
    """Whose each hundredth of a service's requests is; empty where the default version has them all."""
    chosen = default_version(spec).version
    others = [item for item in spec.versions if item.name != chosen and item.traffic_percent > 0]
    given = [item.name for item in others for _ in range(item.traffic_percent)][:100]
    return (*given, *[chosen] * (100 - len(given))) if given else ()


def _plain(spec: ServiceSpec) -> bool:
    """Whether all that the fast lane of `rules` leaves out is not asked of this service."""
    revision = spec.versions[0].revision
    return (
        len(spec.versions) == 1
        and not revision.request_log
        and revision.scoring_timeout_ms == SCORING_TIMEOUT_MS
    )


def _access(spec: ServiceSpec, plain: str | None, wanted: dict[str, dict[str, str]]) -> None:
    """Who may call. `plain` is the backend of a service that takes the fast lane."""
    path = f"/api/v1/service/{spec.name}/score"
    if spec.auth.token_enabled:
        wanted[names.OPEN_MAP][spec.name] = "token"
        if plain is not None:
            wanted[names.SCORES_MAP][path] = plain
    elif not spec.auth.key_enabled:
        wanted[names.OPEN_MAP][spec.name] = "open"
    if not spec.auth.key_enabled:
        return
    for name, digest in zip(_KEY_NAMES, spec.auth.key_digests, strict=False):
        wanted[names.KEYS_MAP][f"{digest.upper()}:{spec.name}"] = name
        if plain is not None:
            wanted[names.TICKETS_MAP][f"{path}:{digest.upper()}"] = plain


def default_version(spec: ServiceSpec) -> Key:
    """The version that takes what nobody asks another one for."""
    chosen = next((version for version in spec.versions if version.is_default), spec.versions[0])
    return Key(spec.name, chosen.name)


# Where each map stands when something is added; the other way round when something goes.
_ADD_ORDER = (
    request_line.LOGGED_MAP,
    names.TIMEOUTS_MAP,
    names.RETRY_MAP,
    names.NAMES_MAP,
    names.CORS_MAP,
    names.KEYS_MAP,
    names.OPEN_MAP,
    names.VERSIONS_MAP,
    names.SPLITS_MAP,
    names.ROUTES_MAP,
    names.SCORES_MAP,
    names.TICKETS_MAP,
)


def map_commands(
    present: Mapping[str, Mapping[str, str]], wanted: Mapping[str, Mapping[str, str]]
) -> tuple[str, ...]:
    """The commands that make HAProxy's maps the wanted ones; none when they are."""
    commands = []
    for name in _ADD_ORDER:
        have, want = present[name], wanted[name]
        for key in sorted(want):
            if key not in have:
                commands.append(f"add map {name} {key} {want[key]}")
            elif have[key] != want[key]:
                commands.append(f"set map {name} {key} {want[key]}")
    for name in reversed(_ADD_ORDER):
        gone = sorted(set(present[name]) - set(wanted[name]))
        commands += [f"del map {name} {key}" for key in gone]
    return tuple(commands)


def map_text(entries: Mapping[str, str]) -> str:
    """A map's file, as HAProxy reads it when it starts."""
    return "".join(f"{key} {value}\n" for key, value in sorted(entries.items()))


def recovered(versions: Mapping[str, str]) -> dict[Key, str]:
    """The assignment as the running HAProxy's own map of versions tells it."""
    found = {}
    for name, backend in versions.items():
        service, _, version = name.partition("/")
        found[Key(service, version)] = backend
    return found
