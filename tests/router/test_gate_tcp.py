"""The same exactness where replicas are pods: gates that listen on TCP, behind a router of pods.

Each replica has an address of its own (all of 127/8 is this machine's), and the ports that pods have.
"""

import itertools
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from router.haproxy.render import PeerConfig
from tests.deployments.agent.conftest import scoring_venv  # noqa: F401
from tests.ports import free_port
from tests.router import test_gate
from tests.router.conftest import Rig
from tests.router.test_gate import GatedReplica

# the same again takes long: with the proofs under fault
pytestmark = [pytest.mark.daemons, pytest.mark.faults]

_numbers = itertools.count(1)


class PodReplica(GatedReplica):
    """As it runs in a pod, but for the pod."""

    def __init__(self, folder: Path, venv: Path, *, gate: bool = True, **changes: object) -> None:
        self.host = f"127.{os.getpid() % 200 + 20}.{next(_numbers)}.1"
        super().__init__(folder, venv, gate=gate, **changes)
        self.address = f"{self.host}:5001"

    def spawn(self, told: dict[str, Any]) -> None:
        told["gate"] = {
            **told["gate"],
            "tcp": {"listen": f"{self.host}:5001", "health": f"{self.host}:5002"},
        }
        super().spawn(told)

    def well(self) -> bool:
        try:
            with socket.create_connection((self.host, 5002), timeout=5) as asked:
                asked.sendall(b"GET / HTTP/1.1\r\n\r\n")
                return asked.recv(100).startswith(b"HTTP/1.1 200 ")
        except OSError:
            return False


@pytest.fixture
def unix_rig(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """In place of the one for unix sockets: a router pod that is alone so far."""
    monkeypatch.setattr(test_gate, "GatedReplica", PodReplica)
    peers = PeerConfig("127.0.0.1", free_port(), str(rig.place.home.run / "peer.sock"), "secret")
    rig.settings = replace(rig.settings, peers=peers)
    yield rig


test_concurrency_is_exact_by_tcp = (
    test_gate.test_concurrency_is_exact_and_nobody_idles_whatever_was_given_up
)
test_with_one_pod_a_request_waits_as_long_as_it_may = (
    test_gate.test_with_one_replica_a_request_waits_as_long_as_it_may
)
test_a_pod_that_dies_takes_nobody_elses_request_with_it = (
    test_gate.test_a_dead_replica_takes_nobody_elses_request_with_it
)
