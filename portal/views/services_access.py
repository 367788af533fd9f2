"""Consuming a service and deciding who may: samples, keys, authentication, deletion.

A key is in an answer only after a click of a deployer, in a fragment that is not cached and hides itself.
"""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from deployments.errors import SlipwayError
from deployments.services import changes, keys, versions
from deployments.services.models import Service
from portal.access import person, requires
from portal.forms.services import AccessForm, DeleteForm, RegenerateForm
from portal.models import Role
from portal.samples import PIN_HEADER, curl, sample_body, samples
from portal.views.services_deploy import settings_page
from portal.views.services_shared import get_service, page
from portal.views.services_tokens import issue_form, listed


@requires(Role.VIEWER)
@require_GET
def consume(request: HttpRequest, name: str) -> HttpResponse:
    service = get_service(name)
    body = sample_body(service)
    shares = versions.shares(versions.rows_of(service))
    context = {
        "samples": samples(service, body),
        "shares": shares,
        "pinned": curl(service, body, next(reversed(shares), "")),
        "pin_header": PIN_HEADER,
        "issue_form": issue_form(person(request)),
        **listed(service),
    }
    return render(request, "services/consume.html", page(service, "consume", **context))


@requires(Role.VIEWER)
@require_GET
def keys_hidden(request: HttpRequest, name: str) -> HttpResponse:
    return render(request, "services/_keys.html", {"service": get_service(name)})


@requires(Role.DEPLOYER)
@require_POST
@never_cache
def reveal(request: HttpRequest, name: str) -> HttpResponse:
    service = get_service(name)
    context: dict[str, Any] = {"service": service}
    try:
        context["primary"], context["secondary"] = keys.reveal(person(request), service)
    except SlipwayError as error:
        context["problem"] = error.message
    return render(request, "services/_keys.html", context)


@requires(Role.DEPLOYER)
@require_POST
def regenerate(request: HttpRequest, name: str) -> HttpResponse:
    service = get_service(name)
    form = RegenerateForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Say which key: primary or secondary. Nothing was changed.")
        return redirect("service-consume", name)
    which = form.cleaned_data["which"]
    try:
        keys.regenerate(person(request), service, which)
    except SlipwayError as error:
        messages.error(request, error.message)
    else:
        messages.success(
            request,
            f"The {which} key is a new one. The old one stops working within a second.",
        )
    return redirect("service-consume", name)


@requires(Role.DEPLOYER)
@require_POST
def update(request: HttpRequest, name: str) -> HttpResponse:
    service = get_service(name)
    form = AccessForm(request.POST)
    if form.is_valid():
        try:
            changes.update_access(
                person(request),
                service,
                auth_enabled=form.cleaned_data["auth_enabled"],
                token_auth_enabled=form.cleaned_data["token_auth_enabled"],
                cors_origins=tuple(form.cleaned_data["cors_origins"]),
            )
        except SlipwayError as error:
            _complain(form, error)
        else:
            messages.success(request, "Access is changed; the router follows within a second.")
            return redirect("service-settings", name)
    return settings_page(request, service, access=form, status=422)


@requires(Role.DEPLOYER)
@require_POST
def delete(request: HttpRequest, name: str) -> HttpResponse:
    service: Service = get_service(name)
    form = DeleteForm(request.POST, service=service)
    if form.is_valid():
        try:
            changes.delete_service(person(request), service)
        except SlipwayError as error:
            form.add_error(None, error.message)
        else:
            messages.success(
                request,
                f"{name} is being deleted: its replicas finish what they have, then it goes.",
            )
            return redirect("service-list")
    return settings_page(request, service, deletion=form, status=422)


def _complain(form: Any, error: SlipwayError) -> None:
    field = getattr(error, "field", "")
    form.add_error(field if field in form.fields else None, error.message)
