"""A listening unix socket that only its own user may open."""

import os
import socket
from pathlib import Path


def listen(path: Path) -> socket.socket:
    """The socket, mode 600. One that a dead process left is replaced."""
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        made.bind(str(path))
    finally:
        os.umask(before)
    made.listen(64)
    made.setblocking(False)
    return made
