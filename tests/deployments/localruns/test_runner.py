"""A real runner: edits, broken scripts, ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployments.agent.conftest import scoring_venv
from tests.docker.engines import ensure_image

__all__ = ["scoring_venv"]
CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.mark.daemons
def test_a_local_run_loads_edits_outlives_broken_ones_and_leaves_nothing(
    scoring_venv: Path, tmp_path: Path
) -> None:
    play("scenario", str(scoring_venv), tmp_path / "home")


@pytest.mark.docker
def test_a_docker_clusters_image_is_run_edited_and_removed(tmp_path: Path) -> None:
    play("docker_scenario", ensure_image(), tmp_path / "home")


def play(scenario: str, argument: str, home: Path) -> None:
    environ = {
        **os.environ,
        "SLIPWAY_HOME": str(home),
        "DJANGO_SETTINGS_MODULE": "tests.e2e.process_settings",
        "PYTHONPATH": str(CHECKOUT),
    }
    done = subprocess.run(
        [sys.executable, "-m", f"tests.deployments.localruns.{scenario}", argument],
        cwd=CHECKOUT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=200,
    )
    logs = [*home.glob("logs/*/*")]
    told = "\n".join(f"== {path}\n{path.read_text()[-3000:]}" for path in logs)
    assert done.returncode == 0, f"{done.stderr[-3000:]}\n{told}"
