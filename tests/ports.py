"""Ports for daemons that tests start, chosen so that several runs on one machine do not meet."""

import random
import socket

_COUNT = 100
_held: list[socket.socket] = []


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_range() -> str:
    """99 ports, "first-last", below those the kernel gives out, with nobody on any of them.

    The one before the first is held as long as this process lives, so nobody else is given the range.
    """
    # not the module's functions: tests are seeded, and two runs with one seed would choose alike
    starts = range(20_000, 32_000, _COUNT)
    for first in random.SystemRandom().sample(starts, len(starts)):
        sign = _hold(first)
        if sign and all(_is_free(port) for port in range(first + 1, first + _COUNT)):
            _held.append(sign)
            return f"{first + 1}-{first + _COUNT - 1}"
        if sign:
            sign.close()
    raise RuntimeError(f"there are no {_COUNT} free ports in a row")


def _hold(port: int) -> socket.socket | None:
    held = socket.socket()
    try:
        held.bind(("127.0.0.1", port))
    except OSError:
        held.close()
        return None
    return held


def _is_free(port: int) -> bool:
    held = _hold(port)
    if held:
        held.close()
    return held is not None
