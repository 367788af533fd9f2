"""Where each replica stands in the router: the report to the cluster, and counts for the samples.

PURE but for what it remembers: a backend whose slots and readings are the same objects as in the turn
before is not looked at again, so that ten thousand replicas that stay where they are cost nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from deployments.types import Replica, ReplicaRoute, RouteState
from router.haproxy.slots import Slot, State
from router.haproxy.stats import Server

Row = tuple[Slot, ...]
Servers = Mapping[str, Server]


@dataclass(frozen=True, slots=True)
class Place:
    """One backend: the replicas in it, how many take requests and how many are on their way out."""

    row: Row
    servers: Servers | None
    routes: dict[str, ReplicaRoute]
    ready: int
    leaving: int


_NONE = Place((), None, {}, 0, 0)


class Standing:
    """Brought up to date by `update` in each turn."""

    def __init__(self) -> None:
        self.news = True  # somebody stands elsewhere than when `report` was asked last
        self._places: dict[str, Place] = {}
        self._outside: dict[tuple[str, str], tuple[tuple[Replica, ...], dict[str, ReplicaRoute]]]
        self._outside = {}

    def update(
        self,
        slots: Mapping[str, Row],
        servers: Mapping[str, Servers],
        replicas: Mapping[tuple[str, str], tuple[Replica, ...]],
    ) -> None:
        """`replicas` is by (service, version); those in no slot are out."""
        places: dict[str, Place] = {}
        for name, row in slots.items():
            before, seen = self._places.get(name), servers.get(name)
            if before is None or before.row is not row or before.servers is not seen:
                made = _place(row, seen)
                if before is None or not _alike(before.routes, made.routes):
                    self.news = self.news or before is not None or bool(made.routes)
                places[name] = made
            else:
                places[name] = before
        if any(self._places[name].routes for name in self._places.keys() - places.keys()):
            self.news = True
        self._places = places
        outside = {}
        for key, items in replicas.items():
            known = self._outside.get(key)
            if known is None or known[0] is not items:
                known = (items, {i.id: ReplicaRoute(i.id, RouteState.OUT, 0) for i in items})
                self.news = True
            outside[key] = known
        if outside.keys() != self._outside.keys():
            self.news = True
        self._outside = outside

    def report(self) -> tuple[ReplicaRoute, ...]:
        """Every replica that the cluster or the router knows of."""
        routes: dict[str, ReplicaRoute] = {}
        for _, out in self._outside.values():
            routes |= out
        for place in self._places.values():
            routes |= place.routes
        self.news = False
        return tuple(routes.values())

    def place(self, backend: str) -> Place:
        return self._places.get(backend, _NONE)

    def busy(self, backend: str) -> dict[str, int]:
        """Requests inside each replica that was read, by its id."""
        place = self.place(backend)
        seen = place.servers or {}
        return {slot.replica: seen[slot.name].used for slot in place.row if slot.name in seen}


def _place(row: Row, servers: Servers | None) -> Place:
    routes: dict[str, ReplicaRoute] = {}
    ready = leaving = 0
    for slot in row:
        if slot.state is State.FREE:
            continue
        server = None if servers is None else servers.get(slot.name)
        inside = slot.state is State.JOINED and (server is None or server.up)
        ready += inside
        leaving += slot.state is not State.JOINED
        if slot.replica:
            routes[slot.replica] = ReplicaRoute(
                slot.replica,
                RouteState.IN_ROTATION if inside else RouteState.DRAINING,
                server.used if server is not None else 0,
            )
    return Place(row, servers, routes, ready, leaving)


def _alike(before: Mapping[str, ReplicaRoute], after: Mapping[str, ReplicaRoute]) -> bool:
    """The same replicas in the same states; how busy they are is no news."""
    if before.keys() != after.keys():
        return False
    return all(before[name].state is route.state for name, route in after.items())
