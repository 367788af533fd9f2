"""Several processes that need the same environment, some of them killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.daemons

CHECKOUT = Path(__file__).resolve().parents[3]
Start = Callable[..., "subprocess.Popen[str]"]


def builder(home: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.deployments.environments.builder", *arguments],
        cwd=CHECKOUT,
        env={
            **os.environ,
            "SLIPWAY_HOME": str(home),
            "DJANGO_SETTINGS_MODULE": "tests.deployments.environments.process_settings",
            "SLIPWAY_LOG_LEVEL": "ERROR",
        },
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose database has the tables and one environment."""
    home = tmp_path_factory.mktemp("prepared")
    finish(builder(home, "prepare", "0"))
    return home


@pytest.fixture
def start(prepared: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Starts a builder process; what still runs at the end is stopped by its own pid."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    running: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> "subprocess.Popen[str]":
        running.append(builder(tmp_path, *arguments))
        return running[-1]

    yield run
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finish(process: "subprocess.Popen[str]") -> dict[str, Any]:
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0
    return json.loads(output) if output else {}


def runs(home: Path) -> int:
    """How often the installer ran to its end."""
    path = home / "environments" / "runs"
    return len(path.read_text()) if path.exists() else 0


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def log_lines(home: Path) -> list[str]:
    found = list((home / "logs/environments").glob("*.jsonl"))
    return [json.loads(line)["text"] for path in found for line in path.read_text().splitlines()]


def test_two_that_need_the_same_new_hash_build_it_once_and_both_see_its_log(
    start: Start, tmp_path: Path
) -> None:
    outcomes = [finish(process) for process in [start("build", "2"), start("build", "2")]]
    assert outcomes[0]["location"] == outcomes[1]["location"]
    assert Path(outcomes[0]["location"], ".complete").exists()
    assert runs(tmp_path) == 1
    for outcome in outcomes:
        assert [line for line in outcome["lines"] if line.startswith("line ")] == [
            f"line {number}" for number in range(5)
        ]


def test_one_that_waits_gets_the_builders_failure_with_its_evidence(
    start: Start, tmp_path: Path
) -> None:
    outcomes = [finish(p) for p in [start("build", "2", "fail"), start("build", "2", "fail")]]
    assert runs(tmp_path) == 1
    for outcome in outcomes:
        assert outcome["error"] == "uv could not find scikit-lern==1.5: did you mean scikit-learn?"
        assert "from versions: none" in outcome["evidence"]
    assert not list((tmp_path / "environments").glob("*/*/bin"))
    assert log_lines(tmp_path).count("line 0") == 1


@pytest.mark.faults
def test_a_killed_builder_is_followed_by_the_next_and_leaves_nothing(
    start: Start, tmp_path: Path
) -> None:
    first = start("build", "60")
    wait_for(lambda: "line 0" in log_lines(tmp_path))
    (record,) = (tmp_path / "environments").glob("*/installer.json")
    orphan = psutil.Process(json.loads(record.read_text())["pid"])
    (half_made,) = (tmp_path / "environments").glob("*/*/bin")
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert orphan.is_running()
    outcome = finish(start("build", "0"))
    assert Path(outcome["location"], ".complete").exists()
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
    assert not half_made.exists()
    attempts = [path for path in (tmp_path / "environments").glob("*/*") if path.is_dir()]
    assert attempts == [Path(outcome["location"])]
    assert finish(start("show", "0"))["state"] == "ready"


@pytest.mark.faults
def test_one_that_waits_takes_over_from_a_builder_killed_meanwhile(
    start: Start, tmp_path: Path
) -> None:
    first = start("build", "60")
    wait_for(lambda: "line 0" in log_lines(tmp_path))
    second = start("build", "0")
    time.sleep(1.5)  # it waits by now; if it does not yet, the outcome is the same
    first.send_signal(signal.SIGKILL)
    first.wait()
    outcome = finish(second)
    assert Path(outcome["location"], ".complete").exists()
    assert runs(tmp_path) == 1
