"""HAProxy's two maps about tokens, kept at what the cluster says. Decisions are `router.tokens`'.

Whatever is not certain is read again: after an error, and of a HAProxy that was found running. Never
adds to the map of tokens: only HAProxy does, once it has verified one.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from deployments.errors import SlipwayError
from deployments.types import RouterSpec, ServiceSpec
from router import tokens
from router.haproxy import names, stats
from router.haproxy.process import HAProxy
from router.tokens import Wanted


class TokenMaps:
    """One router's. `monotonic` and `clock` give seconds, the latter since the epoch."""

    def __init__(
        self, haproxy: HAProxy, monotonic: Callable[[], float], clock: Callable[[], float]
    ) -> None:
        self.haproxy = haproxy
        self._monotonic = monotonic
        self._clock = clock
        self._wanted = Wanted()
        self._made_of: tuple[object, object] = (None, None)
        self._known: Wanted | None = None  # what HAProxy knows; None: to be read
        self._looked_at: float | None = None

    def want(self, spec: RouterSpec, services: Sequence[ServiceSpec]) -> None:
        """What HAProxy is to know from now on."""
        if self._made_of[0] is not spec or self._made_of[1] is not services:
            self._wanted, self._made_of = tokens.wanted(spec, services), (spec, services)

    def files(self, verified: Mapping[str, str]) -> dict[str, str]:
        """Both maps for a HAProxy that is about to start; `verified` is what another one knew."""
        return tokens.files(self._wanted, verified, self._clock())

    def started(self) -> None:
        """HAProxy runs with those files now."""
        self._known, self._looked_at = self._wanted, self._monotonic()

    def found(self) -> None:
        """HAProxy was found running: what it knows is to be read."""
        self._known = None

    async def verified(self) -> dict[str, str]:
        """What HAProxy has verified so far: its map of tokens."""
        return (await self._read(names.TOKENS_MAP))[0]

    async def follow(self, tell_old_workers: Callable[[Sequence[str]], Awaitable[None]]) -> int:
        """Bring HAProxy to what is wanted. Returns how many commands that took; none when it is."""
        wanted, now = self._wanted, self._monotonic()
        known, self._known = self._known, None  # until all of it went through
        if known is None:
            [revoked] = await self._read(names.REVOKED_MAP)
            known = Wanted(frozenset(revoked), takers=None)
        ago = None if self._looked_at is None else now - self._looked_at
        step = tokens.step(known, wanted, ago)
        commands = list(step.first)
        if step.old:
            await tell_old_workers(step.old)
        if step.first:
            await self.haproxy.runtime.tell(step.first)
        if step.look:
            gone = tokens.forget(tokens.outdated(await self.verified(), wanted, self._clock()))
            await self.haproxy.runtime.tell(gone)
            commands += gone
            self._looked_at = now
        if step.last:
            await self.haproxy.runtime.tell(step.last)
        self._known = wanted
        return len(commands) + len(step.last)

    async def _read(self, *names: str) -> list[dict[str, str]]:
        answers = await self.haproxy.runtime.ask([f"show map {name}" for name in names])
        try:
            return [stats.parse_map(answer) for answer in answers]
        except stats.Unreadable as error:
            raise SlipwayError(f"HAProxy's answer makes no sense: {error}") from error
