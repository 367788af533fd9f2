"""Local runs: a deployment once on this machine, in the foreground of a page, before it is one.

Only its owner and administrators see a run; anyone else gets a 404, which tells nothing. Requests go to the
run's own unix socket: the address is made here, and nothing of it comes from the request.
"""

import asyncio
import time
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import httpx
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from deployments.errors import SlipwayError
from deployments.localruns import changes
from deployments.localruns.models import LocalRun
from deployments.services.config import from_values
from deployments.sockets import LISTEN, within
from portal import local_runs, project_source, scoring
from portal.access import person, requires
from portal.forms.local_runs import FileForm, SaveForm
from portal.forms.services import TryForm
from portal.local_runs import get_run
from portal.models import Role

_URI = "http://local-run/score"
_RELOAD_PATIENCE = 20.0  # seconds a save waits to say how loading went
_LOOK = 0.05
_BESIDE = 5.0
_MEANINGS = {
    404: "The scoring server knows no such path.",
    500: "The entry script does not load, or run() raised an exception: see the answer and the log.",
    502: "The process died in the midst of it; its last lines are in the log.",
    503: "The process is not ready yet.",
}


def _context(run: LocalRun) -> dict[str, Any]:
    return {"run": run, "ends_at": local_runs.ends_at(run)}


@requires(Role.DEPLOYER)
@require_GET
def run_list(request: HttpRequest) -> HttpResponse:
    changes.settle(timezone.now())
    runs = local_runs.visible_to(person(request))[:100]
    context = {"runs": runs, "limit": settings.ENV.local_runs}
    return render(request, "local_runs/list.html", context)


@requires(Role.DEPLOYER)
@require_GET
def run_page(request: HttpRequest, pk: int) -> HttpResponse:
    changes.settle(timezone.now())
    run = get_run(person(request), pk)
    if run.owner_id == person(request).pk:
        changes.touch(run)
        run.refresh_from_db(fields=["used_at"])
    context = {
        **_context(run),
        "file": local_runs.file_of(run, run.entry_script),
        "paths": local_runs.paths_of(run),
        "form": TryForm(initial={"body": local_runs.sample_of(run)}, versions=[]),
        "source": f"local:{run.pk}",
        "idle": settings.ENV.local_run_idle,
    }
    return render(request, "local_runs/run.html", context)


@requires(Role.DEPLOYER)
@require_GET
def state(request: HttpRequest, pk: int) -> HttpResponse:
    """How it is. Looking by itself is no use of the run: an open page does not keep it for ever."""
    run = get_run(person(request), pk)
    if not run.ended:
        changes.settle(timezone.now())
        run.refresh_from_db()
    return render(request, "local_runs/_state.html", _context(run))


@requires(Role.DEPLOYER)
@require_GET
def file(request: HttpRequest, pk: int) -> HttpResponse:
    run = get_run(person(request), pk)
    form = FileForm(request.GET)
    if not form.is_valid():
        return HttpResponse("Choose a file.", status=422)
    changes.touch(run)
    found = local_runs.file_of(run, form.cleaned_data["path"])
    return render(request, "local_runs/_file.html", {"run": run, "file": found})


@requires(Role.DEPLOYER)
@require_POST
async def save(request: HttpRequest, pk: int) -> HttpResponse:
    """Store the edit, wait for it to load, and say how that went."""
    began = time.monotonic()
    run = await sync_to_async(get_run)(person(request), pk)
    form = SaveForm(request.POST)
    context: dict[str, Any] = {"run": run}
    status = 200
    try:
        if not form.is_valid():
            raise SlipwayError(
                " ".join(str(text) for each in form.errors.values() for text in each)
            )
        asked = form.cleaned_data
        edit = await sync_to_async(changes.save)(run, asked["path"], asked["text"])
    except SlipwayError as error:
        context["problem"], status = error.message, 422
    else:
        loaded = await _loaded(run, edit)
        context |= {"run": loaded, "edit": edit, "took": time.monotonic() - began}
    return await sync_to_async(render)(request, "local_runs/_saved.html", context, status=status)


async def _loaded(run: LocalRun, edit: int) -> LocalRun:
    """The row once this edit was loaded or refused; as it is when that takes too long."""
    until = time.monotonic() + _RELOAD_PATIENCE
    while True:
        found = await LocalRun.objects.aget(pk=run.pk)
        if found.loaded_edit >= edit or found.ended or time.monotonic() > until:
            return found
        await asyncio.sleep(_LOOK)


@requires(Role.DEPLOYER)
@require_POST
async def send(request: HttpRequest, pk: int) -> HttpResponse:
    """One request to the run's own socket."""
    run = await sync_to_async(get_run)(person(request), pk)
    form = TryForm(request.POST, request.FILES, versions=[])
    if not form.is_valid():
        return await sync_to_async(render)(
            request, "services/_attempt.html", {"form": form}, status=422
        )
    await sync_to_async(changes.touch)(run)
    asked = form.cleaned_data
    upload = asked["file"]
    body = upload.file if upload else asked["body"].encode()
    size = upload.size if upload else len(body)
    attempt = await _attempt(run, body, size, asked["content_type"] or "application/json")
    context = {
        "attempt": attempt,
        "size": size,
        "version": "",
        "json_problem": form.json_problem,
    }
    return await sync_to_async(render)(request, "services/_attempt.html", context)


async def _attempt(run: LocalRun, body: Any, size: int, content_type: str) -> scoring.Attempt:
    socket = settings.HOME.local_run(run.pk) / LISTEN
    if run.ended or not socket.exists():
        return scoring.Attempt(
            error="It has ended; run it again from its form."
            if run.ended
            else "The process is not started yet; the log says how far it is."
        )
    deadline = from_values(run.config).scoring_timeout_ms / 1000 + _BESIDE
    with within(socket) as name:
        attempt = await scoring.score(
            _URI,
            body=body,
            size=size,
            content_type=content_type,
            key="",
            version="",
            deadline=deadline,
            transport=httpx.AsyncHTTPTransport(uds=name),
        )
    if attempt.status is None:
        late = f"No answer came within {deadline:.0f} s; is run() caught in a loop?"
        gone = "The process closed the connection; its last lines are in the log."
        return replace(attempt, error=late if attempt.total >= deadline - 1 else gone)
    return replace(attempt, meaning=_MEANINGS.get(attempt.status, ""))


@requires(Role.DEPLOYER)
@require_POST
def keep(request: HttpRequest, pk: int) -> HttpResponse:
    run = get_run(person(request), pk)
    changes.touch(run)
    run.refresh_from_db()
    return render(request, "local_runs/_state.html", _context(run))


@requires(Role.DEPLOYER)
@require_POST
def stop(request: HttpRequest, pk: int) -> HttpResponse:
    run = get_run(person(request), pk)
    changes.stop(run)
    messages.success(request, f"Local run {run.pk} is being stopped.")
    return redirect(run)


@requires(Role.DEPLOYER)
@require_POST
def use(request: HttpRequest, pk: int) -> HttpResponse:
    """Back to the deployment form, with the source as it runs now."""
    run = get_run(person(request), pk)
    blob = changes.edited_source(run)
    query = urlencode({"local": run.pk, "source": project_source.token(person(request), blob)})
    form = (
        reverse("service-settings", args=[run.service])
        if run.service
        else reverse("service-deploy")
    )
    return redirect(f"{form}?{query}")
