"""The Logs tab, and a log's lines over plain HTTP: the fallback of the websocket, and the download."""

from collections.abc import AsyncIterator
from dataclasses import astuple

from asgiref.sync import sync_to_async
from channels.db import database_sync_to_async
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from deployments.errors import InvalidInput, NotFound, PermanentError, TemporaryError
from portal import previous_runs
from portal.access import person, requires
from portal.forms.logs import LogQuery
from portal.local_runs import may_read_log
from portal.log_merge import as_text
from portal.log_sources import PAGE, Page, read_page
from portal.models import Role
from portal.previous_runs import Offered
from portal.views.services_shared import get_service, page

_LONGEST_NAME = 253
_read_in_thread = database_sync_to_async(read_page, thread_sensitive=False)


def _refuse_unless_allowed(request: HttpRequest, source: str) -> None:
    if not may_read_log(person(request), source):
        raise Http404("There is no such log.")


@requires(Role.VIEWER)
@require_GET
def service_logs(request: HttpRequest, name: str) -> HttpResponse:
    """All of a service's lines, or with `?previous=<replica>` what that one said in its run before."""
    service = get_service(name)
    runs = previous_runs.offered(service)
    replica = request.GET.get("previous", "")[:_LONGEST_NAME]
    chosen = next((item for item in runs if item.replica == replica), Offered(replica))
    source = (
        f"{previous_runs.KIND}:{service.name}:{replica}" if replica else f"service:{service.name}"
    )
    context = page(service, "logs", source=source, runs=runs, previous=chosen if replica else None)
    return render(request, "logs/service.html", context)


@requires(Role.VIEWER)
@require_GET
def service_runs(request: HttpRequest, name: str) -> HttpResponse:
    """The replicas whose run before can be read."""
    service = get_service(name)
    replica = request.GET.get("previous", "")[:_LONGEST_NAME]
    context = {
        "service": service,
        "runs": previous_runs.offered(service),
        "previous": Offered(replica) if replica else None,
    }
    return render(request, "logs/_runs.html", context)


@requires(Role.VIEWER)
@require_GET
def data(request: HttpRequest, source: str) -> HttpResponse:
    """The next page as JSON: {lines: [[at, source, stream, text]], cursor, at_end, ended}, or {reason}."""
    _refuse_unless_allowed(request, source)
    query = LogQuery(request.GET)
    if not query.is_valid():
        return JsonResponse({"reason": "The limit is not a number of lines."}, status=400)
    try:
        found = read_page(source, query.cleaned_data["cursor"], query.cleaned_data["limit"] or PAGE)
    except TemporaryError as error:
        return JsonResponse({"reason": error.message}, status=503)
    except PermanentError as error:
        status = 404 if isinstance(error, NotFound) else 400
        return JsonResponse({"reason": error.message}, status=status)
    return JsonResponse(
        {
            "lines": [astuple(line) for line in found.lines],
            "cursor": found.cursor,
            "at_end": found.at_end,
            "ended": found.ended,
        }
    )


@requires(Role.VIEWER)
@require_GET
def service_data(request: HttpRequest, name: str) -> HttpResponse:
    return data(request, f"service:{name}")


@requires(Role.VIEWER)
@require_GET
async def download(request: HttpRequest, source: str) -> StreamingHttpResponse:
    """The whole log as plain text, page by page: never all of it in memory."""
    await sync_to_async(_refuse_unless_allowed)(request, source)
    first = await _read_in_thread(source)
    response = StreamingHttpResponse(_text(source, first), content_type="text/plain; charset=utf-8")
    filename = source.replace(":", "-")[:80]
    response["Content-Disposition"] = f'attachment; filename="{filename}.log"'
    return response


@requires(Role.VIEWER)
@require_GET
async def service_download(request: HttpRequest, name: str) -> StreamingHttpResponse:
    return await download(request, f"service:{name}")


async def _text(source: str, first: Page) -> AsyncIterator[bytes]:
    found = first
    while True:
        yield "".join(as_text(line) for line in found.lines).encode()
        if found.at_end:
            return
        try:
            found = await _read_in_thread(source, found.cursor)
        except (InvalidInput, NotFound, TemporaryError) as error:
            # the headers are gone: say in the file that it is not whole
            yield f"(The rest could not be read: {error.message})\n".encode()
            return
