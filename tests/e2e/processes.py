"""Slipway's processes in a home of their own, for tests that kill them one by one.

Each is the product's own command, started here and stopped by its own pid. What people do is done by
`tests.e2e.world`, in a process too, so that a test needs no database of its own.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil

from deployments.drivers.process import ProcessDriver
from deployments.types import Replica
from tests.ports import free_port

CHECKOUT = Path(__file__).resolve().parents[2]
QUICK = "def init(): ...\ndef run(data): return data.upper()\n"
_ROWLESS = ("local", "--settings", "portal.settings_rowless")


class Processes:
    """One SLIPWAY_HOME and the processes started in it."""

    controller_options: tuple[str, ...] = ("--period", "0.3")  # tests have less time than people

    def __init__(self, home: Path) -> None:
        self.home = home
        self.driver = ProcessDriver(home / "clusters" / "local")
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.people: subprocess.Popen[str] | None = None
        self.port, self.router_port = free_port(), free_port()

    def command(self, name: str) -> list[str]:
        """How the product starts this process."""
        manage = [sys.executable, "manage.py"]
        commands = {
            "redis": [
                "redis-server", "--port", "0", "--save", "", "--appendonly", "no",
                "--unixsocket", str(self.home / "run" / "redis.sock"), "--dir", str(self.home),
            ],
            "worker": [*manage, "rqworker", "default", "--skip-checks"],
            "controller": [*manage, "run_controller", *self.controller_options],
            "agent": [*manage, "run_agent", *_ROWLESS],
            "router": [*manage, "run_router", *_ROWLESS],
            "web": [
                sys.executable, "-m", "uvicorn", "portal.asgi:application", "--no-access-log",
                "--log-level", "warning", "--port", str(self.port),
            ],
        }  # fmt: skip
        return commands[name]

    def environ(self) -> dict[str, str]:
        return {
            **os.environ,
            "SLIPWAY_HOME": str(self.home),
            "SLIPWAY_PORT": str(self.port),
            "SLIPWAY_ROUTER_PORT": str(self.router_port),
            "DJANGO_SETTINGS_MODULE": "tests.e2e.process_settings",
            "PYTHONPATH": str(CHECKOUT),
        }

    def start(self, *names: str) -> None:
        for name in names:
            with (self.home / f"{name}.out").open("ab") as out:
                self.running[name] = subprocess.Popen(
                    self.command(name), cwd=CHECKOUT, env=self.environ(), stdout=out, stderr=out
                )

    def kill(self, name: str) -> None:
        """SIGKILL, and for the worker its job's process as well: nobody gets to say goodbye."""
        process = self.running.pop(name)
        children = psutil.Process(process.pid).children() if name == "worker" else []
        process.send_signal(signal.SIGKILL)
        for child in children:
            child.kill()
        process.wait(30)

    def prepare(self, *options: str) -> None:
        """Start the process that does what people do; it makes the home first."""
        with (self.home / "people.out").open("ab") as out:
            self.people = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.world", *options],
                cwd=CHECKOUT,
                env=self.environ(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                text=True,
            )
        while (line := self.people.stdout.readline()) != "ready\n":
            assert line, self.said()

    def ask(self, **what: object) -> object:
        """Have the people's process do something; see `tests.e2e.world`."""
        self.people.stdin.write(json.dumps(what) + "\n")
        self.people.stdin.flush()
        while not (answer := self.people.stdout.readline()).startswith("= "):
            assert answer, self.said()
        return json.loads(answer[2:])

    def deploy(self, name: str, script: str = QUICK, bulk: int = 0, **config: object) -> int:
        """The deployment's id."""
        return self.ask(do="deploy", name=name, script=script, bulk=bulk, config=config)

    def row(self, deployment: int) -> dict[str, str]:
        columns = "state, step, cause_code, cause, evidence, attempts"
        return self._one(f"SELECT {columns} FROM deployments_deployment WHERE id = ?", deployment)

    def service(self, name: str) -> dict[str, str]:
        return self._one("SELECT state, state_cause FROM deployments_service WHERE name = ?", name)

    def _one(self, query: str, argument: object) -> dict[str, str]:
        with closing(sqlite3.connect(self.home / "db.sqlite3", timeout=30)) as database:
            database.row_factory = sqlite3.Row
            return dict(database.execute(query, [argument]).fetchone())

    def wait_for(self, what: str, test: Callable[[], object], seconds: float = 180.0) -> None:
        deadline = time.monotonic() + seconds
        while not test():
            assert time.monotonic() < deadline, f"{what} did not come\n{self.said()}"
            time.sleep(0.03)

    def replicas(self, service: str) -> list[Replica]:
        found = self.driver.observe()
        return [r for s in found.services if s.spec.name == service for r in s.replicas]

    def said(self) -> str:
        """The end of everything that was written, for a test that failed."""
        paths = [*self.home.glob("*.out"), *self.home.glob("clusters/local/*/*/log/*")]
        return "\n".join(f"== {path}\n{path.read_text()[-2000:]}" for path in paths)

    def manage(self, *arguments: str) -> None:
        subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=CHECKOUT,
            env=self.environ(),
            capture_output=True,
            timeout=60,
        )

    def close(self) -> None:
        """Stop everything, the replicas included; Redis last, because others wait for it."""
        for name in [name for name in self.running if name != "redis"]:
            self.kill(name)
        self.manage("stop_replicas", "local")
        if "redis" in self.running:
            self.kill("redis")
        if self.people is not None:
            self.people.communicate()  # ends at the end of its input
