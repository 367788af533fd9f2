"""What is in an environment: its packages, what is known against them, and the list to take away."""

import json
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from deployments.clusters.models import Cluster
from deployments.clusters.refusing import set_refused
from deployments.environments.models import Environment
from deployments.errors import SlipwayError
from deployments.images import scan, scanners
from portal import packages
from portal.access import person, requires
from portal.forms.packages import PackagesFilter, RefusingForm
from portal.models import Role
from portal.packages import MOST_ROWS, Standing


def _environment(name: str, version: int) -> Environment:
    return get_object_or_404(Environment, name=name, version=version)


def _chosen(standings: list[Standing], of: str) -> Standing | None:
    """The build asked for, else the first that has a list, else any."""
    ranked = sorted(standings, key=lambda item: (item.of != of, item.scan.sbom is None))
    return ranked[0] if ranked else None


def scanner_name() -> str:
    """The scanner that would be asked now; empty where none is configured."""
    found = scanners.configured(settings.ENV.scanner, settings.ENV.osv_url)
    return found.name if found is not None else ""


def packages_context(environment: Environment) -> dict[str, Any]:
    """For the card on the environment's page."""
    return {
        "environment": environment,
        "standings": packages.standings(environment.hash),
        "scanner": scanner_name(),
    }


@requires(Role.VIEWER)
@require_GET
def card(request: HttpRequest, name: str, version: int) -> HttpResponse:
    context = packages_context(_environment(name, version))
    return render(request, "environments/_packages.html", context)


@requires(Role.VIEWER)
@require_GET
def page(request: HttpRequest, name: str, version: int) -> HttpResponse:
    environment = _environment(name, version)
    form = PackagesFilter(request.GET)
    asked = form.cleaned_data if form.is_valid() else {}
    text, severity = asked.get("q", ""), asked.get("severity", "")
    context = packages_context(environment)
    standing = _chosen(context["standings"], asked.get("of", ""))
    found = packages.matching(
        (standing.scan.vulnerabilities or ()) if standing else (), text, severity
    )
    rows = packages.package_rows(standing, text) if standing else []
    return render(
        request,
        "environments/packages.html",
        context
        | {
            "form": form,
            "standing": standing,
            "findings": found[:MOST_ROWS],
            "findings_left": max(0, len(found) - MOST_ROWS),
            "rows": rows[:MOST_ROWS],
            "rows_left": max(0, len(rows) - MOST_ROWS),
            "filtered": bool(text or severity),
        },
    )


@requires(Role.VIEWER)
@require_GET
def sbom(request: HttpRequest, name: str, version: int, of: str) -> HttpResponse:
    """The CycloneDX document."""
    environment = _environment(name, version)
    for standing in packages.standings(environment.hash):
        if standing.of == of and standing.scan.sbom is not None:
            response = HttpResponse(
                json.dumps(standing.scan.sbom, indent=2),
                content_type="application/vnd.cyclonedx+json; version=1.5",
            )
            file = f"{environment.name}-{environment.version}-{of}.cdx.json"
            response["Content-Disposition"] = f'attachment; filename="{file}"'
            return response
    raise Http404(f"No package list of {environment} is stored; it is made when it is built.")


@requires(Role.DEPLOYER)
@require_POST
def rescan(request: HttpRequest, name: str, version: int, of: str) -> HttpResponse:
    """Ask the scanner now. It may take a while: the first run of trivy or grype fetches its database."""
    environment = _environment(name, version)
    standing = next((item for item in packages.standings(environment.hash) if item.of == of), None)
    if standing is None:
        raise Http404(f"{environment} is not built.")
    try:
        found = scan.rescan(standing.build)
    except SlipwayError as error:
        messages.error(request, error.message)
    else:
        if found.problem:
            messages.error(request, f"Not scanned: {found.problem}")
        else:
            messages.success(request, f"{found.scanner} was asked: {scan.describe(found)}.")
    return redirect("environment-packages", name, version)


def refusing_context(cluster: Cluster) -> dict[str, Any]:
    """For the card on a cluster's page."""
    return {
        "refusing": RefusingForm(initial={"refuse_severity": cluster.refuse_severity}),
        "scanner": scanner_name(),
    }


@requires(Role.ADMINISTRATOR)
@require_POST
def refuse(request: HttpRequest, name: str) -> HttpResponse:
    cluster = get_object_or_404(Cluster, name=name)
    form = RefusingForm(request.POST)
    if form.is_valid():
        set_refused(person(request), cluster, form.cleaned_data["refuse_severity"])
        messages.success(request, f"{name}: what it refuses is changed.")
    else:
        messages.error(request, "Choose a severity of the list.")
    return redirect("cluster-detail", name)
