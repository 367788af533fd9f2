"""Watching a Kubernetes cluster being attached: its checks as they finish, and what came of it."""

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET

from deployments.clusters import attaching, drivers, kubes
from deployments.clusters.models import Attachment, Cluster
from deployments.codec import from_json
from deployments.drivers import kubernetes_checks
from deployments.types import Check
from portal.access import requires
from portal.forms.clusters import AttachForm
from portal.forms.kubernetes import KEPT
from portal.models import Role


def _get(pk: int) -> Attachment:
    attaching.settle(timezone.now())
    try:
        return Attachment.objects.select_related("created_by").get(pk=pk)
    except Attachment.DoesNotExist as error:
        raise Http404("There is no such try to attach a cluster; it may be long ago.") from error


def _context(attachment: Attachment) -> dict[str, Any]:
    running = attachment.state == Attachment.State.RUNNING
    return {
        "attachment": attachment,
        "asked": attachment.asked,
        "checks": [from_json(Check, item) for item in attachment.checks],
        "running": running,
        "attached": attachment.state == Attachment.State.ATTACHED
        and Cluster.objects.filter(name=attachment.name).exists(),
    }


@requires(Role.ADMINISTRATOR)
@require_GET
def page(request: HttpRequest, pk: int) -> HttpResponse:
    return render(request, "clusters/attaching.html", _context(_get(pk)))


@requires(Role.ADMINISTRATOR)
@require_GET
def live(request: HttpRequest, pk: int) -> HttpResponse:
    return render(request, "clusters/_attaching.html", _context(_get(pk)))


@requires(Role.ADMINISTRATOR)
@require_GET
def role(request: HttpRequest) -> HttpResponse:
    """The Role and ClusterRole that a service account for Slipway needs, to be given to kubectl apply."""
    namespace = request.GET.get("namespace", "slipway")
    if not kubes.is_namespace(namespace):
        namespace = "slipway"
    return HttpResponse(
        kubernetes_checks.role_yaml(namespace), content_type="text/plain; charset=utf-8"
    )


def form_again(pk: str) -> AttachForm | None:
    """The form as it was filled in for a try that was refused, with what was wrong beside its field; None
    where there is no such try."""
    kinds = drivers.available_kinds()
    refused = Attachment.objects.filter(state=Attachment.State.REFUSED)
    row = refused.filter(pk=pk).first() if pk.isdecimal() else None
    if row is None:
        return None
    data = QueryDict(mutable=True)
    for name, text in row.asked.items():
        data[name] = str(text)
    spec = kubes.unseal(row.kube_spec, row.name)
    if not spec.in_cluster:
        data[KEPT] = kubes.sealed_kubeconfig(spec)
        data.pop("kube_context", None)
    form = AttachForm(data, kinds=kinds)
    form.is_valid()
    form.add_error(row.field if row.field in form.fields else None, row.problem)
    return form
