"""Attach, refresh and detach clusters."""

import pytest

from deployments.audit.models import AuditEntry
from deployments.clusters import changes
from deployments.clusters.catalogue import DEFAULT, THIS_MACHINE, ensure_skus
from deployments.clusters.models import Cluster, Sku
from deployments.errors import Conflict, InvalidInput
from deployments.types import NodeCapacity

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def skus() -> None:
    ensure_skus()


def attach(actor=None, **values) -> Cluster:
    given = {
        "name": "local",
        "sku": Sku.objects.get(name=THIS_MACHINE),
        "router_url": "http://127.0.0.1:8080/",
    }
    return changes.attach(actor, **{**given, **values})


def test_sizes_come_once_and_keep_what_an_administrator_changed():
    assert ensure_skus() == 0
    Sku.objects.filter(name=DEFAULT).update(vcpu=5)
    Sku.objects.filter(name="Standard_NP20s").delete()
    assert ensure_skus() == 1
    assert Sku.objects.get(name=DEFAULT).vcpu == 5
    fpga = Sku.objects.get(name="Standard_NP20s")
    assert (fpga.family, fpga.accelerators) == ("FPGA", 2)
    assert (Sku.objects.get(name=THIS_MACHINE).vcpu, fpga.vcpu) == (None, 20)
    assert set(Sku.objects.values_list("family", flat=True)) == {"CPU", "GPU", "FPGA"}


def test_attaching_looks_at_the_cluster_and_keeps_what_it_saw(administrator, fake):
    cluster = attach(administrator)
    cluster.refresh_from_db()
    assert cluster.checks[0] == {
        "name": "Folder is writable",
        "status": "pass",
        "evidence": "yes",
        "remedy": "",
    }
    assert changes.capacity_of(cluster).nodes == fake.nodes
    assert cluster.router_url == "http://127.0.0.1:8080"
    assert AuditEntry.objects.get(action="cluster.attach").actor == administrator


def test_a_second_attachment_is_refused(fake):
    attach()
    with pytest.raises(Conflict, match="attached already"):
        attach()
    assert Cluster.objects.count() == 1


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"kind": "mesos"}, "kind"),
        ({"name": "elsewhere"}, "name"),
        ({"purpose": "Nonsense"}, "purpose"),
        ({"router_url": ""}, "router_url"),
    ],
)
def test_what_cannot_be_attached_names_its_field(fake, values, field):
    with pytest.raises(InvalidInput) as caught:
        attach(**values)
    assert caught.value.field == field
    assert not Cluster.objects.exists()


def test_a_production_purpose_needs_azures_nodes(fake):
    with pytest.raises(InvalidInput, match="At least 3 machine") as caught:
        attach(purpose="FastProd")
    assert caught.value.field == "purpose"
    fake.nodes = tuple(NodeCapacity(f"n{i}", 4, 4, 14, 14) for i in range(3))
    assert attach(purpose="FastProd").purpose == "FastProd"


@pytest.mark.django_db(transaction=True)
def test_the_router_of_a_production_cluster_is_told_so(fake):
    fake.nodes = tuple(NodeCapacity(f"n{i}", 4, 4, 14, 14) for i in range(3))
    cluster = attach(purpose="DenseProd")
    cluster.refresh_from_db()
    assert (fake.router_spec().generation, cluster.router_generation) == (1, 1)
    assert fake.router_spec().purpose == "DenseProd"


def test_a_cluster_that_is_away_can_be_attached_and_its_capacity_stays_unknown(fake, monkeypatch):
    from deployments.errors import Unavailable

    def away():
        raise Unavailable("no answer")

    monkeypatch.setattr(fake, "capacity", away)
    monkeypatch.setattr(fake, "check", away)
    cluster = attach()
    assert cluster.capacity is None
    assert changes.capacity_of(cluster) is None
    assert cluster.checks[0]["status"] == "fail"
    monkeypatch.undo()


def test_refreshing_keeps_a_capacity_that_could_not_be_read_again(fake, monkeypatch):
    from deployments.errors import Unavailable

    cluster = attach()

    def away():
        raise Unavailable("no answer")

    monkeypatch.setattr(fake, "capacity", away)
    changes.refresh(cluster)
    cluster.refresh_from_db()
    assert changes.capacity_of(cluster).nodes == fake.nodes


def test_detaching_waits_for_the_services_to_go(administrator, fake, request_for, monkeypatch):
    from deployments.services import changes as services
    from deployments.services.models import Service

    monkeypatch.setattr(services, "enqueue_deployment", lambda pk: True)
    services.deploy(administrator, request_for())
    cluster = Cluster.objects.get()
    with pytest.raises(Conflict, match="diabetes"):
        changes.detach(administrator, cluster)
    Service.objects.all().delete()
    changes.detach(administrator, cluster)
    assert not Cluster.objects.exists()
    assert AuditEntry.objects.filter(action="cluster.detach", actor=administrator).exists()
