"""One pod of a router among the others: sees them, reads what they counted, and leads or does not.

`router.peers` decides; here is what is asked and told:

    the cluster    which pods there are (a watch, in memory), and the Lease        `Source`
    the others     each half second what they counted, over their admin API        GET /peer
    the loop       `turn` in each of its turns, `note` each second; `sums` is what the leader scales by

A pod that does not answer is unknown: seconds without it are not summed up. Nothing here ever makes the
loop wait for another machine.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import httpx

from deployments.codec import from_json
from deployments.errors import Conflict, SlipwayError, Unavailable
from router import peers, samples
from router.haproxy.pool import Key
from router.haproxy.stats import BackendFigures
from router.peer_plane import PeerPlane
from router.peers import Leadership, Lease, Member, Step, Told
from router.samples import Sample, TelemetryPage
from router.size_wire import RouterSample

log = logging.getLogger(__name__)

TOKEN_HEADER = "x-slipway-peer"  # noqa: S105  a header's name
_ASK_EVERY = 0.5
_ASK_DEADLINE = 1.0
_WAIT_SECONDS = 1.6  # for a pod's word on a second; then that second is nobody's
_FRESH_SECONDS = 2.0  # of what a pod told of this moment
_KEPT = 20  # seconds of ours that others may still ask for


class Source(Protocol):
    """What of the cluster a pod has to know. Every call raises SlipwayError, `lease` and `take` block."""

    def members(self) -> Sequence[Member]:
        """The router's pods, from memory."""

    def lease(self) -> Lease:
        """As it stands now."""

    def take(self, lease: Lease, holder: str) -> Lease:
        """Write this name (or "") into it where it still is as given. Raises Conflict."""


@dataclass(slots=True)
class _Peer:
    """What one other pod has told."""

    epoch: str = ""
    after: int = 0
    told: dict[int, Told] = field(default_factory=dict)
    at: float = -1e9  # when it last answered, monotonic
    figures: dict[Key, BackendFigures] = field(default_factory=dict)
    busy: dict[Key, dict[str, int]] = field(default_factory=dict)
    size: RouterSample | None = None


class Peering:
    """`me` is this pod's name, `port` where each pod's admin API stands, `token` what they know each
    other by. `monotonic` in seconds."""

    def __init__(
        self,
        me: str,
        source: Source,
        plane: PeerPlane,
        token: str,
        port: int,
        epoch: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.me, self.token, self.epoch = me, token, epoch
        self.leaving = False
        self.members: tuple[Member, ...] = ()
        self.own_size: RouterSample | None = None
        self._source, self._plane, self._port = source, plane, port
        self._monotonic = monotonic
        self._peers: dict[str, _Peer] = {}
        self._leadership = Leadership()
        self._seconds: deque[Told] = deque(maxlen=_KEPT)
        self._waiting: deque[tuple[float, Told]] = deque(maxlen=_KEPT)
        self._figures: dict[Key, BackendFigures] = {}
        self._busy: dict[Key, dict[str, int]] = {}
        self._said = 0.0

    # ---- for the loop -------------------------------------------------------------------------

    @property
    def leading(self) -> bool:
        return not self.leaving and self._leadership.leads(self._monotonic())

    @property
    def holder(self) -> str:
        """Who leads, as far as this pod has seen."""
        lease = self._leadership.lease
        return "" if lease is None else lease.holder

    async def turn(self) -> None:
        """Have HAProxy know the others. Those seen last stand while the cluster cannot be seen."""
        with contextlib.suppress(Unavailable):
            self.members = tuple(self._source.members())
        await self._plane.turn(self.members, self._monotonic(), leaving=self.leaving)

    def note(self, at: int, made: Sequence[Sample] | None) -> None:
        """A second of this pod's: its samples, None where it was not measured."""
        told = Told(at, None)
        if made is not None:
            loud = tuple(item for item in made if _loud(item))
            names = {Key(item.service, item.version) for item in made}
            names -= {Key(item.service, item.version) for item in loud}
            told = Told(at, loud, frozenset(names))
        self._seconds.append(told)
        if self.leading:
            own = told if made is None else Told(at, tuple(made))
            self._waiting.append((self._monotonic(), own))
        else:
            self._waiting.clear()

    def now(
        self, figures: Mapping[Key, BackendFigures], busy: Callable[[Key], dict[str, int]]
    ) -> None:
        """What stands in this pod at this moment, of versions in use."""
        self._figures = {key: item for key, item in figures.items() if item.busy or item.queued}
        self._busy = {
            key: {name: count for name, count in busy(key).items() if count}
            for key in self._figures
        }

    def sums(self) -> list[tuple[Sample, ...]]:
        """The seconds of all pods that can be told now, oldest first; empty is one that nobody can."""
        found = []
        while self._waiting:
            noted, own = self._waiting[0]
            others = [
                self._peers.get(item.name, _Peer()).told.get(own.at) for item in self._counting()
            ]
            whole = [told for told in others if told is not None]
            if len(whole) < len(others) and self._monotonic() - noted < _WAIT_SECONDS:
                break
            self._waiting.popleft()
            complete = len(whole) == len(others)
            found.append(peers.summed(own, whole) if complete else ())
        return found

    def figures(self, own: Mapping[Key, BackendFigures]) -> dict[Key, BackendFigures]:
        """What stands in all pods, as far as that was heard lately."""
        total = dict(own)
        for peer in self._fresh():
            for key, item in peer.figures.items():
                if (ours := total.get(key)) is not None:
                    total[key] = BackendFigures(
                        ours.busy + item.busy,
                        ours.queued + item.queued,
                        ours.arrivals,
                        ours.ok,
                        ours.up,
                    )
        return total

    def busy(self, key: Key) -> dict[str, int]:
        """Requests of the other pods inside each replica of a version."""
        total: dict[str, int] = {}
        for peer in self._fresh():
            for name, count in peer.busy.get(key, {}).items():
                total[name] = total.get(name, 0) + count
        return total

    def together(self, own: RouterSample) -> RouterSample:
        """The whole router's figures of this second."""
        others = [peer.size for peer in self._fresh() if peer.size is not None]
        return peers.together(own, [item for item in others if abs(item.at - own.at) <= 2])

    def _counting(self) -> list[Member]:
        """The other pods whose figures belong to the sum."""
        return [
            item for item in self.members if item.name != self.me and item.address and item.ready
        ]

    def _fresh(self) -> list[_Peer]:
        since = self._monotonic() - _FRESH_SECONDS
        counting = {item.name for item in self._counting()}
        return [p for name, p in self._peers.items() if name in counting and p.at >= since]

    # ---- what the others are told -------------------------------------------------------------

    def page(self, after: int) -> dict[str, Any]:
        """Answer of GET /peer: this pod's seconds after that one, and what stands in it now."""
        return {
            "pod": self.me,
            "epoch": self.epoch,
            "leader": self.holder,
            "seconds": [
                {
                    "at": told.at,
                    "page": None
                    if told.samples is None
                    else samples.to_wire(TelemetryPage(self.epoch, 0, told.samples)),
                    "quiet": [str(key) for key in told.quiet],
                }
                for told in self._seconds
                if told.at > after
            ],
            "figures": [[*key, item.busy, item.queued] for key, item in self._figures.items()],
            "busy": [[*key, names] for key, names in self._busy.items()],
            "size": None if self.own_size is None else asdict(self.own_size),
        }

    # ---- reading the others -------------------------------------------------------------------

    async def run(self, stopping: asyncio.Event) -> None:
        """Ask the others and keep the Lease, until told to stop."""
        async with httpx.AsyncClient(timeout=_ASK_DEADLINE) as client, asyncio.TaskGroup() as group:
            group.create_task(self._lead(stopping))
            while not stopping.is_set():
                counting = self._counting()
                for name in self._peers.keys() - {item.name for item in counting}:
                    del self._peers[name]
                await asyncio.gather(*(self._ask(client, item) for item in counting))
                await _pause(stopping, _ASK_EVERY)

    async def _ask(self, client: httpx.AsyncClient, member: Member) -> None:
        peer = self._peers.setdefault(member.name, _Peer())
        host = f"[{member.address}]" if ":" in member.address else member.address
        try:
            answer = await client.get(
                f"http://{host}:{self._port}/peer",
                params={"after": peer.after},
                headers={TOKEN_HEADER: self.token},
            )
            answer.raise_for_status()
            self._take(peer, answer.json())
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            self._say(f"the router's pod {member.name} cannot be read: {error!r}")

    def _take(self, peer: _Peer, data: dict[str, Any]) -> None:
        if data["epoch"] != peer.epoch:
            peer.epoch, peer.told = data["epoch"], {}
        for row in data["seconds"]:
            made = None if row["page"] is None else samples.from_wire(row["page"]).samples
            peer.told[row["at"]] = Told(row["at"], made, frozenset(map(_key, row["quiet"])))
        peer.after = max(peer.told, default=0)
        for at in sorted(peer.told)[:-_KEPT]:
            del peer.told[at]
        peer.figures = {
            Key(service, version): BackendFigures(busy, queued, 0, 0)
            for service, version, busy, queued in data["figures"]
        }
        peer.busy = {Key(service, version): names for service, version, names in data["busy"]}
        peer.size = None if data["size"] is None else from_json(RouterSample, data["size"])
        peer.at = self._monotonic()

    # ---- the Lease ----------------------------------------------------------------------------

    async def _lead(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                await asyncio.to_thread(self._step)
            except Conflict:
                log.info("another pod was faster with the Lease")
            except SlipwayError as error:
                self._say(f"the Lease cannot be kept: {error.message}")
            except Exception:  # without it nobody scales; it is tried again
                log.exception("keeping the Lease failed")
            await _pause(stopping, peers.RENEW_SECONDS)
        if self.holder == self.me:
            with contextlib.suppress(SlipwayError):
                lease = self._leadership.lease or Lease("", "")
                await asyncio.to_thread(self._source.take, lease, "")

    def _step(self) -> None:
        before = self._leadership.leads(self._monotonic())
        lease = self._source.lease()
        self._leadership, step = peers.seen(self._leadership, lease, self.me, self._monotonic())
        if self.leaving:
            if lease.holder == self.me:  # for another one to take up at once
                released = self._source.take(lease, "")
                self._leadership = Leadership(released)
            return
        if step is Step.WAIT:
            return
        begun = self._monotonic()
        lease = self._source.take(lease, self.me)
        self._leadership = peers.renewed(self._leadership, lease, begun, self._monotonic())
        if not before:
            log.info("this pod leads: it scales, and its figures are the router's")

    def _say(self, words: str) -> None:
        now = self._monotonic()
        if now - self._said > 30:
            self._said = now
            log.warning("%s", words)


def _loud(sample: Sample) -> bool:
    return bool(
        sample.arrivals or sample.ok or sample.busy_peak or sample.queued_peak or sample.rejected
        or sample.client_errors or sample.timeouts or sample.failures
    )  # fmt: skip


def _key(text: str) -> Key:
    service, _, version = text.partition("/")
    return Key(service, version)


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)
