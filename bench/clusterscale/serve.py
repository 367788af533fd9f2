"""The process under measurement: `router.run.run` as in a pod, with a diary of its turns.

    python -m bench.clusterscale.serve CONFIG.json

A line of the diary is one turn: when it began, how long it took, what the process has used up to then, what
HAProxy was told. Replicas are noted in the turn in which they were given a slot.
"""

import asyncio
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from bench.clusterscale import shapes
from deployments.drivers.kubernetes import KubernetesDriver
from deployments.home import Home
from deployments.kube import access, api
from router.dataplane import Settings
from router.haproxy.render import PeerConfig
from router.haproxy.slots import State
from router.kube_source import KubeSource
from router.loop import RouterLoop
from router.run import Place, Pod, run


class Diary:
    """One line of JSON a turn."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._rows: dict[str, object] = {}
        self._inside: dict[str, set[str]] = {}
        self.events = self.event_bytes = 0

    def turn(self, loop: RouterLoop, began: float, took: float) -> None:
        known = loop.plane.known
        joined = self._joined(loop)
        line = {
            "at": began,
            "took": took,
            "cpu": time.process_time(),
            "rss": int(Path("/proc/self/statm").read_text().split()[1]) * 4096,
            "most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "reloads": known.reloads,
            "old": len(known.old_workers),
            "told": known.told,
            "events": self.events,
            "bytes": self.event_bytes,
            "trouble": loop.status.trouble,
            "seen": loop.status.observed_at,
            "standing": sum(map(len, self._inside.values())),
            "joined": joined,
        }
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def _joined(self, loop: RouterLoop) -> list[str]:
        """Who was given a slot in this turn; rows that stand are the same objects."""
        found: list[str] = []
        for name, row in loop.plane.slots.items():
            if self._rows.get(name) is row:
                continue
            self._rows[name] = row
            inside = {slot.replica for slot in row if slot.state is State.JOINED}
            found += inside - self._inside.get(name, set())
            self._inside[name] = inside
        return found


def main() -> None:
    given: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    home = Home(Path(given["home"]))
    with Path(given["diary"]).open("w", encoding="utf-8") as file:
        diary = Diary(file)
        _keep(diary)
        kube = api.Kube(access.parse(Path(given["kubeconfig"]).read_text()))
        source = KubeSource(kube, shapes.NAMESPACE)
        token = "0" * 32
        settings = Settings(
            bind="127.0.0.1",
            port=given["port"],
            slots=given["slots"],
            tls_port=given["tls_port"],
            peers=PeerConfig("127.0.0.1", given["peer_port"], str(home.run / "peer.sock"), token),
            node=shapes.node_name(0),
        )
        pod = Pod(shapes.ROUTER_POD, source, token, given["admin_port"], 0.5)
        asyncio.run(
            run(
                Place(shapes.CLUSTER, home),
                KubernetesDriver(kube, shapes.SETTINGS),
                settings,
                "",
                pod,
            )
        )


def _keep(diary: Diary) -> None:
    whole, lines = RouterLoop.guarded_cycle, api._lines

    async def timed(loop: RouterLoop) -> None:
        began = time.time()
        await whole(loop)
        diary.turn(loop, began, time.time() - began)

    def counted(*arguments: Any) -> Iterator[bytes]:
        for line in lines(*arguments):
            diary.events += 1
            diary.event_bytes += len(line) + 1
            yield line

    RouterLoop.guarded_cycle = timed  # type: ignore[method-assign]
    api._lines = counted


if __name__ == "__main__":
    main()
