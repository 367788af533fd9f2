"""The What if tab: a past range run again with other settings, beside how it was.

Asking and looking need no more than signing in; applying is a deployment, and needs its role.
"""

import csv
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from deployments.errors import InvalidInput, NotFound, SlipwayError
from deployments.services.models import Service
from portal import what_if as words
from portal.access import person, requires
from portal.forms.what_if import EXACT, SETTINGS, SPANS, WhatIfForm
from portal.models import Role
from portal.views.services_shared import get_service, page
from router.telemetry import what_if as runs
from router.telemetry.models import WhatIf

_LISTED = 10
_LINES = ("recorded", "as_set", "settings")


def _find(service: Service, pk: int) -> WhatIf:
    try:
        return runs.find(service.name, pk)
    except NotFound as error:
        raise Http404(error.message) from error


def _versions(service: Service) -> list[str]:
    return list(service.versions.order_by("-is_default", "name").values_list("name", flat=True))


def _form(service: Service, row: WhatIf | None, version: str) -> WhatIfForm:
    """As the run that is looked at was asked, else as the version is set now."""
    versions = _versions(service)
    if row is not None:
        zone = timezone.get_current_timezone()
        initial: dict[str, Any] = {name: row.inputs["settings"].get(name) for name in SETTINGS} | {
            "version": row.version,
            "span": EXACT,
            "since": datetime.fromtimestamp(row.since, zone),
            "until": datetime.fromtimestamp(row.until, zone),
            "price": row.inputs.get("price"),
        }
        return WhatIfForm(initial=initial, versions=versions)
    version = version if version in versions else next(iter(versions), "")
    initial = {"version": version, "span": "1h"}
    now = time.time()
    try:
        was = words.then(service, version, now - SPANS["1h"], now).settings
        initial |= {name: getattr(was, name) for name in SETTINGS}
    except InvalidInput:
        pass  # the page says that there is nothing yet
    return WhatIfForm(initial=initial, versions=versions)


def _page(
    request: HttpRequest,
    service: Service,
    form: WhatIfForm,
    row: WhatIf | None = None,
    status: int = 200,
) -> HttpResponse:
    listed = WhatIf.objects.filter(service=service.name).defer("result")[:_LISTED]
    context = page(
        service,
        "what-if",
        form=form,
        several=len(_versions(service)) > 1,
        deployed=service.versions.exists(),
        listed=[
            (item, _moment(item.since), words.settings_words(item.inputs["settings"]))
            for item in listed
        ],
        **(_shown(row) if row is not None else {"row": None}),
    )
    return render(request, "what_if/what_if.html", context, status=status)


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _shown(row: WhatIf) -> dict[str, Any]:
    done = row.state == WhatIf.State.DONE
    return {
        "row": row,
        "done": done,
        "percent": round(100 * row.progress),
        "since": _moment(row.since),
        "until": _moment(row.until),
        "tried": words.settings_words(row.inputs["settings"]),
        "was": words.settings_words(row.inputs["as_set"]),
        "lines": words.comparison(row) if done else [],
        "remarks": words.remarks(row) if done else [],
        "resolution": words.STEPS[row.result["step"]] if done and row.result else "",
        "ahead": (
            WhatIf.objects.filter(
                state__in=[WhatIf.State.QUEUED, WhatIf.State.RUNNING], pk__lt=row.pk
            ).count()
            if row.state == WhatIf.State.QUEUED
            else 0
        ),
    }


@requires(Role.VIEWER)
@require_GET
def what_if(request: HttpRequest, name: str) -> HttpResponse:
    service = get_service(name)
    return _page(request, service, _form(service, None, request.GET.get("version", "")))


@requires(Role.VIEWER)
@require_POST
def ask(request: HttpRequest, name: str) -> HttpResponse:
    service = get_service(name)
    form = WhatIfForm(request.POST, versions=_versions(service))
    if form.is_valid():
        since, until = form.range()
        values = form.cleaned_data
        version = values["version"] or words.default_version(service)
        try:
            asked = words.question(service, version, since, until, form.settings(), values["price"])
            row = runs.ask(person(request).username, asked)
        except InvalidInput as error:
            # a preset has no fields of its own
            field = error.field
            if field in ("since", "until") and values["span"] != EXACT:
                field = "span"
            form.add_problem(field, error.message)
        except SlipwayError as error:
            form.add_error(None, error.message)
        else:
            return redirect("service-what-if-run", name, row.pk)
    return _page(request, service, form, status=422)


@requires(Role.VIEWER)
@require_GET
def shown(request: HttpRequest, name: str, pk: int) -> HttpResponse:
    service = get_service(name)
    row = _find(service, pk)
    return _page(request, service, _form(service, row, ""), row)


@requires(Role.VIEWER)
@require_GET
def state(request: HttpRequest, name: str, pk: int) -> HttpResponse:
    """Fragment: how far the run is, then its result."""
    service = get_service(name)
    context = {"service": service, **_shown(_find(service, pk))}
    return render(request, "what_if/_run.html", context)


@requires(Role.VIEWER)
@require_GET
def data(request: HttpRequest, name: str, pk: int) -> HttpResponse:
    """The chart of a run that is done: replicas, arrivals and rejected requests a second."""
    row = _find(get_service(name), pk)
    if row.result is None:
        return JsonResponse({"message": "There is no result."}, status=404)
    chart, zone = row.result["chart"], timezone.get_current_timezone()
    at = [
        datetime.fromtimestamp(moment, zone).strftime("%Y-%m-%d %H:%M:%S") for moment in chart["at"]
    ]
    return JsonResponse({**chart, "x": at})


@requires(Role.VIEWER)
@require_GET
def data_csv(request: HttpRequest, name: str, pk: int) -> HttpResponse:
    """The chart's figures as a table: UTC times, rates a second; unknown is empty."""
    row = _find(get_service(name), pk)
    if row.result is None:
        return HttpResponse("There is no result.", status=404, content_type="text/plain")
    chart = row.result["chart"]
    response = HttpResponse(
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}-what-if-{pk}.csv"'},
    )
    writer = csv.writer(response)
    pairs = [(line, column) for line in _LINES for column in ("replicas", "rejected")]
    writer.writerow(["time", "arrivals", *(f"{line}_{column}" for line, column in pairs)])
    columns: Iterable[list[Any]] = (chart[line][column] for line, column in pairs)
    for at, *values in zip(chart["at"], chart["arrivals"], *columns, strict=True):
        writer.writerow([_moment(at).strftime("%Y-%m-%dT%H:%M:%SZ"), *values])
    return response


@requires(Role.VIEWER)
@require_POST
def cancel(request: HttpRequest, name: str, pk: int) -> HttpResponse:
    if not runs.cancel(_find(get_service(name), pk)):
        messages.info(request, "It had ended already.")
    return redirect("service-what-if-run", name, pk)


@requires(Role.DEPLOYER)
@require_POST
def apply(request: HttpRequest, name: str, pk: int) -> HttpResponse:
    service = get_service(name)
    try:
        words.apply(person(request), service, _find(service, pk))
    except SlipwayError as error:
        messages.error(request, error.message)
        return redirect("service-what-if-run", name, pk)
    messages.success(request, "A revision with these settings is being deployed.")
    return redirect("service-overview", name)
