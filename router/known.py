"""What one router believes of its HAProxy: whose each backend is, and who stands in which slot.

Values alone, shared by the parts of `router.dataplane`: `router.adoption` and `router.reader` learn them
from HAProxy, `router.installer` and the plane change HAProxy and note it here. A row of slots and the mapping
of backends are replaced and never changed in place: whoever meets the same object knows that nothing
changed. No rule and no I/O in here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from router.haproxy import peer_rules, render
from router.haproxy.pool import Key
from router.haproxy.render import BackendShape, PeerConfig
from router.haproxy.slots import Slot, State
from router.haproxy.stats import Server


@dataclass(slots=True)
class Known:
    """One HAProxy. Until `ready` it is what an earlier run of the loop kept, and not to be acted on."""

    backends: dict[Key, str] = field(default_factory=dict)
    shapes: tuple[BackendShape, ...] = ()  # of `be_0000`, `be_0001` ...
    slots: dict[str, tuple[Slot, ...]] = field(default_factory=dict)
    servers: dict[str, Mapping[str, Server]] = field(default_factory=dict)  # as read last
    old_workers: tuple[int, ...] = ()  # pids that still finish requests after a reload
    ready: bool = False
    outdated: bool = False  # HAProxy runs with another text than these shapes make
    threads: int = 1  # of HAProxy
    threads_wanted: int = 1  # another number is a reload
    reloads: int = 0
    told: int = 0  # commands that changed something
    # where this router is one of several pods: the row of the others, and backend -> slot in that row
    peers: tuple[Slot, ...] = ()
    owners: dict[str, str] | None = None  # None: to be read from HAProxy

    def remember(
        self,
        backends: dict[Key, str],
        shapes: Sequence[BackendShape],
        kept: Iterable[Slot],
        threads: int = 1,
    ) -> None:
        """Take up what an earlier run knew; what HAProxy itself says goes before it."""
        self.threads = self.threads_wanted = threads
        self.backends, self.shapes = backends, tuple(shapes)
        rows: dict[str, tuple[Slot, ...]] = {}
        for slot in kept:
            rows[slot.backend] = (*rows.get(slot.backend, ()), slot)
        self.slots = rows

    def held(self) -> tuple[Slot, ...]:
        """The slots that are not free."""
        return tuple(
            slot for row in self.slots.values() for slot in row if slot.state is not State.FREE
        )

    def names(self) -> set[str]:
        """The backends that HAProxy has."""
        return {render.backend_name(index) for index in range(len(self.shapes))}


def empty_slots(shapes: Sequence[BackendShape]) -> dict[str, tuple[Slot, ...]]:
    """The rows of a HAProxy with these shapes, nobody in them."""
    return {
        render.backend_name(index): tuple(
            Slot(render.backend_name(index), render.server_name(number))
            for number in range(shape.slots)
        )
        for index, shape in enumerate(shapes)
    }


def empty_peers(config: PeerConfig | None) -> tuple[Slot, ...]:
    """The row of a HAProxy that knows no other pod yet."""
    count = 0 if config is None else config.slots
    return tuple(Slot(peer_rules.BACKEND, render.peer_name(index)) for index in range(count))
