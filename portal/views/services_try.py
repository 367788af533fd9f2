"""Trying a service from the portal: one request through its router, with its key used here only."""

from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_POST

from deployments.errors import SlipwayError
from deployments.services import keys, tokens, versions
from deployments.services.config import DeploymentConfig
from deployments.services.models import Revision, Service
from deployments.services.specs import config_of
from portal import try_ways
from portal.access import person, requires
from portal.forms.services import TryForm
from portal.models import Role, User
from portal.router_door import door_of
from portal.samples import sample_body
from portal.views.services_shared import get_service, page

_BESIDE = 5.0  # seconds the way to the router and back may take


def versions_of(service: Service) -> dict[str, Revision]:
    """The versions that run, for a request that is to reach one of them."""
    rows = versions.rows_of(service)
    return {row.name: row.current for row in rows if row.current is not None}


def _deadline(found: dict[str, Revision], version: str) -> float:
    """Seconds until the router must have answered, whichever version it gives the request to."""
    asked = [revision for name, revision in found.items() if version in ("", name)]
    configs = [config_of(revision) for revision in asked] or [DeploymentConfig()]
    return max(item.scoring_timeout_ms + item.max_request_wait_time for item in configs) / 1000


@requires(Role.VIEWER)
@require_GET
def try_page(request: HttpRequest, name: str) -> HttpResponse:
    service = get_service(name)
    form = TryForm(
        initial={"body": sample_body(service, pretty=True)}, versions=list(versions_of(service))
    )
    return render(request, "services/try.html", page(service, "test", form=form))


def _credential(user: User, service: Service) -> str:
    """What opens the service: the primary key, or a token of a minute where only tokens do."""
    if service.auth_enabled:
        return keys.read(service)[0]
    return tokens.issue(user, service, lifetime=tokens.SHORTEST).token


def _prepare(request: HttpRequest, name: str) -> tuple[Service, TryForm, dict[str, Any] | None]:
    """The request to send, or None when the form is wrong."""
    service = get_service(name)
    running = versions_of(service)
    form = TryForm(request.POST, request.FILES, versions=list(running))
    if not form.is_valid():
        return service, form, None
    asked = form.cleaned_data
    key = ""
    if service.auth_enabled or service.token_auth_enabled:
        try:
            key = _credential(person(request), service)
        except SlipwayError as error:
            form.add_error(None, error.message)
            return service, form, None
    file = asked["file"]
    body = file.file if file else asked["body"].encode()
    return (
        service,
        form,
        {
            "body": body,
            "size": file.size if file else len(body),
            "content_type": asked["content_type"] or "application/json",
            "key": key,
            "version": asked["version"],
            "deadline": _deadline(running, asked["version"]) + _BESIDE,
            "door": door_of(service.cluster),
        },
    )


@requires(Role.DEPLOYER)
@require_POST
async def send(request: HttpRequest, name: str) -> HttpResponse:
    service, form, asked = await sync_to_async(_prepare)(request, name)
    if asked is None:
        return await sync_to_async(render)(
            request, "services/_attempt.html", {"form": form}, status=422
        )
    # The only addresses there are: the cluster's router and the service's name. Nothing is taken from
    # the request.
    attempt = await try_ways.send(service, asked)
    context = {
        "service": service,
        "attempt": attempt,
        "size": asked["size"],
        "version": asked["version"],
        "json_problem": form.json_problem,
    }
    return await sync_to_async(render)(request, "services/_attempt.html", context)
