"""Since when replicas' gates may have to refuse, as HAProxy's map `gates.map` holds it.

PURE. A gate refuses a request (425) while its replica is still at work on one that HAProxy has given up:
its client left, it took too long, a worker died, or another worker of HAProxy handed it over before a
reload. While a backend is in the map, HAProxy keeps a copy of each of its requests, so that a refused one
goes on to another replica. HAProxy adds to the map by itself; here it is decided what goes.
"""

from collections.abc import Collection, Mapping

from router.haproxy import names

_SLACK = 5.0  # seconds beyond the scoring timeout for which a backend stays
_LONGEST = 3600.0
_RENEW = 10.0  # during a reload's overlap an entry is renewed this often, seconds


def commands(
    present: Mapping[str, str],
    backends: Collection[str],
    timeouts_ms: Mapping[str, str],
    *,
    overlap: bool,
    now: float,
    moved: Collection[str] = (),
) -> tuple[str, ...]:
    """What to say to HAProxy; `overlap` is true while an old worker still finishes requests.

    `moved` are backends that another router may just have handed requests of to the same replicas.
    `present` is the map (backend -> epoch seconds), `timeouts_ms` the scoring timeouts by backend.
    """
    named, said = frozenset(backends), []
    for name in sorted(named) if overlap else sorted(named.intersection(moved)):
        if name not in present:
            said.append(f"add map {names.GATES_MAP} {name} {int(now)}")
        elif now - _number(present[name]) > _RENEW:
            said.append(f"set map {names.GATES_MAP} {name} {int(now)}")
    over: dict[tuple[str, str], bool] = {}  # most of a thousand say the same
    for name, since in sorted(present.items()):
        if overlap and name in named:
            continue
        times = (since, timeouts_ms.get(name, "60000"))
        if times not in over:
            kept = min(_number(times[1]) / 1000 + _SLACK, _LONGEST)
            over[times] = not 0 <= now - _number(since) <= kept
        if name not in named or over[times]:
            said.append(f"del map {names.GATES_MAP} {name}")
    return tuple(said)


def entries(backends: Collection[str], now: float) -> dict[str, str]:
    """The map with which a new worker begins: it knows nothing of what went on before it."""
    return {name: f"{int(now)}" for name in backends}


def _number(text: str) -> float:
    return float(text) if text.isdecimal() else 0.0
