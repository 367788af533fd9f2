"""HAProxy's side of the other pods of its router: who stands in which slot, and whose each backend is.

One step a turn, after `router.dataplane` has had its own: read the row of peers, plan it as any row of slots,
and keep `owners.map` at what `router.peers` says. Where a backend changes hands, its replicas' gates are told
first that two may send to them for a while.
"""

import logging
from collections.abc import Mapping, Sequence

from deployments.errors import PermanentError
from router import peers
from router.dataplane import DataPlane
from router.haproxy import gates, names, peer_rules, slots, stats
from router.haproxy.pool import Key
from router.haproxy.slots import State, Wanted
from router.peers import Member

log = logging.getLogger(__name__)

_AT_ONCE = 10_000  # requests to another pod: it has the queues
_BACK_SECONDS = 2.0  # a pod that could not be connected to is nobody's owner for so long


class PeerPlane:
    """One pod's. Lives on the loop's turns."""

    def __init__(self, plane: DataPlane, me: str) -> None:
        self.plane = plane
        self.me = me
        self.up: dict[str, str] = {}  # other pods that take requests -> slot
        self._away: dict[str, float] = {}  # pods that were down, and when last
        self._first: dict[Key, float] = {}  # when a version was first seen
        self._began: float | None = None

    async def turn(self, members: Sequence[Member], now: float, *, leaving: bool = False) -> None:
        """`now` is monotonic. Raises SlipwayError when HAProxy cannot be read or told."""
        plane, known = self.plane, self.plane.known
        config = plane.settings.peers
        if config is None or not known.ready:  # HAProxy does not run, or is not known yet
            return
        runtime = plane.haproxy.runtime
        row = peer_rules.BACKEND
        asked = [f"show servers state {row}", f"show servers conn {row}"]
        asked += [f"show map {names.OWNERS_MAP}"] if known.owners is None else []
        answers = await runtime.ask(asked)
        seen = {
            name: server
            for (_, name), server in stats.parse_servers(answers[0], answers[1]).items()
            if name != "self"
        }
        wanted = [
            Wanted(item.name, _address(item.address, config.port), _AT_ONCE)
            for item in members
            if item.name != self.me and item.ready and not item.leaving and item.address
        ]
        if known.owners is None:
            known.owners = stats.parse_map(answers[2])
            limits = {(row, name): _AT_ONCE for name in seen}
            known.peers = known.peers or slots.adopt(seen.values(), limits, (), wanted, now)
        step = slots.plan(known.peers, wanted, seen, now, now)
        self.up = self._able(step.slots, seen, now)
        handed = peers.handed_on(
            known.backends,
            self.up,
            None if leaving else self.me,
            self._settled(known.backends, now),
        )
        known.peers = step.slots
        have = known.owners
        moved = {name for name in {**handed, **have} if have.get(name) != handed.get(name)}
        commands = [*step.commands]
        if moved:
            present = stats.parse_map((await runtime.ask([f"show map {names.GATES_MAP}"]))[0])
            told = gates.commands(
                present, known.backends.values(), {}, overlap=False, now=plane.clock(), moved=moved
            )
            # what is over is for the plane to say: it knows how long each may take
            commands += [command for command in told if not command.startswith("del ")]
            commands += _owner_commands(have, handed)
            log.info(
                "%d versions change hands; %s is with %s", len(moved), self.me, sorted(self.up)
            )
        if not commands:
            return
        known.told += len(commands)
        known.owners = None  # until all went through
        await plane.tell_old_workers(commands)
        try:
            await runtime.tell(commands)
        except PermanentError as error:
            log.error("%s The other commands were carried out.", error.message)
            return
        known.owners = handed

    def _able(
        self, row: Sequence[slots.Slot], seen: Mapping[str, stats.Server], now: float
    ) -> dict[str, str]:
        """Pods in the row that HAProxy could connect to, for a while now."""
        found = {}
        for slot in row:
            server = seen.get(slot.name)
            if slot.state is not State.JOINED or server is None or server.address != slot.address:
                continue
            if server.maintenance or server.draining:
                continue
            if not server.up:
                self._away[slot.replica] = now
            elif now - self._away.get(slot.replica, -_BACK_SECONDS) >= _BACK_SECONDS:
                found[slot.replica] = slot.name
        return found

    def _settled(self, backends: Mapping[Key, str], now: float) -> set[Key]:
        """Versions that every pod has had the time to learn of. Those that this pod began with are."""
        if self._began is None:
            self._began = now
            self._first = dict.fromkeys(backends, now - peers.SETTLED_SECONDS)
        self._first = {key: self._first.get(key, now) for key in backends}
        return {key for key, at in self._first.items() if now - at >= peers.SETTLED_SECONDS}


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _owner_commands(have: Mapping[str, str], want: Mapping[str, str]) -> list[str]:
    table = names.OWNERS_MAP
    said = []
    for name in sorted(want):
        if name not in have:
            said.append(f"add map {table} {name} {want[name]}")
        elif have[name] != want[name]:
            said.append(f"set map {table} {name} {want[name]}")
    return said + [f"del map {table} {name}" for name in sorted(have.keys() - want.keys())]
