"""The two unix sockets of a replica on this machine, and how they are reached.

    listen.sock   takes requests: the scoring server's, kept by its shim
    health.sock   answers GET / at once, however busy the replica is: the shim's own

Both stand in the replica's folder, whose path may be longer than the 107 bytes that a socket's name may
have; whoever connects goes through the folder (`within`).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LISTEN = "listen.sock"
HEALTH = "health.sock"


def address_of(folder: Path) -> str:
    """A replica's address for a router: "unix:/its/folder/listen.sock"."""
    return f"unix:{folder / LISTEN}"


def health_of(socket: Path) -> Path:
    """Where the replica that listens on `socket` answers GET /."""
    return socket.with_name(HEALTH)


@contextmanager
def within(path: Path) -> Iterator[str]:
    """A short name of a socket for as long as it is connected to. Raises OSError."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
