"""Values that the agent's tests are written in, and an environment with the real scoring server."""

import fcntl
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from uv import find_uv_bin

from deployments.types import EnvironmentSpec, FileSpec, ModelSpec, RevisionSpec

LOGS = Path(__file__).with_name("logs")


def a_revision(number: int = 1, **changes: object) -> RevisionSpec:
    plain = RevisionSpec(
        service="diabetes",
        number=number,
        source=FileSpec("source.zip", "a" * 64, 1),
        entry_script="score.py",
        models=(ModelSpec("ridge", 1, ()),),
        environment=EnvironmentSpec("e" * 64, "/environments/e"),
    )
    return replace(plain, **changes)


@pytest.fixture
def revision() -> RevisionSpec:
    return a_revision()


@pytest.fixture(scope="session")
def scoring_venv() -> Path:
    """SLIPWAY_TEST_SCORING_VENV, else one that is built once on this machine and kept."""
    given = os.environ.get("SLIPWAY_TEST_SCORING_VENV")
    if given:
        return Path(given)
    venv = Path(tempfile.gettempdir()) / f"slipway-tests-{os.getuid()}-scoring-1.5.1"
    venv.mkdir(mode=0o700, exist_ok=True)
    built = venv / ".built"
    # Beside the environment: uv locks a file `.lock` inside it by itself.
    with venv.with_name(f"{venv.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            uv = find_uv_bin()
            subprocess.run([uv, "venv", "--allow-existing", "-q", venv], check=True, timeout=60)
            subprocess.run(
                [
                    *(uv, "pip", "install", "-q", "--python", venv / "bin" / "python"),
                    "azureml-inference-server-http==1.5.1",
                ],
                check=True,
                timeout=180,
            )
            built.touch()
    return venv
