"""A Docker cluster's Engine: what addresses are taken, what reaches its agent, what is kept secret."""

import socket
import stat

import pytest
from django.conf import settings

from deployments import sealed
from deployments.clusters import changes, engines, ports
from deployments.clusters.catalogue import ensure_skus
from deployments.clusters.models import Cluster, Sku
from deployments.drivers import engine_file
from deployments.drivers.docker_checks import node
from deployments.engine.containers import About
from deployments.errors import Conflict, InvalidInput
from deployments.images.models import Registry
from deployments.types import EngineSpec, Resources

PEM = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"
KEY = "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----"
ABOUT = About(
    "here", "20.10.24", "1.41", 4.0, 8.0, "overlay2", "/d", ("runc",), False, "Linux", "2"
)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (EngineSpec(""), "engine_url"),
        (EngineSpec("http://127.0.0.1:2375"), "engine_url"),
        (EngineSpec("unix://docker.sock"), "engine_url"),
        (EngineSpec("unix:///a b"), "engine_url"),
        (EngineSpec("tcp://127.0.0.1"), "engine_url"),
        (EngineSpec("tcp://127.0.0.1:99999"), "engine_url"),
        (EngineSpec("tcp://user@127.0.0.1:2376"), "engine_url"),
        (EngineSpec("tcp://10.0.0.5:2376"), "engine_ca"),
        (EngineSpec("tcp://169.254.169.254:2376", PEM, PEM, KEY), "engine_url"),
        (EngineSpec("tcp://[::ffff:169.254.169.254]:2376", PEM, PEM, KEY), "engine_url"),
        (EngineSpec("tcp://[fe80::1]:2376", PEM, PEM, KEY), "engine_url"),
        (EngineSpec("tcp://[fd00:ec2::254]:2376", PEM, PEM, KEY), "engine_url"),
        (EngineSpec("tcp://0.0.0.0:2376", PEM, PEM, KEY), "engine_url"),
        (EngineSpec("tcp://224.0.0.1:2376", PEM, PEM, KEY), "engine_url"),
        (EngineSpec("unix:///docker.sock", PEM), "engine_ca"),
        (EngineSpec("tcp://127.0.0.1:2376", PEM, PEM), "engine_key"),
        (EngineSpec("tcp://127.0.0.1:2376", PEM, "x", KEY), "engine_cert"),
        (
            EngineSpec("tcp://127.0.0.1:2376", PEM, PEM, KEY.replace("PRIV", "ENCRYPTED PRIV")),
            "engine_key",
        ),
    ],
)
def test_what_is_no_engine_is_refused_beside_its_field(spec, field):
    with pytest.raises(InvalidInput) as refused:
        engines.checked(spec)
    assert refused.value.field == field


def test_what_is_taken_is_cleaned():
    assert engines.checked(EngineSpec(" unix:///d.sock ")).url == "unix:///d.sock"
    assert engines.checked(EngineSpec("tcp://127.0.0.1:2375/")).url == "tcp://127.0.0.1:2375"
    assert engines.checked(EngineSpec("tcp://127.0.0.1:2376", PEM, PEM, KEY)).key == KEY + "\n"


def test_an_engine_on_another_machine_is_taken_over_tls_also_inside():
    taken = engines.checked(EngineSpec("tcp://10.0.0.5:2376", PEM, PEM, KEY))
    assert (taken.local, taken.host) == (False, "10.0.0.5")


def test_a_name_is_judged_by_where_it_leads(monkeypatch):
    rows = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 0))]
    monkeypatch.setattr(engines.socket, "getaddrinfo", lambda *_, **__: rows)
    with pytest.raises(InvalidInput, match="no Engine is"):
        engines.checked(EngineSpec("tcp://metadata.example.com:2376", PEM, PEM, KEY))


def test_room_is_the_engines_less_what_replicas_ask_for_and_no_gpu_without_its_runtime():
    seen = node(ABOUT, True, (Resources(cpu=1.5, memory_gb=3.0, gpu=1),))
    assert (seen.cpu_free, seen.memory_gb_free, seen.gpu_total, seen.gpu_free) == (2.5, 5.0, 0, 0)


@pytest.fixture
def attached(db, monkeypatch, tmp_path):
    """Attaches with an Engine that is only said to be there."""
    ensure_skus()
    monkeypatch.setattr(engines, "look", lambda spec: None)
    monkeypatch.setattr(changes, "_look", lambda cluster: (None, []))

    def attach(name: str = "docks", **more):
        return changes.attach(
            None,
            **{
                "name": name,
                "kind": "docker",
                "sku": Sku.objects.get(name="this machine"),
                "router_url": "http://127.0.0.1:1",
                "engine": EngineSpec("tcp://127.0.0.1:2376", PEM, PEM, KEY),
                "router_port": ports.next_free(),
                **more,
            },
        )

    yield attach
    for root in settings.HOME.clusters.glob("docks*"):
        for path in sorted(root.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        root.rmdir()


def test_the_key_is_sealed_in_the_row_and_its_owners_alone_on_disk(attached):
    cluster = attached()
    assert KEY not in cluster.engine_key
    assert sealed.unseal(cluster.engine_key, sealed.ENGINE_KEYS, what="", remedy="") == KEY + "\n"
    path = engine_file.path_of(settings.HOME.cluster("docks"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert engine_file.read(path.parent).engine == engines.spec_of(cluster)


def test_registries_and_their_passwords_reach_the_agent_and_the_mark_stays(attached):
    cluster = attached()
    root = settings.HOME.cluster("docks")
    mark = engine_file.read(root).id
    Registry.objects.create(
        name="ours",
        address="registry.example.com",
        username="slipway",
        password=sealed.seal("secret", sealed.REGISTRY_PASSWORDS),
    )
    engines.write_file(cluster)
    file = engine_file.read(root)
    assert file.id == mark
    assert file.registries == ("registry.example.com",)
    assert file.logins["registry.example.com"].password == "secret"


def test_this_machines_own_name_is_not_a_docker_clusters(attached):
    with pytest.raises(InvalidInput) as refused:
        attached("local")
    assert refused.value.field == "name"


def test_each_router_has_a_pair_of_ports_of_its_own(attached):
    cluster = attached()
    assert cluster.tls_port == cluster.router_port + 1
    assert ports.next_free() not in (cluster.router_port, cluster.router_port + 1)
    for port in (cluster.router_port, cluster.router_port - 1, settings.ENV.port):
        with pytest.raises(InvalidInput):
            ports.check(port)


def test_a_port_that_another_program_has_is_refused(db):
    with socket.socket() as other:
        other.bind((settings.ENV.router_bind, 0))
        other.listen()
        with pytest.raises(InvalidInput, match="in use by another program"):
            ports.check(other.getsockname()[1])


def test_what_was_detached_is_marked_and_its_name_free_once_it_is_gone(
    attached, django_capture_on_commit_callbacks
):
    cluster = attached()
    root = settings.HOME.cluster("docks")
    assert not engine_file.is_abandoned(root, now=0.0, seconds=300.0)
    with django_capture_on_commit_callbacks(execute=True):
        changes.detach(None, cluster)
    assert engine_file.is_abandoned(root, now=0.0, seconds=300.0)
    assert not Cluster.objects.exists()
    with pytest.raises(Conflict, match="taken apart"):
        attached()


def test_an_attachment_that_fails_leaves_what_is_taken_apart(attached, monkeypatch):
    def broken(cluster):
        raise InvalidInput("no")

    monkeypatch.setattr(changes, "_look", broken)
    with pytest.raises(InvalidInput):
        attached()
    assert engine_file.is_abandoned(settings.HOME.cluster("docks"), now=0.0, seconds=300.0)


def test_a_key_is_not_shown_where_a_spec_is():
    assert "PRIVATE" not in repr(EngineSpec("tcp://10.0.0.5:2376", PEM, PEM, KEY))
