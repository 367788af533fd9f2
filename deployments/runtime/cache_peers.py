"""Which cache is on which node: what the pods of `slipway-files` tell each other.

Each pod says now and then "I am the one of this node, at this address", signed with the secret that all of
them have; what it heard of others it passes on. A pod that was not heard of for a while is forgotten. So none
needs a right to ask the API server, and none a name server.

A claim that is too old or too new to be a clock's fault is not taken: nodes whose clocks are wrong by more
than `_SKEW` serve by themselves, and are not sent to. No sockets in here: `cache` sends and receives.
"""

import hmac
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_SKEW = 120.0  # seconds
_FORGOTTEN = 10  # rounds without a word
_LONGEST = 300  # of a name or an address
MOST = 5000  # nodes; what is beyond is not listened to


@dataclass(frozen=True, slots=True)
class Record:
    """One pod's word of itself. `at` is by its own clock, epoch seconds."""

    node: str
    address: str  # host:port
    at: float
    signature: str

    def row(self) -> list[Any]:
        return [self.node, self.address, self.at, self.signature]


def signed(secret: str, node: str, address: str, at: float) -> Record:
    return Record(node, address, at, _sign(secret, node, address, at))


class Peers:
    """What one pod knows of all. `secret` is asked each time: it may become another one."""

    def __init__(
        self,
        node: str,
        address: str,
        secret: Callable[[], str],
        *,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.node, self.address = node, address
        self._secret, self._clock, self._timer = secret, clock, timer
        self._known: dict[str, tuple[Record, float]] = {}  # and when it was news, by our timer
        self._lock = threading.Lock()

    def round_seconds(self) -> float:
        """Between two rounds: the more there is to tell, the longer."""
        return 3.0 + len(self._known) / 20

    def message(self) -> bytes:
        """All that is known, ourselves included."""
        mine = signed(self._secret(), self.node, self.address, self._clock())
        rows = [mine.row(), *(record.row() for record in self._fresh())]
        return json.dumps(rows).encode()

    def hear(self, message: bytes) -> None:
        """Take what is good of it. What is not is no error: it may be of somebody else."""
        try:
            rows = json.loads(message)
            records = [Record(str(n), str(a), float(t), str(s)) for n, a, t, s in rows[:MOST]]
        except (ValueError, TypeError):
            return
        secret, now, timer = self._secret(), self._clock(), self._timer()
        if not secret:
            return
        for record in records:
            if record.node == self.node or abs(now - record.at) > _SKEW:
                continue
            if len(record.node) > _LONGEST or len(record.address) > _LONGEST:
                continue
            known = self._known.get(record.node)
            if known is not None and known[0].at >= record.at:
                continue
            expected = _sign(secret, record.node, record.address, record.at)
            if not hmac.compare_digest(expected.encode(), record.signature.encode()):
                continue
            with self._lock:
                if known is not None or len(self._known) < MOST:
                    self._known[record.node] = (record, timer)

    def of(self, node: str) -> str:
        """The address of a node's cache, "" where none is known, or it is our own."""
        return next((record.address for record in self._fresh() if record.node == node), "")

    def others(self) -> list[str]:
        """The addresses of all others."""
        return [record.address for record in self._fresh()]

    def _fresh(self) -> list[Record]:
        """Those that were heard of lately. What is stale stays known until nobody would take it any more:
        else two that repeat it to each other would keep it for ever."""
        after, now = self._timer() - _FORGOTTEN * self.round_seconds(), self._clock()
        with self._lock:
            self._known = {
                node: item
                for node, item in self._known.items()
                if item[1] >= after or now - item[0].at <= 2 * _SKEW
            }
            return [record for record, heard in self._known.values() if heard >= after]


def _sign(secret: str, node: str, address: str, at: float) -> str:
    text = "\n".join(("slipway cache peer", node, address, repr(at)))
    return hmac.new(secret.encode(), text.encode(), "sha256").hexdigest()
