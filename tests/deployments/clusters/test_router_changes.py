"""What administrators change of a router: rows, audit, the cluster's copy, and no secret anywhere."""

import json
from datetime import timedelta

import pytest

from deployments.audit.models import AuditEntry
from deployments.clusters import custom, router_changes, tls
from deployments.clusters.models import Cluster
from deployments.errors import InvalidInput, NotFound
from deployments.types import CustomLines
from tests.deployments.clusters.authority import NOW, Issued, issue

pytestmark = pytest.mark.django_db(transaction=True)

HOST = "score.example.com"


@pytest.fixture(scope="module")
def own() -> Issued:
    return issue(HOST, names=(HOST, "127.0.0.1"))


def set_tls(actor, cluster, issued, **more):
    given = {"cname": HOST, "chain": issued.pem, "key": issued.key_pem, "now": NOW, **more}
    return router_changes.set_tls(actor, cluster, **given)


def test_a_certificate_is_kept_sealed_and_reaches_the_cluster(administrator, cluster, fake, own):
    set_tls(administrator, cluster, own, cname=f" {HOST.upper()}. ", plain_http=True)
    cluster.refresh_from_db()
    assert cluster.tls_cname == HOST
    assert cluster.tls_not_after == own.certificate.not_valid_after_utc
    secret = own.key_pem.splitlines()[1]
    assert secret not in cluster.tls_key
    sent = fake.router_spec()
    assert (sent.generation, sent.tls.cname, sent.tls.plain_http) == (1, HOST, True)
    assert (sent.tls.chain, sent.tls.key) == (own.pem, own.key_pem)
    entry = AuditEntry.objects.get(action="cluster.tls.set")
    assert (entry.actor, entry.object_name) == (administrator, "local")
    assert entry.after["fingerprint"] == tls.certificate(own.pem).fingerprint
    assert "PRIVATE" not in json.dumps([entry.before, entry.after])


def test_what_is_wrong_with_it_changes_nothing(administrator, cluster, fake, own):
    with pytest.raises(InvalidInput) as caught:
        set_tls(administrator, cluster, own, cname="other.example.com")
    assert caught.value.field == tls.CNAME
    with pytest.raises(InvalidInput):
        set_tls(administrator, cluster, own, now=NOW + timedelta(days=366))
    cluster.refresh_from_db()
    assert (cluster.tls_chain, cluster.router_generation) == ("", 0)
    assert not AuditEntry.objects.exists()


def test_it_is_replaced_and_removed(administrator, cluster, fake, own):
    set_tls(administrator, cluster, own)
    fresh = issue(HOST, names=(HOST,))
    set_tls(administrator, cluster, fresh)
    assert fake.router_spec().tls.chain == fresh.pem
    router_changes.remove_tls(administrator, cluster)
    cluster.refresh_from_db()
    assert (cluster.tls_cname, cluster.tls_chain, cluster.tls_key) == ("", "", "")
    assert cluster.tls_not_after is None
    assert fake.router_spec().tls is None
    generation = cluster.router_generation
    router_changes.remove_tls(administrator, cluster)
    cluster.refresh_from_db()
    assert cluster.router_generation == generation == 3
    assert AuditEntry.objects.filter(action="cluster.tls.remove").count() == 1


def test_the_plain_port_follows_its_tick(administrator, cluster, fake, own):
    with pytest.raises(InvalidInput, match="only one"):
        router_changes.set_plain_http(administrator, cluster, True)
    set_tls(administrator, cluster, own)
    for plain, generation in ((True, 2), (True, 2), (False, 3)):
        router_changes.set_plain_http(administrator, cluster, plain)
        sent = fake.router_spec()
        assert (sent.tls.plain_http, sent.generation) == (plain, generation)


def test_lines_reach_the_cluster_and_only_their_number_the_audit(administrator, cluster, fake):
    lines = CustomLines(global_section=("log 10.0.0.1:514 local0",), frontend=("# a", "# b"))
    router_changes.set_custom_lines(administrator, cluster, lines)
    router_changes.set_custom_lines(administrator, cluster, lines)
    assert fake.router_spec().custom == lines
    cluster.refresh_from_db()
    assert router_changes.custom_lines_of(cluster) == lines
    [entry] = AuditEntry.objects.filter(action="cluster.custom_lines")
    assert entry.after == dict.fromkeys(custom.AREAS, 0) | {"global_section": 1, "frontend": 2}


def test_refused_lines_change_nothing(administrator, cluster, fake):
    with pytest.raises(InvalidInput) as caught:
        router_changes.set_custom_lines(administrator, cluster, CustomLines(defaults=("mode tcp",)))
    assert (caught.value.field, caught.value.message[:7]) == ("defaults", "Line 1:")
    cluster.refresh_from_db()
    assert cluster.router_generation == 0


def test_lines_of_another_version_are_none(cluster):
    cluster.custom_lines = {"defaults": "not a list"}
    assert router_changes.custom_lines_of(cluster) == CustomLines()


def test_a_cluster_that_was_detached_meanwhile_is_told(administrator, cluster, fake, own):
    Cluster.objects.all().delete()
    with pytest.raises(NotFound, match="detached"):
        set_tls(administrator, cluster, own)


@pytest.mark.parametrize(
    ("router_url", "cname", "port", "address"),
    [
        ("http://10.0.0.1:8080", "", 8443, "http://10.0.0.1:8080"),
        ("http://10.0.0.1:8080/", "", 443, "http://10.0.0.1:8080"),
        ("http://10.0.0.1:8080", HOST, 8443, f"https://{HOST}:8443"),
        ("http://10.0.0.1:8080", HOST, 443, f"https://{HOST}"),
        ("http://10.0.0.1:8080", "::1", 8443, "https://[::1]:8443"),
        (f"https://{HOST}", HOST, 8443, f"https://{HOST}"),
        (f"https://{HOST}:9443/", HOST, 8443, f"https://{HOST}:9443"),
        ("https://other.example.com", HOST, 8443, f"https://{HOST}:8443"),
    ],
)
def test_clients_are_sent_to_the_name_of_the_certificate(
    router_url, cname, port, address, settings
):
    settings.ENV = type("Env", (), {"router_tls_port": port})
    assert Cluster(router_url=router_url, tls_cname=cname).address == address


def test_the_cores_of_a_router_reach_it_with_its_purpose(administrator, cluster, fake):
    assert fake.router_spec().cores == 0
    router_changes.set_cores(administrator, cluster, 4)
    router_changes.set_cores(administrator, cluster, 4)
    sent = fake.router_spec()
    assert (sent.generation, sent.cores, sent.purpose) == (1, 4, "DevTest")
    [entry] = AuditEntry.objects.filter(action="cluster.router_cores")
    assert entry.after == {"cores": 4}
    router_changes.set_cores(administrator, cluster, None)
    assert fake.router_spec().cores == 0


@pytest.mark.parametrize("cores", [0, -1, 65])
def test_a_number_of_cores_that_no_router_has_is_refused(administrator, cluster, cores):
    with pytest.raises(InvalidInput) as caught:
        router_changes.set_cores(administrator, cluster, cores)
    assert caught.value.field == "cores"
