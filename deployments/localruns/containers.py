"""A local run's process as a container of a Docker Engine on this machine: the image that replicas would get.

The run's folder is mounted where the scoring server looks for its project folder, models and socket, and it
runs as this process's user, so both can write there. It ends by itself when the runner's sign of life (the
file `alive`) is old: a container does not die with the process that made it.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deployments.agent.processes import Run
from deployments.agent.record import Process
from deployments.engine.containers import Asked, Engine
from deployments.errors import InvalidInput, NotFound, SlipwayError, Unavailable
from deployments.types import EngineSpec, Exit, Resources

INSIDE = Path("/slipway/run")
_CONFIGURATION = "/slipway/conf"
LABEL = "slipway.local-run"
NETWORK = "slipway-local-runs"  # of all runs; they do not reach each other on it
_LOOK = 0.5  # seconds between two questions to the Engine
_OF_VENV = ("PATH", "VIRTUAL_ENV")  # the image has its own


class ContainerProcess:
    """The containers of one run, one at a time. `write` gets the output's lines."""

    def __init__(
        self, spec: EngineSpec, name: str, folder: Path, write: Callable[[str], None]
    ) -> None:
        self.engine = Engine(spec)
        if not self.engine.local:
            raise InvalidInput(
                f"The Engine at {spec.url} is on another machine, whose folders are not here; a local run "
                "takes an Engine of this machine.",
                field="cluster",
            )
        self.name, self.folder, self.write = name, folder, write
        self.id = ""
        self._looked = (0.0, Run(Process.NONE))

    def start(self, image: str, told: dict[str, Any], resources: Resources, conf: Path) -> None:
        """Make and start the next one; the one before it is removed."""
        self.engine.remove(self.name)
        (self.folder / "listen.sock").unlink(missing_ok=True)
        self.alive()
        command = told["command"]
        command[0] = "python"
        command[command.index("-c") + 1] = f"{_CONFIGURATION}/{conf.name}"
        environment = {k: v for k, v in told["environment"].items() if k not in _OF_VENV}
        asked = Asked(
            name=self.name,
            image=image,
            labels={LABEL: self.name},
            entrypoint=(*command, "-b", f"unix:{INSIDE}/listen.sock"),
            user=f"{os.getuid()}:{os.getgid()}",
            environment={**environment, "SLIPWAY_SIGN_OF_LIFE": "1"},
            folder=told["cwd"],
            binds={
                str(self.folder): (str(INSIDE), True),
                str(self.folder / "revisions"): (str(INSIDE / "revisions"), False),
                str(conf.parent): (_CONFIGURATION, False),
            },
            tmpfs={"/tmp": "rw,nosuid,nodev,size=1g"},  # noqa: S108  inside the container
            network=NETWORK,
            cpu=resources.cpu,
            memory_gb_limit=resources.memory_gb_limit,
        )
        self.engine.ensure_network(NETWORK, {LABEL: "network"})
        self.id = self.engine.create(asked)
        self.engine.start(self.id)
        self._looked = (0.0, Run(Process.NONE))
        threading.Thread(target=self._follow, args=(self.id,), daemon=True).start()

    def alive(self) -> None:
        """The sign of life that the container looks for."""
        (self.folder / "alive").touch()

    def look(self) -> Run:
        """As `processes.look` says it. Raises Unavailable."""
        at, seen = self._looked
        if time.monotonic() - at < _LOOK:
            return seen
        self.alive()
        try:
            if self.engine.address(self.id).running:
                seen = Run(Process.RUNNING)
            else:
                ended = self.engine.end(self.id)
                seen = Run(
                    Process.ENDED, exit=Exit(ended.code, 0, ended.at, ended.error, ended.oom)
                )
        except NotFound:
            seen = Run(Process.VANISHED)
        self._looked = (time.monotonic(), seen)
        return seen

    def reload(self) -> None:
        self.engine.kill(self.id, "HUP")

    def end(self) -> None:
        """Remove it, whether it runs or not."""
        if self.id:
            self.engine.remove(self.id)
            self.id = ""

    def close(self) -> None:
        with contextlib.suppress(SlipwayError):
            self.end()
        self.engine.close()

    def _follow(self, container: str) -> None:
        rest = ""
        try:
            for _, _, text in self.engine.logs(container):
                rest += text
                if rest.endswith("\n"):
                    self.write(rest.rstrip("\n"))
                    rest = ""
        except (NotFound, Unavailable):
            return
