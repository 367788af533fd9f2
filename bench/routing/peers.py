"""What our router is compared with, and the server behind all of them."""

from pathlib import Path

from bench.routing.processes import Programs, family, free_port
from router.haproxy.process import find_binary

# Faster than every proxy: HAProxy answering by itself, on the load's core.
_UPSTREAM = """\
global
    nbthread 1
    maxconn 4000
defaults
    mode http
    timeout client 1h
    timeout connect 1s
    timeout server 1h
frontend answers
    bind 127.0.0.1:{port}
    bind unix@{socket} mode 600
    http-request return status 200 content-type application/json string '{{"result":[1.0]}}'
"""

# The least that is a proxy in the same mode: no rule, no queue, no check.
_BARE = """\
global
    nbthread 1
    maxconn 8000
defaults
    mode http
    timeout client 65s
    timeout connect 1s
    timeout server 60s
    option {mode}
    http-reuse safe
frontend bare
    bind 127.0.0.1:{port}
    default_backend replicas
backend replicas
    balance leastconn
{servers}
"""


def upstream(programs: Programs, folder: Path, core: int) -> tuple[int, Path]:
    """Its port and its unix socket."""
    port, socket = free_port(), folder / "up.sock"
    _haproxy(programs, "upstream", folder, _UPSTREAM.format(port=port, socket=socket), core)
    programs.answering("upstream", port)
    return port, socket


def bare_haproxy(
    programs: Programs, folder: Path, core: int, addresses: tuple[str, ...], *, server_close: bool
) -> tuple[int, tuple[int, ...]]:
    """Its port and its pids."""
    port = free_port()
    text = _BARE.format(
        port=port,
        mode="http-server-close" if server_close else "http-keep-alive",
        servers="\n".join(
            f"    server s{index} {address}" for index, address in enumerate(addresses)
        ),
    )
    pid = _haproxy(programs, "bare", folder, text, core)
    programs.answering("bare", port)
    return port, tuple(process.pid for process in family(pid))


def _haproxy(programs: Programs, name: str, folder: Path, text: str, core: int) -> int:
    config = folder / f"{name}.cfg"
    config.write_text(text)
    return programs.start(name, [find_binary(), "-db", "-f", config], core)
