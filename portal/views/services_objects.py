"""The Kubernetes objects of a service as text, for people who keep them elsewhere: of what is deployed, and
of what a filled-in form would deploy. Nothing here changes a cluster or keeps a row.
"""

from dataclasses import dataclass

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_POST

from deployments.clusters.drivers import driver_for
from deployments.clusters.models import Cluster
from deployments.errors import InvalidInput, PermanentError, SlipwayError
from deployments.services.foreseeing import foresee
from deployments.services.models import Service
from deployments.services.specs import service_spec
from deployments.types import ServiceSpec
from portal.access import person, requires
from portal.deploy_request import bound, complain, form_context, request_of, source_of
from portal.forms.deploy import DeployForm
from portal.models import Role
from portal.project_source import Kept
from portal.views.services_shared import get_service


@dataclass(frozen=True, slots=True)
class Preview:
    """What the page shows: the objects, and the images among them that are not built yet."""

    name: str
    cluster: str
    text: str
    unbuilt: tuple[str, ...]

    @property
    def count(self) -> int:
        return self.text.count("\nkind: ")


@requires(Role.VIEWER)
@require_GET
def objects(request: HttpRequest, name: str) -> HttpResponse:
    """YAML of what the service's present revisions make, as kubectl takes it; no secret is in it."""
    service = get_service(name)
    if service.cluster.kind != Cluster.Kind.KUBERNETES:
        raise Http404(f"{service.cluster} is no Kubernetes cluster; its services have no objects.")
    try:
        text = _text(service.cluster, service_spec(service))
    except SlipwayError as error:
        return HttpResponse(f"{error.message}\n", status=409, content_type="text/plain")
    head = {"Content-Disposition": f'inline; filename="{service.name}.yaml"'}
    return HttpResponse(text, content_type="text/plain; charset=utf-8", headers=head)


@requires(Role.DEPLOYER)
@require_POST
def preview(request: HttpRequest) -> HttpResponse:
    """The form as it was sent, with the objects it would make above it, or with what is wrong beside its
    fields. An uploaded project folder is kept for the form, as when it is filled in; nothing else is."""
    service = get_service(request.POST["service"]) if request.POST.get("service") else None
    form, kept = bound(request, service)
    shown = _preview(request, form, service, kept) if form.is_valid() else None
    context = form_context(form, service, kept, preview=shown, previewed=True)
    return render(request, "services/_form.html", context)


def _preview(
    request: HttpRequest, form: DeployForm, service: Service | None, kept: Kept | None
) -> Preview | None:
    """None with the reasons in the form."""
    cluster = service.cluster if service is not None else form.cleaned_data["cluster"]
    try:
        if cluster.kind != Cluster.Kind.KUBERNETES:
            raise InvalidInput(
                f"{cluster.name} is no Kubernetes cluster; nothing there is an object.",
                field="cluster",
            )
        source = source_of(form, kept)
        found = foresee(person(request), lambda: request_of(request, form, service, source))
        if not isinstance(found, list):
            # outside of the transaction: the API server is asked what it knows
            text = _text(cluster, found.spec)
            return Preview(found.spec.name, cluster.name, text, found.unbuilt)
    except InvalidInput as error:
        found = [error]
    except SlipwayError as error:
        form.add_error(None, error.message)
        return None
    for problem in found:
        complain(form, problem)
    return None


def _text(cluster: Cluster, spec: ServiceSpec) -> str:
    # the client is slow to import, and most processes never need it
    from deployments.drivers.kubernetes import KubernetesDriver

    driver = driver_for(cluster)
    if not isinstance(driver, KubernetesDriver):
        raise PermanentError(f"{cluster} is driven otherwise.")
    return driver.to_yaml(spec)
