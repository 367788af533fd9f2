"""The Versions tab: what runs beside each other, how requests are split, promoting and going back."""

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from deployments.errors import InvalidInput, SlipwayError
from deployments.services import versions
from deployments.services.models import Service
from deployments.services.traffic import MOST_VERSIONS
from portal.access import person, requires
from portal.forms.versions import TrafficForm, VersionNameForm
from portal.models import Role
from portal.version_view import VersionView, going_back, views
from portal.views.services_shared import get_service, page


def _table(service: Service) -> dict[str, Any]:
    found = views(service, timezone.now().timestamp())
    return {
        "service": service,
        "versions": found,
        "several": len(found) > 1,
        "busy": any(view.deploying for view in found),
        "going_back": going_back(view.row for view in found),
    }


def _form(found: list[VersionView], data: Any = None) -> TrafficForm:
    others = [view for view in found if not view.row.is_default]
    return TrafficForm(
        data,
        shares={view.name: view.given for view in others},
        locked={view.name for view in others if not view.may_have_traffic},
    )


def _page(
    request: HttpRequest, service: Service, form: TrafficForm | None = None, status: int = 200
) -> HttpResponse:
    context = _table(service)
    found = context["versions"]
    context |= {
        "form": form or _form(found),
        "default": next((view for view in found if view.row.is_default), None),
        "most": MOST_VERSIONS,
        "full": len(found) >= MOST_VERSIONS,
    }
    return render(
        request, "services/versions.html", page(service, "versions") | context, status=status
    )


@requires(Role.VIEWER)
@require_GET
def overview(request: HttpRequest, name: str) -> HttpResponse:
    return _page(request, get_service(name))


@requires(Role.VIEWER)
@require_GET
def table(request: HttpRequest, name: str) -> HttpResponse:
    return render(request, "services/_versions.html", _table(get_service(name)))


@requires(Role.DEPLOYER)
@require_POST
def traffic(request: HttpRequest, name: str) -> HttpResponse:
    service = get_service(name)
    form = _form(_table(service)["versions"], request.POST)
    if form.is_valid():
        try:
            versions.set_traffic(person(request), service, form.shares)
        except InvalidInput as error:
            form.add_problem(error.field, error.message)
        except SlipwayError as error:
            form.add_error(None, error.message)
        else:
            messages.success(request, "The shares are changed; the router follows within a second.")
            return redirect("service-versions", name)
    return _page(request, service, form, status=422)


def _act(request: HttpRequest, name: str, act: Callable[[Service, str], str]) -> HttpResponse:
    """One click on a version: what was done, or why not, is said on the page."""
    service = get_service(name)
    form = VersionNameForm(request.POST)
    if not form.is_valid():
        messages.error(request, "That is not the name of a version; nothing was changed.")
        return redirect("service-versions", name)
    try:
        messages.success(request, act(service, form.cleaned_data["version"]))
    except SlipwayError as error:
        messages.error(request, error.message)
    return redirect("service-versions", name)


@requires(Role.DEPLOYER)
@require_POST
def promote(request: HttpRequest, name: str) -> HttpResponse:
    def act(service: Service, version: str) -> str:
        versions.promote(person(request), service, version)
        return f"{version} is the default now and has all requests."

    return _act(request, name, act)


@requires(Role.DEPLOYER)
@require_POST
def undo(request: HttpRequest, name: str) -> HttpResponse:
    service = get_service(name)
    try:
        shares = versions.undo_promotion(person(request), service)
    except SlipwayError as error:
        messages.error(request, error.message)
    else:
        said = ", ".join(f"{version} {percent} %" for version, percent in shares.items() if percent)
        messages.success(request, f"As before the promotion: {said}.")
    return redirect("service-versions", name)


@requires(Role.DEPLOYER)
@require_POST
def control(request: HttpRequest, name: str) -> HttpResponse:
    def act(service: Service, version: str) -> str:
        versions.set_control(person(request), service, version)
        return f"{version} is the control; the others are treatments."

    return _act(request, name, act)


@requires(Role.DEPLOYER)
@require_POST
def delete(request: HttpRequest, name: str) -> HttpResponse:
    def act(service: Service, version: str) -> str:
        versions.delete_version(person(request), service, version)
        return f"{version} is deleted; its replicas finish what they have."

    return _act(request, name, act)
