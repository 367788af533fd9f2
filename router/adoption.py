"""A HAProxy that runs already is learnt from itself: its backends, its slots and what it was started from.

A loop that begins, or begins anew, acts on nothing before this went through. What an earlier run kept
(`Known.remember`) only fills in what HAProxy cannot tell: which replica stands behind an address. Reads,
and changes nothing at HAProxy.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

from deployments.errors import SlipwayError
from deployments.types import RouterSpec
from router.following import Following
from router.haproxy import names, pool, render, slots, stats
from router.haproxy.links import SlotLinks
from router.haproxy.pool import Key
from router.haproxy.process import HAProxy
from router.haproxy.render import BackendShape, RouterConfig
from router.haproxy.slots import Wanted
from router.known import Known
from router.route_maps import RouteMaps

log = logging.getLogger(__name__)


async def adopt(
    haproxy: HAProxy,
    known: Known,
    maps: RouteMaps,
    following: Following,
    links: SlotLinks,
    config: Callable[[Sequence[BackendShape], RouterSpec], RouterConfig],
    wanted: Mapping[Key, Sequence[Wanted]],
    now: float,
) -> None:
    """Fill `known`, `maps` and `following` from the running HAProxy. `now` is monotonic.

    Raises SlipwayError when it cannot be read; then nothing is ready.
    """
    try:
        info, limits, states, used = await haproxy.runtime.ask(
            ["show info", "show stat -1 4 -1", "show servers state", "show servers conn"]
        )
        worker = stats.parse_worker(info)
        at_a_time = stats.parse_limits(limits)
        links.forget()
        servers = {
            key: server
            for key, server in stats.parse_servers(states, used, links.address).items()
            if key[0].startswith("be_")
        }
        known.old_workers = stats.parse_processes(await haproxy.master.ask("show proc")).old
    except stats.Unreadable as error:
        raise SlipwayError(f"HAProxy's answer makes no sense: {error}") from error
    known.threads = known.threads_wanted = worker.threads
    known.backends = pool.recovered((await maps.read())[names.VERSIONS_MAP])
    found = sorted({backend for backend, _ in servers})
    candidates = (following.asked, following.spec) if known.shapes else ()
    same = [
        spec
        for spec in candidates
        if spec and render.shape(config(known.shapes, spec)) == worker.shape
    ]
    known.outdated = not same
    following.adopt(same[0] if same else following.spec)
    if known.outdated:
        waits = dict(enumerate(shape.queue_wait_ms for shape in known.shapes))
        known.shapes = tuple(
            BackendShape(waits.get(index, 500), sum(backend == name for backend, _ in servers))
            for index, name in enumerate(found)
        )
    keys = {name: key for key, name in known.backends.items()}
    known.slots = {
        name: slots.adopt(
            [item for (backend, _), item in servers.items() if backend == name],
            at_a_time,
            known.slots.get(name, ()),
            wanted.get(keys[name], ()) if name in keys else (),
            now,
        )
        for name in found
    }
    known.ready = True
    log.info(
        "adopted HAProxy worker %d with %d replicas of %d versions",
        worker.pid,
        len(known.held()),
        len(known.backends),
    )
