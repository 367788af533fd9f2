"""Values that the agent's tests are written in."""

from dataclasses import replace
from pathlib import Path

import pytest

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
