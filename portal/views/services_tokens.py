"""A service's tokens: issued, shown once, listed, revoked.

A token is in exactly one answer, the one to the click that issued it, which is not cached. Nothing
could show it a second time: its row holds its id alone.
"""

import shlex
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from deployments.errors import InvalidInput, SlipwayError
from deployments.services import changes, tokens
from deployments.services.models import Service
from portal.access import person, requires
from portal.forms.tokens import IssueTokenForm, RevokeForm, TokenSwitchForm
from portal.models import Role, User
from portal.samples import sample_body, uri_of
from portal.views.services_shared import get_service

_SHOWN = 100


def issue_form(user: User) -> IssueTokenForm:
    return IssueTokenForm(initial={"subject": tokens.default_subject(user)})


def listed(service: Service) -> dict[str, Any]:
    """What the list of valid tokens shows: the newest hundred, and how many there are."""
    now = timezone.now()
    valid = tokens.live(service, now)
    rows = list(valid.select_related("created_by")[:_SHOWN])
    return {"service": service, "tokens": rows, "token_count": valid.count(), "now": now}


@requires(Role.VIEWER)
@require_GET
def token_list(request: HttpRequest, name: str) -> HttpResponse:
    return render(request, "services/_token_list.html", listed(get_service(name)))


@requires(Role.DEPLOYER)
@require_POST
@never_cache
def issue(request: HttpRequest, name: str) -> HttpResponse:
    service = get_service(name)
    form = IssueTokenForm(request.POST)
    context: dict[str, Any] = {"service": service, "issue_form": form}
    if form.is_valid():
        try:
            issued = tokens.issue(
                person(request),
                service,
                lifetime=form.cleaned_data["life"],
                subject=form.cleaned_data["subject"],
            )
        except SlipwayError as error:
            field = error.field if isinstance(error, InvalidInput) else ""
            form.add_error(field if field in form.fields else None, error.message)
        else:
            context |= {"issued": issued, "curl": _curl(service, issued.token)}
            context["issue_form"] = issue_form(person(request))
    status = 422 if form.errors else 200
    return render(request, "services/_token_issue.html", context, status=status)


def _curl(service: Service, token: str) -> str:
    return " \\\n".join(
        (
            f"curl {shlex.quote(uri_of(service))}",
            f"  -H 'Authorization: Bearer {token}'",
            "  -H 'Content-Type: application/json'",
            f"  -d {shlex.quote(sample_body(service))}",
        )
    )


@requires(Role.DEPLOYER)
@require_POST
def switch(request: HttpRequest, name: str) -> HttpResponse:
    service = get_service(name)
    form = TokenSwitchForm(request.POST)
    enabled = form.is_valid() and form.cleaned_data["enabled"]
    try:
        changes.update_access(person(request), service, token_auth_enabled=enabled)
    except SlipwayError as error:
        messages.error(request, error.message)
    else:
        said = "takes tokens now" if enabled else "takes no tokens any more"
        messages.success(request, f"{name} {said}; the router follows within a second.")
    return redirect("service-consume", name)


@requires(Role.DEPLOYER)
@require_POST
def revoke(request: HttpRequest, name: str) -> HttpResponse:
    service = get_service(name)
    form = RevokeForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Say which token. Nothing was revoked.")
        return redirect("service-consume", name)
    try:
        token = tokens.revoke(person(request), service, form.cleaned_data["jti"])
    except SlipwayError as error:
        messages.error(request, error.message)
    else:
        messages.success(
            request, f"The token of {token.subject} is revoked; it stops working within 2 seconds."
        )
    return redirect("service-consume", name)


@requires(Role.DEPLOYER)
@require_POST
def revoke_all(request: HttpRequest, name: str) -> HttpResponse:
    service = get_service(name)
    try:
        count = tokens.revoke_all(person(request), service)
    except SlipwayError as error:
        messages.error(request, error.message)
    else:
        messages.success(
            request,
            f"{count} token{'' if count == 1 else 's'} revoked; they stop working within 2 seconds."
            if count
            else "No token was valid any more.",
        )
    return redirect("service-consume", name)
