"""Process 1 of a router's pod, with a small script in the place of the loop."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from router.kube_source import member
from router.peers import Member

_LOOP = """
import pathlib, signal, sys, time
runs = pathlib.Path(sys.argv[1])
runs.open("a").write("run\\n")
if len(runs.read_text().splitlines()) == 1:
    sys.exit(3)
signal.signal(signal.SIGTERM, lambda *_: (runs.open("a").write("asked\\n"), sys.exit(0)))
runs.open("a").write("ready\\n")
time.sleep(60)
"""
_INIT = """
import sys
from router import pod_init
pod_init._AGAIN_SECONDS = 0.05
made = pod_init.Init([])
made.command = [sys.executable, "-c", sys.argv[1], sys.argv[2]]
sys.exit(made.main())
"""


def test_a_loop_that_dies_is_started_again_and_one_that_is_asked_to_end_is_not(
    tmp_path: Path,
) -> None:
    runs = tmp_path / "runs"
    process = subprocess.Popen(
        [sys.executable, "-c", _INIT, _LOOP, str(runs)], stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 20
    while not runs.exists() or "ready" not in runs.read_text():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert runs.read_text().split() == ["run", "run", "ready", "asked"]


def test_a_pod_is_seen_by_its_name_address_and_whether_it_goes() -> None:
    pod = {"metadata": {"name": "a"}, "status": {}}
    assert member(pod) == Member("a", "", ready=False)
    pod = {
        "metadata": {"name": "a", "deletionTimestamp": "2026-11-23T00:00:00Z"},
        "status": {"podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": "True"}]},
    }
    assert member(pod) == Member("a", "10.0.0.7", ready=True, leaving=True)
