"""The six processes under one supervisor (supervisord, from PyPI): its configuration and its socket.

`manage.py up` and `down` act with what is here. The supervisor restarts whatever dies; HAProxy and the
replicas are not its children, so that they outlive the processes that watch over them.
"""

import http.client
import socket
import xmlrpc.client
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Program:
    """One supervised process. `stop_seconds` is how long it may take to end by itself."""

    name: str
    command: tuple[str, ...]
    stop_seconds: int = 10
    priority: int = 100
    # Started with the supervisor; the others once the first page is served, so that a person on two
    # cores does not wait for all of them.
    first: bool = False
    # Kill its children with it when it does not stop. Never for the router and the agent: HAProxy and
    # the replicas outlive them.
    with_children: bool = False


def programs(
    *, python: str, checkout: Path, bind: str, port: int, redis_socket: Path, own_redis: bool
) -> tuple[Program, ...]:
    """What runs on one machine, in the order it starts."""
    manage = (python, str(checkout / "manage.py"))
    rowless = ("local", "--settings", "portal.settings_rowless")
    redis = Program(
        "redis",
        (
            "redis-server",
            "--port", "0",
            "--unixsocket", str(redis_socket),
            "--unixsocketperm", "600",
            "--dir", str(redis_socket.parent),
            # jobs outlive a restart
            "--appendonly", "yes",
            "--save", "",
            "--daemonize", "no",
        ),
        priority=10,
        first=True,
    )  # fmt: skip
    web = Program(
        "web",
        (
            python, "-m", "uvicorn", "portal.asgi:application",
            "--host", bind, "--port", str(port),
            "--no-access-log", "--log-level", "warning",
            "--timeout-graceful-shutdown", "3",
        ),
        first=True,
    )  # fmt: skip
    workers = tuple(
        Program(
            f"worker-{number}",
            (*manage, "rqworker", "default", "--verbosity", "1", "--skip-checks"),
            with_children=True,
        )
        for number in (1, 2)
    )
    rest = (
        web,
        Program("controller", (*manage, "run_controller")),
        Program("agent", (*manage, "run_agent", *rowless), priority=50),
        Program("router", (*manage, "run_router", *rowless), priority=50),
        *workers,
    )
    return (redis, *rest) if own_redis else rest


def of_cluster(
    name: str, kind: str, *, python: str, checkout: Path, port: int, tls_port: int
) -> tuple[Program, ...]:
    """The agent and the router of an attached cluster that this machine runs them for."""
    manage = (python, str(checkout / "manage.py"))
    given = (name, "--kind", kind, "--settings", "portal.settings_rowless")
    ports = ("--port", str(port), "--tls-port", str(tls_port))
    return (
        Program(f"agent-{name}", (*manage, "run_agent", *given), priority=50),
        Program(f"router-{name}", (*manage, "run_router", *given, *ports), priority=50),
    )


def _quoted(argument: str) -> str:
    # supervisord expands %(name)s, and splits the command as a shell splits words
    return "'" + argument.replace("%", "%%").replace("'", "'\\''") + "'"


def render(programs: tuple[Program, ...], *, checkout: Path, run: Path, logs: Path) -> str:
    """supervisord's configuration."""

    def path(value: Path) -> str:
        return str(value).replace("%", "%%")

    parts = [
        f"""\
[supervisord]
pidfile={path(run / "supervisord.pid")}
logfile={path(logs / "supervisord.log")}
logfile_maxbytes=5MB
logfile_backups=1
loglevel=info
directory={path(checkout)}
identifier=slipway

[unix_http_server]
file={path(run / "supervisord.sock")}
chmod=0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://{path(run / "supervisord.sock")}

[include]
files={path(included(run))}/*.conf
"""
    ]
    parts += [_section(program, logs, start=program.first) for program in programs]
    return "\n".join(parts)


def included(run: Path) -> Path:
    """The folder of what comes and goes while the supervisor runs: a file a cluster."""
    return run / "clusters.d"


def render_cluster(programs: tuple[Program, ...], *, logs: Path) -> str:
    """One such file; its programs start when it is taken in."""
    return "\n".join(_section(program, logs, start=True) for program in programs)


def _section(program: Program, logs: Path, *, start: bool) -> str:
    log = str(logs / f"{program.name}.log").replace("%", "%%")
    return f"""\
[program:{program.name}]
command={" ".join(_quoted(argument) for argument in program.command)}
priority={program.priority}
autostart={str(start).lower()}
autorestart=true
startsecs=1
startretries=1000000
stopwaitsecs={program.stop_seconds}
killasgroup={str(program.with_children).lower()}
redirect_stderr=true
stdout_logfile={log}
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=2
environment=PYTHONUNBUFFERED="1"
"""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over supervisord's socket. httpx leaves the socket open when nobody listens."""

    def __init__(self, path: Path) -> None:
        super().__init__("supervisor", timeout=10.0)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


NO_ANSWER = (OSError, http.client.HTTPException, xmlrpc.client.Error)


class Supervisor:
    """The running supervisord, over its socket."""

    def __init__(self, run: Path) -> None:
        self._socket = run / "supervisord.sock"
        self.pid_file = run / "supervisord.pid"

    def _call(self, method: str, *arguments: bool | str) -> Any:
        with closing(_UnixConnection(self._socket)) as connection:
            connection.request("POST", "/RPC2", xmlrpc.client.dumps(arguments, method))
            return xmlrpc.client.loads(connection.getresponse().read())[0][0]

    def pid(self) -> int | None:
        """Its pid, or None when none answers on the socket."""
        try:
            return int(self._call("supervisor.getPID"))
        except NO_ANSWER:
            return None

    def states(self) -> dict[str, str]:
        """State word (RUNNING, BACKOFF, ...) by program; empty when it does not answer."""
        try:
            rows = self._call("supervisor.getAllProcessInfo")
        except NO_ANSWER:
            return {}
        return {row["name"]: row["statename"] for row in rows}

    def start_all(self) -> None:
        """Start every program that does not run yet. Does not wait for them."""
        self._call("supervisor.startAllProcesses", False)

    def take_in(self) -> None:
        """Start, stop and start anew what the files in `included` added, took away and changed.
        Raises OSError and what is in `NO_ANSWER` when it cannot be told; may be repeated."""
        ((added, changed, removed),) = self._call("supervisor.reloadConfig")
        for group in (*changed, *removed):
            self._call("supervisor.stopProcessGroup", group)
            self._call("supervisor.removeProcessGroup", group)
        for group in (*changed, *added):
            self._call("supervisor.addProcessGroup", group)

    def shutdown(self) -> None:
        """Ask it to stop its processes and itself. Not an error when it is gone."""
        with suppress(*NO_ANSWER):
            self._call("supervisor.shutdown")
