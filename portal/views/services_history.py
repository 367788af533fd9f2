"""A service's history: revisions with what changed, deployments with how they ended, and going back."""

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from deployments.errors import SlipwayError
from deployments.services import changes, versions
from deployments.services.models import DEFAULT_VERSION, Deployment, Revision, Service
from portal.access import person, requires
from portal.forms.services import RollBackForm
from portal.models import Role
from portal.revision_diff import with_changes
from portal.timeline import total_seconds
from portal.views.services_shared import get_service, page

_A_PAGE = 20


@requires(Role.VIEWER)
@require_GET
def history(request: HttpRequest, name: str) -> HttpResponse:
    service = get_service(name)
    rows = (
        Revision.objects.filter(service=service)
        .select_related("environment", "created_by")
        .prefetch_related("model_links__model_version__model")
        .order_by("-number")
    )
    revisions = Paginator(rows, _A_PAGE).get_page(request.GET.get("page"))
    # one more than the page holds, so that its last revision has something to differ from
    start = revisions.start_index() - 1 if revisions.paginator.count else 0
    shown = with_changes(rows[start : start + _A_PAGE + 1])[:_A_PAGE]
    several = _say_where_they_serve(service, [revision for revision, _ in shown])
    deployments = list(
        Deployment.objects.filter(service=service)
        .select_related("revision", "created_by")
        .order_by("-created_at", "-pk")[:50]
    )
    now = timezone.now()
    context = {
        "revisions": revisions,
        "shown": shown,
        "several": several,
        "deployments": [
            (row, total_seconds(row, now), f"deployment:{row.pk}") for row in deployments
        ],
        "busy": any(not row.finished for row in deployments),
    }
    return render(request, "services/history.html", page(service, "history", **context))


def _say_where_they_serve(service: Service, revisions: list[Any]) -> bool:
    """Give each revision `serves_in` (names of versions), `into` (the version it goes to when it is
    deployed again; None where it serves there) and `goes_back`. Whether there are several versions."""
    found = versions.rows_of(service)
    by_name = {row.name: row for row in found}
    default = next((row for row in found if row.is_default), None)
    deployed = service.deployments.filter(revision__in=revisions).order_by("pk")
    last = dict(deployed.values_list("revision_id", "version"))
    for revision in revisions:
        into = by_name.get(last.get(revision.pk) or DEFAULT_VERSION, default)
        serving = into.current if into is not None else None
        revision.serves_in = [row.name for row in found if row.current_id == revision.pk]
        revision.into = into if serving is None or serving.pk != revision.pk else None
        revision.goes_back = serving is not None and revision.number < serving.number
    return len(found) > 1


@requires(Role.DEPLOYER)
@require_POST
def roll_back(request: HttpRequest, name: str) -> HttpResponse:
    service = get_service(name)
    form = RollBackForm(request.POST)
    revision = None
    if form.is_valid():
        revision = Revision.objects.filter(
            service=service, number=form.cleaned_data["revision"]
        ).first()
    if revision is None:
        messages.error(request, "That revision does not exist; nothing was changed.")
        return redirect("service-history", name)
    try:
        changes.roll_back(person(request), service, revision, form.cleaned_data["version"])
    except SlipwayError as error:
        messages.error(request, error.message)
        return redirect("service-history", name)
    messages.success(request, f"Going back to revision {revision.number}.")
    return redirect("service-overview", name)
