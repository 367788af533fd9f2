"""The Requests tab of a service: its request log, searched and live. Only reads; bodies are never kept."""

import csv
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from deployments.services.models import Service
from portal.access import requires
from portal.forms.requests import RequestSearch
from portal.models import Role
from portal.views.services_shared import get_service, page
from router.telemetry import requests
from router.telemetry.models import RequestRecord
from router.telemetry.requests import Search

ROWS_A_PAGE = 50
CSV_ROWS = 100_000  # the newest ones
_GAPS_WITHIN = 3_600.0  # seconds before the oldest row shown, and now where there is none
_COLUMNS = (
    "at", "service", "version", "request_id", "client_request_id", "method", "operation", "status",
    "queue_ms", "service_ms", "total_ms", "bytes_in", "bytes_out", "replica", "who",
    "termination_state",
)  # fmt: skip


@requires(Role.VIEWER)
@require_GET
def service_requests(request: HttpRequest, name: str) -> HttpResponse:
    service = get_service(name)
    form = RequestSearch(request.GET)
    valid = form.is_valid()
    search = form.search() if valid else Search()
    rows = _rows(service, search) if valid else []
    now = time.time()
    since = rows[min(len(rows), ROWS_A_PAGE) - 1].at if rows else now - _GAPS_WITHIN
    context = page(
        service,
        "requests",
        form=form,
        searched=search != Search() or not valid,
        on=_logging(service),
        gaps=requests.gaps(service.cluster.name, since, now)[:3],
        **_shown(rows, search),
    )
    return render(request, "requests/requests.html", context)


@requires(Role.VIEWER)
@require_GET
def rows(request: HttpRequest, name: str) -> HttpResponse:
    """Fragment: older rows than `before`, or newer ones than `after` for the top of the list."""
    service = get_service(name)
    form = RequestSearch(request.GET)
    if not form.is_valid():
        return HttpResponse("This search cannot be read.", status=400, content_type="text/plain")
    before, after = form.cleaned_data["before"], form.cleaned_data["after"]
    search = form.search()
    found = _rows(service, search, before=before or 0, after=after or 0)
    context = {"service": service, **_shown(found, search, newest=after or 0)}
    if before:
        return render(request, "requests/_older.html", context)
    if len(found) <= ROWS_A_PAGE:
        return render(request, "requests/_newer.html", context)
    # more than a page at once: those between would be missing, so the list begins anew
    answer = render(request, "requests/_list.html", context)
    answer["HX-Retarget"], answer["HX-Reswap"] = "#request-list", "outerHTML"
    return answer


@requires(Role.VIEWER)
@require_GET
def data_csv(request: HttpRequest, name: str) -> HttpResponse | StreamingHttpResponse:
    """What the search finds as a table, newest first: UTC times, milliseconds, bytes."""
    service = get_service(name)
    form = RequestSearch(request.GET)
    if not form.is_valid():
        return HttpResponse("This search cannot be read.", status=400, content_type="text/plain")
    return StreamingHttpResponse(
        _csv(service.name, form.search()),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{service.name}-requests.csv"'},
    )


def _rows(
    service: Service, search: Search, *, before: int = 0, after: int = 0
) -> list[RequestRecord]:
    """A page and one more, newest first."""
    return list(requests.find(service.name, search, before=before, after=after)[: ROWS_A_PAGE + 1])


def _shown(found: list[RequestRecord], search: Search, newest: int = 0) -> dict[str, object]:
    kept = found[:ROWS_A_PAGE]
    local = {
        "q": search.text,
        "code": search.code,
        "version": search.version,
        "who": search.who,
        "slower": search.slower,
        "since": _local(search.since),
        "until": _local(search.until),
    }
    return {
        "rows": kept,
        "more": len(found) > ROWS_A_PAGE,
        "newest": max([newest, *(row.pk for row in kept)]),
        "oldest": kept[-1].pk if kept else 0,
        "query": urlencode(
            {name: value for name, value in local.items() if value not in ("", None)}
        ),
    }


def _local(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at, UTC).isoformat()


def _logging(service: Service) -> bool:
    """Whether any of its versions logs its requests."""
    configs = service.versions.values_list("current__config", flat=True)
    return any((config or {}).get("enable_app_insights") for config in configs)


class _Echo:
    """A file that gives back what is written."""

    def write(self, value: str) -> str:
        return value


def _csv(service: str, search: Search) -> Iterator[str]:
    writer = csv.writer(_Echo())
    yield writer.writerow(_COLUMNS)
    before = 0
    for _ in range(0, CSV_ROWS, 1000):
        found = list(requests.find(service, search, before=before)[:1000])
        for row in found:
            yield writer.writerow([_cell(row, name) for name in _COLUMNS])
        if len(found) < 1000:
            return
        before = found[-1].pk


def _cell(row: RequestRecord, name: str) -> object:
    value = getattr(row, name)
    if name == "at":
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    # a spreadsheet would take it for a formula, and clients choose their ids
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@"):
        return f"'{value}"
    return value
