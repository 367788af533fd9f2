"""What a Kubernetes cluster's page shows beside what every cluster's does: its network, the hosts and ports
that must be reachable, and whether its checks run now."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from deployments.clusters import kubes, reconnecting
from deployments.clusters.models import Cluster
from deployments.codec import from_json
from deployments.drivers import kubernetes_network, kubernetes_router
from deployments.drivers.kubernetes_network import Network, Way
from deployments.errors import InvalidInput, SlipwayError
from deployments.images.models import Registry
from deployments.types import Check
from portal.access import person, requires
from portal.cluster_view import checks_of
from portal.forms.clusters import ConnectionForm
from portal.forms.kubernetes import KEPT, without_kubeconfig
from portal.models import Role

_KEPT_FIELDS = frozenset(
    {
        "kube_service_type",
        "kube_node_port",
        "kube_pull_secret",
        "kube_router_image",
        "kube_blob_url",
        "router_url",
    }
)
_CUT_OFF = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class WayView:
    """One line of the table; `state` is the latest check of it, "" where none tries it."""

    way: Way
    state: str


def network_of(cluster: Cluster) -> Network | None:
    """What was found; None is unknown, also when another version of the product wrote it."""
    if not cluster.kube_network:
        return None
    try:
        return from_json(Network, cluster.kube_network)
    except (ValueError, TypeError, KeyError):
        return None


def _ways(cluster: Cluster, network: Network | None, checks: list[Check]) -> list[WayView]:
    states = {check.name: check.status.value for check in checks}
    registries = Registry.objects.exclude(role=Registry.Role.BASE).values_list("address", flat=True)
    found = kubernetes_network.ways(
        network,
        kubes.settings_of(cluster),
        cluster.kube_server,
        list(registries),
        router_ports=(80, 443),
        peer_port=kubernetes_router.PEER_PORT,
    )
    return [WayView(way, states.get(way.check, "")) for way in found]


@sensitive_post_parameters("kubeconfig", KEPT)
@requires(Role.ADMINISTRATOR)
@never_cache
@require_http_methods(["GET", "POST"])
def connection(request: HttpRequest, name: str) -> HttpResponse:
    """New credentials, and how the cluster is used; its credentials are not shown."""
    clusters = Cluster.objects.select_related("sku")
    cluster = clusters.filter(name=name, kind=Cluster.Kind.KUBERNETES).first()
    if cluster is None:
        raise Http404(f"There is no Kubernetes cluster named {name}.")
    if request.method == "POST":
        data = request.POST.copy()
        wrong_file = without_kubeconfig(data, request.FILES)
        form = ConnectionForm(data, wrong_file=wrong_file, namespace=cluster.kube_namespace)
        if form.is_valid() and form.wanted is not None:
            try:
                reconnecting.reconnect(
                    person(request),
                    cluster,
                    form.wanted,
                    router_url=form.cleaned_data["router_url"],
                    spec=form.spec,
                )
            except SlipwayError as error:
                field = error.field if isinstance(error, InvalidInput) else ""
                form.add_error(field if field in form.fields else None, error.message)
            else:
                messages.success(request, f"{name} is changed; its checks run.")
                return redirect(cluster)
    else:
        initial = {field: getattr(cluster, field) for field in _KEPT_FIELDS}
        form = ConnectionForm(initial=initial, namespace=cluster.kube_namespace)
    status = 422 if form.errors else 200
    context = {"cluster": cluster, "form": form}
    return render(request, "clusters/connection.html", context, status=status)


def kubernetes_context(cluster: Cluster, now: datetime) -> dict[str, Any]:
    """Nothing for other kinds."""
    if cluster.kind != Cluster.Kind.KUBERNETES:
        return {}
    network = network_of(cluster)
    checking = cluster.checking_at is not None and cluster.checking_at > now - _CUT_OFF
    return {
        "kubernetes": True,
        "network": network,
        "ways": _ways(cluster, network, checks_of(cluster)),
        "checking": checking,
    }
