"""The programs of Docker clusters: made from rows, taken away with them, and what is left taken apart."""

import pytest
from django.conf import settings

from deployments.clusters.catalogue import ensure_skus
from deployments.clusters.models import Cluster, Sku
from deployments.drivers import engine_file
from deployments.drivers.engine_file import EngineFile
from deployments.errors import Unavailable
from deployments.types import EngineSpec
from portal import cluster_programs
from portal.supervision import included


@pytest.fixture
def docks(db):
    ensure_skus()
    settings.HOME.ensure()
    row = Cluster.objects.create(
        name="docks",
        kind="docker",
        sku=Sku.objects.get(name="this machine"),
        router_url="http://127.0.0.1:8082",
        router_port=8082,
        engine_url="unix:///none.sock",
    )
    yield row
    for path in included(settings.HOME.run).glob("*.conf"):
        path.unlink()
    root = settings.HOME.cluster("docks")
    if root.exists():
        for path in root.iterdir():
            path.unlink()
        root.rmdir()


def test_each_row_has_a_file_as_long_as_it_stands(docks):
    assert cluster_programs.write_files() is True
    assert cluster_programs.write_files() is False
    (path,) = included(settings.HOME.run).glob("*.conf")
    assert path.name == "docks.conf"
    for part in ("[program:agent-docks]", "[program:router-docks]", "'8082'", "'8083'"):
        assert part in path.read_text()
    Cluster.objects.filter(pk=docks.pk).update(router_port=8090)
    assert cluster_programs.write_files() is True
    assert "'8090'" in path.read_text()
    docks.delete()
    assert cluster_programs.write_files() is True
    assert not path.exists()


def test_a_round_writes_what_the_agent_goes_by(docks):
    cluster_programs.ClusterPrograms().follow()
    assert engine_file.read(settings.HOME.cluster("docks")).engine.url == "unix:///none.sock"


def test_what_was_detached_is_taken_apart_until_that_is_done(docks, monkeypatch, caplog):
    root = settings.HOME.cluster("docks")
    engine_file.write(root, EngineFile("id", EngineSpec("unix:///none.sock")))
    tries = []

    def dismantle(found):
        tries.append(found)
        raise Unavailable("The Engine is away.")

    monkeypatch.setattr(cluster_programs, "dismantle", dismantle)
    monkeypatch.setattr(cluster_programs, "call_command", lambda *_: None)
    programs = cluster_programs.ClusterPrograms()
    programs.follow()
    assert tries == []  # its row stands
    docks.delete()
    programs.follow()
    assert tries == []  # it may be being attached just now
    engine_file.mark_detached(root)
    programs.follow()
    programs.follow()
    assert tries == [root, root]
    assert caplog.text.count("The Engine is away.") == 1
