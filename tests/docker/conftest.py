"""Docker clusters of the tests: what they leave on the Engine is looked at when they end."""

from collections.abc import Iterator

import pytest

from deployments.agent.dismantling import dismantle
from tests.docker.cluster import DockerCluster
from tests.docker.engines import belongings, ensure_image


@pytest.fixture
def cluster(tmp_path) -> Iterator[DockerCluster]:
    ensure_image()
    before = belongings()
    made = DockerCluster(tmp_path / "home")
    made.start()
    yield made
    made.stop()
    dismantle(made.root)
    after = belongings()
    assert not made.root.exists()
    # others may use this Engine too: nothing of this cluster may be among what is new
    assert made.containers() == []
    assert after["volumes"] - before["volumes"] == set()
