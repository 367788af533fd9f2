"""The Kubernetes objects of a service as text, for people who keep them elsewhere. Only reads."""

from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from deployments.clusters.drivers import driver_for
from deployments.clusters.models import Cluster
from deployments.errors import SlipwayError
from deployments.services.specs import service_spec
from portal.access import requires
from portal.models import Role
from portal.views.services_shared import get_service


@requires(Role.VIEWER)
@require_GET
def objects(request: HttpRequest, name: str) -> HttpResponse:
    """YAML of what the service's present revisions make, as kubectl takes it; no secret is in it."""
    service = get_service(name)
    if service.cluster.kind != Cluster.Kind.KUBERNETES:
        raise Http404(f"{service.cluster} is no Kubernetes cluster; its services have no objects.")
    # the client is slow to import, and most processes never need it
    from deployments.drivers.kubernetes import KubernetesDriver

    try:
        driver = driver_for(service.cluster)
        if not isinstance(driver, KubernetesDriver):
            raise Http404(f"{service.cluster} is driven otherwise.")
        text = driver.to_yaml(service_spec(service))
    except SlipwayError as error:
        return HttpResponse(f"{error.message}\n", status=409, content_type="text/plain")
    head = {"Content-Disposition": f'inline; filename="{service.name}.yaml"'}
    return HttpResponse(text, content_type="text/plain; charset=utf-8", headers=head)
