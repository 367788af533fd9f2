"""What every page of one service needs: the service with its cluster, or a 404."""

from typing import Any

from django.http import Http404

from deployments.services.models import Service


def get_service(name: str) -> Service:
    """The service with its cluster and current revision loaded."""
    try:
        return Service.objects.select_related("cluster", "current").get(name=name)
    except Service.DoesNotExist as error:
        raise Http404(f"There is no service named {name}; it may have been deleted.") from error


def page(of: Service, tab: str, **context: Any) -> dict[str, Any]:
    """The context of a page that extends `services/service_base.html`."""
    return {**context, "service": of, "active_tab": tab}
