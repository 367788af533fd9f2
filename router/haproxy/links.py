"""The links of a router's slots: which replica's unix socket stands behind each of them.

HAProxy connects to a slot's fixed path, and connect() follows the link there to wherever the replica
keeps its socket, however long that path is. A second link leads to the socket where the replica answers
checks, so that a check never waits behind a request.

A link is replaced by rename: a connection meets the old one or the new one. What a link leads to is
remembered, since nobody else writes here; a loop that has just started reads it. When a link may be turned
is `slots`' to decide. Touches nothing but the folder it is given.
"""

import contextlib
import os
from pathlib import Path

from deployments.sockets import health_of
from router.haproxy import render
from router.haproxy.slots import Slot, socket_of


class SlotLinks:
    """The links in one folder; None is a router whose replicas have hosts and ports."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._known: dict[str, str] = {}

    def address(self, backend: str, slot: str) -> str:
        """Where a slot's link leads as a replica's address, or "unix" where there is none."""
        name = render.slot_link(backend, slot)
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    def _read(self, name: str) -> str:
        if self.folder is not None:
            with contextlib.suppress(FileNotFoundError):
                return f"unix:{(self.folder / name).readlink()}"
        return "unix"

    def make(self, slot: Slot) -> None:
        """Have the slot's paths lead to its replica's sockets. Raises OSError."""
        socket = socket_of(slot.address)
        if self.folder is None or socket is None:
            return
        name = render.slot_link(slot.backend, slot.name)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._known.pop(name, None)
        health = health_of(Path(socket))
        _link(self.folder / (name + render.CHECK_SUFFIX), health if health.exists() else socket)
        _link(self.folder / name, socket)
        self._known[name] = slot.address

    def forget(self) -> None:
        """Read each link again: another loop may have turned it."""
        self._known.clear()


def _link(path: Path, target: Path | str) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    os.symlink(target, beside)  # noqa: PTH211  the target may be text that is no path of ours
    beside.replace(path)
