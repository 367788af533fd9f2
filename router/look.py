"""What of HAProxy is looked at in which turn, so that a large cluster costs no more than it must.

PURE. `show stat` of every backend and the slots of every backend four times a second are nothing for
twenty services and half a core for a thousand. So:

- figures of all backends come with each second's first turn; in the turns between, of all while there are
  few, else of those in use;
- a backend's slots are read at once while something is pending in it: its replicas are not the wanted
  ones, one is leaving, a command was just sent, or another number of them is up than was seen last. Else
  they are read about once a second, as far as `_ROWS` slots a turn allow, and in turn beyond that.

What was not read changes nothing: `slots.plan` goes by readings alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from router.haproxy.pool import Key
from router.haproxy.slots import Slot, State, Wanted
from router.haproxy.stats import BackendFigures, Server

_READ_EVERY = 0.9  # seconds between readings of a backend in which nothing is pending
_FEW = 200  # backends whose figures are all read in every turn
_IN_USE = 100  # beyond that, so many at most are read one by one between two seconds
_ROWS = 512  # slots a turn that are read only because it was long ago


@dataclass(frozen=True, slots=True)
class _Row:
    """What a backend's slots ask for; made again only when they change."""

    slots: tuple[Slot, ...]
    taken: bool  # some slot is not free
    leaving: bool
    newest: float  # when the last command was sent to one of them
    joined: frozenset[tuple[str, str]]  # replica and address


@dataclass(frozen=True, slots=True)
class _Match:
    row: _Row
    wanted: Sequence[Wanted]
    same: bool


class Look:
    """Remembers what was read when. One of them for each run of HAProxy's worker."""

    def __init__(self) -> None:
        self._read_at: dict[str, float] = {}
        self._rows: dict[str, _Row] = {}
        self._matches: dict[str, _Match] = {}
        self._figures: dict[str, BackendFigures] = {}
        self._in_use: list[str] = []
        self._whole_at = 0.0
        self._up: dict[str, tuple[Mapping[str, Server], int]] = {}

    def figures(self, backends: Sequence[str], *, whole: bool) -> tuple[str, ...]:
        """The commands that read this turn's figures."""
        if whole or len(backends) <= _FEW or not self._figures:
            return ("show stat -1 2 -1",)
        return tuple(f"show stat {name} 2 -1" for name in self._in_use)

    def took(
        self,
        figures: Mapping[str, BackendFigures],
        due: Sequence[str],
        begun: float,
        *,
        whole: bool,
    ) -> None:
        """Note what a reading begun at `begun` (monotonic) showed."""
        if whole:
            before = self._figures
            used = [
                name
                for name, item in figures.items()
                if item.busy
                or item.queued
                or (name in before and before[name].arrivals != item.arrivals)
            ]
            self._in_use = used[:_IN_USE]
            self._figures, self._whole_at = dict(figures), begun
        else:
            self._figures |= figures
        for name in due:
            self._read_at[name] = begun

    def due(
        self,
        slots: Mapping[str, tuple[Slot, ...]],
        servers: Mapping[str, Mapping[str, Server]],
        backends: Mapping[Key, str],
        wanted: Mapping[Key, Sequence[Wanted]] | None,
        now: float,
    ) -> tuple[str, ...]:
        """The backends whose slots are to be read now."""
        keys = {name: key for key, name in backends.items()}
        pending: list[str] = []
        later: list[tuple[float, str]] = []
        for name, row in slots.items():
            facts = self._rows.get(name)
            if facts is None or facts.slots is not row:
                facts = self._rows[name] = _row(row)
            key = keys.get(name)
            if key is None and not facts.taken:
                continue
            read_at = self._read_at.get(name, 0.0)
            if (
                facts.leaving
                or facts.newest >= read_at
                or not self._settled(name, facts, wanted, key)
                or self._another_number_up(name, facts, servers)
            ):
                pending.append(name)
            elif now - read_at >= _READ_EVERY:
                later.append((read_at, name))
        rows = 0
        for _, name in sorted(later):
            pending.append(name)
            rows += len(slots[name])
            if rows >= _ROWS:
                break
        return tuple(pending)

    def _settled(
        self,
        name: str,
        facts: _Row,
        wanted: Mapping[Key, Sequence[Wanted]] | None,
        key: Key | None,
    ) -> bool:
        """Whether the wanted replicas stand in it, and nobody else."""
        if wanted is None:
            return True
        items = wanted.get(key, ()) if key is not None else ()
        known = self._matches.get(name)
        if known is None or known.row is not facts or known.wanted is not items:
            same = facts.joined == {(item.replica, item.address) for item in items}
            known = self._matches[name] = _Match(facts, items, same)
        return known.same

    def _another_number_up(
        self, name: str, facts: _Row, servers: Mapping[str, Mapping[str, Server]]
    ) -> bool:
        figures, seen = self._figures.get(name), servers.get(name)
        if figures is None or seen is None or not facts.taken:
            return False
        if self._read_at.get(name, 0.0) > self._whole_at:
            return False  # the slots were read after the figures
        known = self._up.get(name)
        if known is None or known[0] is not seen:
            up = sum(s.up and not s.maintenance and not s.draining for s in seen.values())
            known = self._up[name] = (seen, up)
        return known[1] != figures.up


def _row(slots: tuple[Slot, ...]) -> _Row:
    return _Row(
        slots=slots,
        taken=any(slot.state is not State.FREE for slot in slots),
        leaving=any(slot.state in (State.DRAINING, State.SETTLING) for slot in slots),
        newest=max((slot.since for slot in slots), default=0.0),
        joined=frozenset(
            (slot.replica, slot.address) for slot in slots if slot.state is State.JOINED
        ),
    )
