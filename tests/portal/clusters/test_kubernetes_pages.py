"""Attaching a Kubernetes cluster: the form, the try that is watched, the cluster's page, detaching.

No cluster is there; what is asked of one is `tests/kubernetes`'.
"""

from dataclasses import replace
from typing import Any

import pytest
import yaml
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from deployments import sealed
from deployments.audit.models import AuditEntry
from deployments.clusters import attaching, changes, detaching, drivers, kubes, rechecks
from deployments.clusters.catalogue import ensure_skus
from deployments.clusters.models import Attachment, Cluster, Sku
from deployments.codec import to_json
from deployments.drivers.kubernetes_belongings import Belonging
from deployments.drivers.kubernetes_network import Network
from deployments.errors import Unavailable
from deployments.kube import access
from deployments.services.models import Service
from deployments.types import Check, CheckStatus, KubeSpec
from portal.forms.kubernetes import KEPT
from portal.models import User

SECRET = "a-token-nobody-may-see"


def kubeconfig(*contexts: str, **user: Any) -> str:
    names = contexts or ("one",)
    return yaml.safe_dump(
        {
            "kind": "Config",
            "current-context": names[0] if len(names) == 1 else "",
            "contexts": [{"name": n, "context": {"cluster": n, "user": n}} for n in names],
            "clusters": [
                {"name": n, "cluster": {"server": f"https://{n}.invalid:6443"}} for n in names
            ],
            "users": [{"name": n, "user": user or {"token": SECRET}} for n in names],
        }
    )


@pytest.fixture(autouse=True)
def kinds(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_skus()
    known = ("process", "docker", "kubernetes")
    monkeypatch.setattr(drivers, "available_kinds", lambda: known)
    monkeypatch.setattr(changes, "available_kinds", lambda: known)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What would be done in a thread of its own."""
    found: list[tuple[Any, ...]] = []
    monkeypatch.setattr(attaching, "apart", lambda name, do, *rest: found.append((do, *rest)))
    return found


@pytest.fixture
def page(administrator: User) -> Client:
    client = Client()
    client.force_login(administrator)
    return client


def asked(**more: Any) -> dict[str, Any]:
    return {
        "name": "prod",
        "kind": "kubernetes",
        "purpose": "DevTest",
        "sku": "this machine",
        "router_url": "http://models.example:8080",
        "kubeconfig": kubeconfig(),
        "kube_namespace": "models",
        "kube_service_type": "NodePort",
        "kube_router_image": "registry.example/slipway/router:1",
        **more,
    }


@pytest.fixture
def cluster() -> Cluster:
    row = Cluster(
        name="prod",
        kind="kubernetes",
        sku=Sku.objects.get(name="this machine"),
        router_url="http://models.example:8080",
    )
    spec = KubeSpec("https://one.invalid:6443", token=SECRET)
    kubes.give(row, spec, kubes.Use("models"))
    row.checks = to_json([Check("API server answers", CheckStatus.PASS, "in 3 ms")])
    row.checked_at = timezone.now()
    row.kube_network = to_json(Network(("10.88.0.0/16",), "the nodes' own ranges", cni="Calico"))
    row.save()
    return row


def test_a_try_begins_and_is_shown_without_its_credentials(
    page: Client, begun: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        answer = page.post(reverse("cluster-attach"), asked())
    row = Attachment.objects.get()
    assert answer.url == reverse("cluster-attaching", args=[row.pk])
    assert begun[0][:2] == (attaching.run, row.pk)
    assert SECRET not in row.kube_spec + str(row.asked)
    assert kubes.unseal(row.kube_spec, "prod").token == SECRET
    text = page.get(answer.url).content.decode()
    assert "is being looked at" in text
    assert SECRET not in text
    assert not Cluster.objects.exists()


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ({"kube_service_type": "NodePort", "router_url": ""}, ""),
        ({"kube_service_type": "LoadBalancer", "router_url": "http://127.0.0.1:8080"}, ""),
        ({"kube_service_type": "LoadBalancer"}, "http://models.example:8080"),
        ({"kube_service_type": "ClusterIP", "router_url": ""}, None),
    ],
)
def test_an_address_is_given_or_learnt_and_never_this_machines(
    page: Client,
    begun: list[Any],
    settings: Any,
    django_capture_on_commit_callbacks: Any,
    sent: dict[str, Any],
    kept: str | None,
) -> None:
    settings.ENV = replace(settings.ENV, router_url="http://127.0.0.1:8080")
    with django_capture_on_commit_callbacks(execute=True):
        answer = page.post(reverse("cluster-attach"), asked(**sent))
    if kept is None:
        assert list(answer.context["form"].errors) == ["router_url"]
    else:
        assert answer.status_code == 302
        assert begun[0][2].router_url == kept


def test_pages_say_that_an_address_is_pending_then_the_learnt_one(
    cluster: Cluster, page: Client, begun: list[Any]
) -> None:
    url, detail = (reverse(f"cluster-{name}", args=["prod"]) for name in ("connection", "detail"))
    assert page.post(url, connection(router_url="")).status_code == 302
    Service.objects.create(name="diabetes", cluster=cluster)
    uses = [
        reverse(f"service-{name}", args=["diabetes"]) for name in ("overview", "consume", "test")
    ]
    for path in (detail, *uses[:2]):
        assert "pending: the cluster’s load balancer" in page.get(path).content.decode(), path
    assert "POST /api/v1/service/diabetes/score" in page.get(uses[2]).content.decode()
    assert "http://ROUTER/api/v1" in page.get(uses[1]).content.decode()
    Cluster.objects.update(kube_router_address="http://203.0.113.7")
    for path in (detail, *uses):
        text = page.get(path).content.decode()
        assert "http://203.0.113.7" in text and "pending:" not in text, path
    page.post(url, connection(router_url="", kube_service_type="NodePort"))
    assert Cluster.objects.get().kube_router_address == ""


def test_an_uploaded_kubeconfig_is_taken(page: Client, begun: list[Any]) -> None:
    file = SimpleUploadedFile("config", kubeconfig().encode())
    answer = page.post(reverse("cluster-attach"), asked(kubeconfig="", kubeconfig_file=file))
    assert answer.status_code == 302


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"kubeconfig": ""}, "kubeconfig"),
        ({"kubeconfig": "no: config: at all"}, "kubeconfig"),
        ({"kubeconfig": kubeconfig(exec={"command": "get-token"})}, "kubeconfig"),
        ({"kubeconfig": kubeconfig("one", "two")}, "kube_context"),
        ({"kube_context": "three"}, "kube_context"),
        ({"kube_namespace": "Models"}, "kube_namespace"),
        ({"kube_namespace": "kube-system"}, "kube_namespace"),
        ({"kube_namespace": ""}, "kube_namespace"),
        ({"kube_service_type": "ClusterIP", "kube_node_port": "30080"}, "kube_node_port"),
        ({"kube_pull_secret": "not a name"}, "kube_pull_secret"),
        ({"kube_router_image": "two words"}, "kube_router_image"),
        ({"kube_router_image": ""}, "kube_router_image"),
        ({"kube_blob_url": "portal.example"}, "kube_blob_url"),
        ({"name": "local"}, "name"),
    ],
)
def test_what_is_wrong_is_said_beside_its_field(
    page: Client, begun: list[Any], sent: dict[str, Any], field: str
) -> None:
    answer = page.post(reverse("cluster-attach"), asked(**sent))
    assert answer.status_code == 422
    assert answer.context["form"].errors[field]
    assert SECRET not in answer.content.decode()
    assert not Attachment.objects.exists()


def test_a_kubeconfigs_program_is_let_in_by_the_setting_alone(
    page: Client, begun: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        kubes, "parse", lambda text, context: access.parse(text, context, allow_programs=True)
    )
    program = kubeconfig(
        exec={"command": "get-token", "apiVersion": "client.authentication.k8s.io/v1"}
    )
    assert page.post(reverse("cluster-attach"), asked(kubeconfig=program)).status_code == 302


def test_a_page_that_comes_back_keeps_the_kubeconfig_sealed(page: Client, begun: list[Any]) -> None:
    answer = page.post(reverse("cluster-attach"), asked(kube_namespace="Models"))
    kept = answer.context["form"].data[KEPT]
    assert SECRET in sealed.unseal(kept, sealed.KUBECONFIGS, what="", remedy="")
    assert "A kubeconfig was given" in answer.content.decode()
    again = asked(kubeconfig="", kept_kubeconfig=kept)
    assert page.post(reverse("cluster-attach"), again).status_code == 302


def test_contexts_are_offered_after_a_look(page: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    found = kubes.Found(("two", "one"), "https://two.invalid", "", "1.30")
    monkeypatch.setattr(kubes, "look", lambda text, context: found)
    sent = asked(kubeconfig=kubeconfig("one", "two"), **{"look-kube": "1"})
    text = page.post(reverse("cluster-attach"), sent).content.decode()
    assert '<option value="two">two</option>' in text
    assert "Kubernetes 1.30" in text
    assert not Attachment.objects.exists()


def test_one_namespace_is_attached_once(page: Client, begun: list[Any], cluster: Cluster) -> None:
    answer = page.post(reverse("cluster-attach"), asked(name="second"))
    assert "is attached already, as prod" in " ".join(answer.context["form"].non_field_errors())
    other = asked(name="second", kube_namespace="elsewhere")
    assert page.post(reverse("cluster-attach"), other).status_code == 302


def test_a_refused_try_fills_the_form_in_again_with_the_reason_beside_its_field(
    page: Client, begun: list[Any]
) -> None:
    page.post(reverse("cluster-attach"), asked(purpose="FastProd"))
    row = Attachment.objects.get()
    progress = attaching._Progress(row)
    progress.take(
        iter([Check("nodes suit the purpose", CheckStatus.FAIL, "At least 3 machine(s)")])
    )
    progress.refuse_for(progress.failed())
    text = page.get(reverse("cluster-attaching", args=[row.pk])).content.decode()
    assert "is not attached, and nothing was left in it" in text
    answer = page.get(reverse("cluster-attach") + f"?again={row.pk}")
    form = answer.context["form"]
    assert "At least 3 machine(s)" in form.errors["purpose"][0]
    assert form.data["kube_namespace"] == "models"
    assert SECRET not in answer.content.decode()
    again = asked(kubeconfig="", kept_kubeconfig=form.data[KEPT])
    assert page.post(reverse("cluster-attach"), again).status_code == 302
    latest = Attachment.objects.order_by("-pk").first()
    assert kubes.unseal(latest.kube_spec, "prod").token == SECRET


def test_a_try_whose_process_is_gone_is_refused(page: Client, begun: list[Any]) -> None:
    page.post(reverse("cluster-attach"), asked())
    row = Attachment.objects.get()
    name, _, _ = row.claimed_by.partition(":")
    Attachment.objects.update(claimed_by=f"{name}:1:0.00")
    text = page.get(reverse("cluster-attaching-live", args=[row.pk])).content.decode()
    assert "was ended" in text


def test_attaching_is_an_administrators(deployer: User) -> None:
    client = Client()
    client.force_login(deployer)
    row = Attachment.objects.create(name="prod")
    for url in (
        reverse("cluster-attaching", args=[row.pk]),
        reverse("cluster-attaching-live", args=[row.pk]),
        reverse("cluster-role"),
    ):
        assert client.get(url).status_code == 403


def test_the_page_shows_the_network_and_what_must_be_reachable(
    cluster: Cluster, viewer: User
) -> None:
    client = Client()
    client.force_login(viewer)
    text = client.get(reverse("cluster-detail", args=["prod"])).content.decode()
    for part in ("10.88.0.0/16", "Calico", "one.invalid:6443", "What must be reachable", "models"):
        assert part in text
    assert SECRET not in text


def test_checking_again_goes_on_apart_and_is_said(
    cluster: Cluster, page: Client, begun: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    url = reverse("cluster-check", args=["prod"])
    with django_capture_on_commit_callbacks(execute=True):
        text = page.post(url, headers={"HX-Request": "true"}).content.decode()
    assert "each result is replaced as it comes" in text
    with django_capture_on_commit_callbacks(execute=True):
        page.post(url)
    assert len(begun) == 1  # one at a time
    assert begun[0] == (rechecks.look, cluster.pk, ())


def test_what_was_found_takes_the_place_of_what_was_known() -> None:
    known = [
        Check("API server answers", CheckStatus.PASS, "a"),
        Check("router starts", CheckStatus.PASS, "b"),
    ]
    fresh = [
        Check("a node pulls from r:5000", CheckStatus.FAIL, "c"),
        Check("API server answers", CheckStatus.FAIL, "d"),
    ]
    assert [check.evidence for check in rechecks.merged(known, fresh)] == ["d", "c", "b"]


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Jobs of detaching that a worker would do."""
    found: list[int] = []
    monkeypatch.setattr(detaching, "enqueue_detachment", found.append)
    return found


def test_detaching_lists_what_goes_and_is_watched_until_it_is_gone(
    cluster: Cluster,
    page: Client,
    queued: list[int],
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Any,
) -> None:
    objects = (
        Belonging("Deployment", "slipway-router", "/x", "models"),
        Belonging("Namespace", "models", "/y"),
    )
    seen: list[str] = []

    def remove(row: Cluster, watcher: Any = None) -> None:
        if watcher is not None:
            watcher.listed(objects)
            watcher.asked(objects[0])
            seen.append(page.get(address).content.decode())

    monkeypatch.setattr(attaching, "belongings", lambda row: objects)
    monkeypatch.setattr(attaching, "remove", remove)
    url = reverse("cluster-detach", args=["prod"])
    text = page.get(url).content.decode()
    assert "slipway-router" in text
    assert "Namespace" in text
    with django_capture_on_commit_callbacks(execute=True):
        answer = page.post(url)
    (pk,) = queued
    assert answer.url == reverse("cluster-detaching", args=[pk])
    address = reverse("cluster-detaching-live", args=[pk])
    assert page.get(url).url == answer.url  # who comes back watches it too
    assert "being detached" in page.get(answer.url).content.decode()
    about = page.get(reverse("cluster-detail", args=["prod"])).content.decode()
    assert "Nothing can be deployed to it." in about
    assert reverse("cluster-check", args=["prod"]) not in about
    assert "Detaching" in page.get(reverse("cluster-list")).content.decode()
    detaching.run(pk)
    assert "Removing Deployment slipway-router" in seen[0]
    assert "every 2s" in seen[0]
    assert not Cluster.objects.exists()
    text = page.get(address).content.decode()
    assert "prod is detached." in text
    assert "every 2s" not in text


def test_a_cluster_that_does_not_answer_stays_unless_it_is_gone_for_good(
    cluster: Cluster,
    page: Client,
    queued: list[int],
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Any,
) -> None:
    def away(row: Cluster, watcher: Any = None) -> Any:
        raise Unavailable("The API server cannot be reached.")

    monkeypatch.setattr(attaching, "belongings", away)
    monkeypatch.setattr(attaching, "remove", away)
    monkeypatch.setattr(detaching, "_TRY_FOR", -1.0)
    url = reverse("cluster-detach", args=["prod"])
    with django_capture_on_commit_callbacks(execute=True):
        watched = page.post(url).url
    detaching.run(queued.pop())
    text = page.get(watched).content.decode()
    assert "The API server cannot be reached. Nothing was removed; prod is still attached." in text
    assert Cluster.objects.get().state == Cluster.State.ATTACHED
    assert "gone for good" in page.get(url).content.decode()
    with django_capture_on_commit_callbacks(execute=True):
        page.post(url, {"leave_objects": "on"})
    detaching.run(queued.pop())
    assert not Cluster.objects.exists()
    assert AuditEntry.objects.get(action="cluster.detach").after == {"left": "its objects"}
    assert page.get(reverse("cluster-detaching", args=[10**6])).status_code == 404


@pytest.mark.parametrize(
    ("field", "value", "good"),
    [
        ("node_selector", {"pool": "gpu", "example.com/zone": "a"}, True),
        ("node_selector", {"bad key": "x"}, False),
        ("node_selector", {"pool": 3}, False),
        ("node_selector", ["pool"], False),
        ("tolerations", [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}], True),
        ("tolerations", [{"operator": "Exists"}], True),
        ("tolerations", [{"operator": "Equal"}], False),
        ("tolerations", [{"key": "gpu", "operator": "Exists", "value": "x"}], False),
        ("tolerations", [{"key": "gpu", "effect": "Never"}], False),
        ("tolerations", [{"key": "gpu", "seconds": 3}], False),
        ("tolerations", {"key": "gpu"}, False),
    ],
)
def test_where_replicas_go_is_checked_as_kubernetes_takes_it(
    field: str, value: Any, good: bool
) -> None:
    from django.core.exceptions import ValidationError

    sku = Sku(name="x", family="GPU", **{field: value})
    if good:
        sku.full_clean()
        return
    with pytest.raises(ValidationError) as caught:
        sku.full_clean()
    assert field in caught.value.message_dict


def test_a_size_tells_the_driver_where_replicas_go(cluster: Cluster) -> None:
    sku = Sku.objects.get(name="Standard_NP10s")
    sku.node_selector, sku.tolerations = {"pool": "fpga"}, [{"key": "fpga", "operator": "Exists"}]
    sku.save()
    cluster.sku = sku
    made = kubes.settings_of(cluster)
    assert made.accelerator == "amd.com/xilinx_u250"
    assert made.node_selector == {"pool": "fpga"}
    assert made.tolerations[0].key == "fpga"


def test_a_failed_deployment_has_the_checks_of_its_phase_run_once(
    cluster: Cluster, begun: list[Any], django_capture_on_commit_callbacks: Any, monkeypatch: Any
) -> None:
    from datetime import timedelta

    from deployments.environments.models import Environment
    from deployments.services.models import Deployment, DeploymentState, Revision, Service

    assert rechecks.after_failures(cluster) is False
    service = Service.objects.create(name="iris", cluster=cluster)
    environment = Environment.objects.create(name="plain", version=1)
    revision = Revision.objects.create(service=service, number=1, environment=environment)
    row = Deployment.objects.create(
        service=service, revision=revision, state=DeploymentState.FAILED, step="pulling"
    )
    Deployment.objects.filter(pk=row.pk).update(finished_at=timezone.now() - timedelta(hours=1))
    assert rechecks.after_failures(cluster) is False  # looked at since
    Deployment.objects.filter(pk=row.pk).update(finished_at=timezone.now())
    with django_capture_on_commit_callbacks(execute=True):
        assert rechecks.after_failures(cluster) is True
    assert begun[0][2] == ("a node pulls from {address}",)
    cluster.refresh_from_db()
    assert rechecks.after_failures(cluster) is False  # they run


# ---- changing how it is reached -------------------------------------------------------------------


def connection(**more: Any) -> dict[str, Any]:
    return {
        "router_url": "http://models.example:8080",
        "kube_service_type": "LoadBalancer",
        "kube_router_image": "registry.example/slipway/router:2",
        **more,
    }


def test_another_image_of_the_router_is_taken_and_checked(
    cluster: Cluster, page: Client, begun: list[Any], django_capture_on_commit_callbacks: Any
) -> None:
    url = reverse("cluster-connection", args=["prod"])
    assert SECRET not in page.get(url).content.decode()
    with django_capture_on_commit_callbacks(execute=True):
        assert page.post(url, connection()).status_code == 302
    cluster.refresh_from_db()
    assert cluster.kube_router_image == "registry.example/slipway/router:2"
    assert cluster.kube_service_type == "LoadBalancer"
    assert kubes.spec_of(cluster).token == SECRET
    assert begun[0][:2] == (rechecks.look, cluster.pk)
    entry = AuditEntry.objects.get(action="cluster.reconnect")
    assert entry.after["kube_router_image"] == "registry.example/slipway/router:2"
    assert SECRET not in str(entry.after)


def test_new_credentials_must_lead_to_what_is_attached(
    cluster: Cluster, page: Client, begun: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from deployments.drivers import kubernetes_belongings

    url = reverse("cluster-connection", args=["prod"])
    said = {"mark": "somebody else's"}
    monkeypatch.setattr(kubernetes_belongings, "marker", lambda kube, namespace: said)
    sent = connection(kubeconfig=kubeconfig(token="a-new-one"))
    answer = page.post(url, sent)
    assert "leads to another cluster" in answer.context["form"].errors["kubeconfig"][0]
    assert "a-new-one" not in answer.content.decode()
    said["mark"] = cluster.kube_mark
    assert page.post(url, sent).status_code == 302
    before = cluster.kube_mark
    cluster.refresh_from_db()
    assert kubes.spec_of(cluster).token == "a-new-one"
    assert cluster.kube_mark == before
    assert AuditEntry.objects.get(action="cluster.reconnect").after["credentials"] == "new"


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"router_url": "models"}, "router_url"),
        ({"kube_router_image": ""}, "kube_router_image"),
        ({"kubeconfig": "no"}, "kubeconfig"),
    ],
)
def test_a_change_that_is_wrong_changes_nothing(
    cluster: Cluster, page: Client, begun: list[Any], sent: dict[str, Any], field: str
) -> None:
    answer = page.post(reverse("cluster-connection", args=["prod"]), connection(**sent))
    assert answer.status_code == 422
    assert answer.context["form"].errors[field]
    assert begun == []


def test_tls_of_a_kubernetes_cluster_is_at_its_services_port(cluster: Cluster) -> None:
    cluster.tls_cname = "models.example"
    assert cluster.address == "https://models.example"
