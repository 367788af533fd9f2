"""Clusters: the list, attaching, one cluster with its room, services and checks, detaching."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from deployments.clusters import attaching, changes, drivers, engines, kubes, ports, rechecks
from deployments.clusters.models import Cluster
from deployments.errors import InvalidInput, SlipwayError
from portal import cluster_programs
from portal.access import person, requires
from portal.cluster_view import checks_of, cluster_state, health, nodes_of, tally, totals
from portal.forms.clusters import KIND_NOTES, AttachForm, this_machine, without_key
from portal.forms.kubernetes import without_kubeconfig
from portal.models import Role
from portal.router_view import tls_view
from portal.views.clusters_attaching import form_again
from portal.views.clusters_detaching import detachment_of
from portal.views.clusters_kubernetes import kubernetes_context
from portal.views.clusters_router import router_context
from portal.views.clusters_signing import signing_context
from portal.views.packages import refusing_context

_FRESH = 30  # seconds; the controller reads each second, so this much silence is news


def _get(name: str) -> Cluster:
    try:
        return Cluster.objects.select_related("sku", "created_by").get(name=name)
    except Cluster.DoesNotExist as error:
        raise Http404(f"There is no cluster named {name}; it may have been detached.") from error


def _router_state(cluster: Cluster) -> str:
    """connected, late or unknown: how long ago the controller last read the router."""
    if cluster.router_seen_at is None:
        return "unknown"
    silent = (timezone.now() - cluster.router_seen_at).total_seconds()
    return "connected" if silent <= _FRESH else "late"


@requires(Role.VIEWER)
@require_GET
def cluster_list(request: HttpRequest) -> HttpResponse:
    clusters = Cluster.objects.select_related("sku").annotate(service_count=Count("services"))
    rows = [
        {
            "cluster": cluster,
            "health": health(cluster),
            "tally": tally(cluster),
            "router": _router_state(cluster),
            "totals": totals(cluster),
            "tls": tls_view(cluster, timezone.now()),
        }
        for cluster in clusters.order_by("name")
    ]
    return render(request, "clusters/list.html", {"rows": rows})


@sensitive_post_parameters("kubeconfig", "kept_kubeconfig", "engine_key", "kept_key")
@requires(Role.ADMINISTRATOR)
@never_cache
@require_http_methods(["GET", "POST"])
def attach(request: HttpRequest) -> HttpResponse:
    kinds = drivers.available_kinds()
    found: engines.Found | None = None
    found_kube: kubes.Found | None = None
    if request.method == "POST":
        data = without_key(request.POST)
        wrong_file = without_kubeconfig(data, request.FILES)
        form = AttachForm(data, kinds=kinds, wrong_file=wrong_file)
        valid = form.is_valid()
        try:
            if "look-kube" in request.POST:
                form.errors.clear()  # only the API server was asked about
                found_kube = form.found()
            elif valid and form.cleaned_data["kind"] == Cluster.Kind.KUBERNETES.value:
                attachment = changes.attach_kubernetes(person(request), **form.kubernetes())
                return redirect("cluster-attaching", attachment.pk)
            elif "look" in request.POST:
                found = engines.look(engines.checked(form.engine()))
                form.errors.clear()  # only the Engine was asked about
            elif valid:
                cluster = changes.attach(person(request), **form.values())
                cluster_programs.follow_now()
                messages.success(request, f"{cluster.name} is attached.")
                return redirect(cluster)
        except SlipwayError as error:
            field = error.field if isinstance(error, InvalidInput) else ""
            form.add_error(field if field in form.fields else None, error.message)
    elif again := form_again(request.GET.get("again", "")):
        form = again
    else:
        taken = Cluster.objects.filter(name=changes.PROCESS_CLUSTER).exists()
        form = AttachForm(
            kinds=kinds,
            initial={
                "name": "" if taken else changes.PROCESS_CLUSTER,
                "kind": Cluster.Kind.DOCKER.value if taken else kinds[0],
                "router_url": "" if taken else this_machine(),
                "sku": "this machine",
                "engine_url": settings.ENV.docker_host,
                "router_port": ports.next_free(),
            },
        )
    later = [
        Cluster.Kind(kind).label
        for kind in Cluster.Kind.values
        if kind in KIND_NOTES and kind not in kinds
    ]
    status = 422 if form.errors and request.method == "POST" else 200
    return render(
        request,
        "clusters/attach.html",
        {"form": form, "later": later, "found": found, "found_kube": found_kube},
        status=status,
    )


def _detail(cluster: Cluster) -> dict[str, Any]:
    services = cluster.services.select_related("current").order_by("name")
    return {
        "cluster": cluster,
        "nodes": nodes_of(cluster),
        "totals": totals(cluster),
        "checks": checks_of(cluster),
        "state": cluster_state(cluster, timezone.now()),
        "detachment": detachment_of(cluster),
        "tally": tally(cluster),
        "router": _router_state(cluster),
        "services": services,
        **router_context(cluster),
        **kubernetes_context(cluster, timezone.now()),
    }


@requires(Role.VIEWER)
@require_GET
def detail(request: HttpRequest, name: str) -> HttpResponse:
    cluster = _get(name)
    context = _detail(cluster) | signing_context(cluster) | refusing_context(cluster)
    return render(request, "clusters/detail.html", context)


@requires(Role.VIEWER)
@require_GET
def live(request: HttpRequest, name: str) -> HttpResponse:
    return render(request, "clusters/_detail.html", _detail(_get(name)))


@requires(Role.DEPLOYER)
@require_POST
def check(request: HttpRequest, name: str) -> HttpResponse:
    cluster = _get(name)
    try:
        if cluster.kind == Cluster.Kind.KUBERNETES:
            rechecks.look_again(cluster)
            cluster.refresh_from_db()
        else:
            changes.refresh(cluster)
    except SlipwayError as error:
        messages.error(request, error.message)
        return redirect(cluster)
    if request.headers.get("HX-Request"):
        return render(request, "clusters/_detail.html", _detail(cluster))
    return redirect(cluster)


@requires(Role.ADMINISTRATOR)
@require_http_methods(["GET", "POST"])
def detach(request: HttpRequest, name: str) -> HttpResponse:
    """What a cluster has on its Engine, or in its namespace, is listed before it is given up."""
    cluster = _get(name)
    if request.method == "GET":
        if running := detachment_of(cluster, running=True):
            return redirect("cluster-detaching", running.pk)
        return render(request, "clusters/detach.html", {"cluster": cluster, **_belongings(cluster)})
    try:
        begun = changes.detach(
            person(request), cluster, leave_objects=request.POST.get("leave_objects") == "on"
        )
    except SlipwayError as error:
        messages.error(request, error.message)
        return redirect("cluster-detail", name)
    if begun is not None:
        return redirect("cluster-detaching", begun.pk)
    cluster_programs.follow_now()
    messages.success(request, f"{name} is detached.")
    return redirect("cluster-list")


def _belongings(cluster: Cluster) -> dict[str, Any]:
    """What detaching removes from the Engine or the namespace, and why that is unknown where it is."""
    if cluster.kind == Cluster.Kind.KUBERNETES:
        try:
            return {"objects": attaching.belongings(cluster)}
        except SlipwayError as error:
            return {"unknown": error.message}
    if cluster.kind != Cluster.Kind.DOCKER:
        return {}
    from deployments.agent import dismantling  # with the client library, which is slow to import

    try:
        return {"belongings": dismantling.belongings(settings.HOME.cluster(cluster.name))}
    except SlipwayError as error:
        return {"unknown": error.message}
