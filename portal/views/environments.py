"""The environments' pages: list, create with live validation, one version with its build.

Each view asks for a role, reads a form, calls one function of `deployments.environments` and renders.
"""

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from deployments.environments import changes, interpreters, queries, usage
from deployments.environments.definition import parse
from deployments.environments.hashing import definition_hash
from deployments.environments.mapping import process_plan
from deployments.environments.models import Environment, EnvironmentBuild
from deployments.errors import InvalidInput, SlipwayError
from portal.access import person, requires
from portal.forms.environments import DefinitionForm, EnvironmentForm, SearchForm, initial_from
from portal.models import Role
from portal.views.images import image_context
from portal.views.packages import packages_context

_A_PAGE = 50


@requires(Role.VIEWER)
@require_GET
def environment_list(request: HttpRequest) -> HttpResponse:
    return render(request, "environments/list.html", _list_context(request))


@requires(Role.VIEWER)
@require_GET
def environment_rows(request: HttpRequest) -> HttpResponse:
    """The list's rows alone: for its search, and when a build changes."""
    return render(request, "environments/_rows.html", _list_context(request))


def _list_context(request: HttpRequest) -> dict[str, Any]:
    form = SearchForm(request.GET)
    search = form.cleaned_data["q"] if form.is_valid() else ""
    page = Paginator(queries.versions(search), _A_PAGE).get_page(request.GET.get("page"))
    rows = queries.rows(list(page), timezone.now())
    topics = " ".join(sorted({f"environment:{row.environment.hash}" for row in rows}))
    return {"form": form, "search": search, "page": page, "rows": rows, "topics": topics}


@requires(Role.DEPLOYER)
@require_http_methods(["GET", "POST"])
def environment_create(request: HttpRequest) -> HttpResponse:
    """`?from=<name>:<version>` begins with that version's values."""
    if request.method == "GET":
        form = EnvironmentForm(initial=_initial(request.GET.get("from", "")))
        return render(request, "environments/create.html", {"form": form})
    form = EnvironmentForm(request.POST, request.FILES)
    if form.is_valid():
        try:
            environment = changes.create_environment(person(request), **form.cleaned_data)
        except InvalidInput as error:
            form.add_error(error.field if error.field in form.fields else None, error.message)
        except SlipwayError as error:
            form.add_error(None, error.message)
        else:
            messages.success(request, f"{environment} is saved.")
            return redirect(environment)
    return render(request, "environments/create.html", {"form": form}, status=422)


def _initial(text: str) -> dict[str, Any]:
    name, _, version = text.rpartition(":")
    if not version.isdecimal():
        return {}
    environment = Environment.objects.filter(name=name, version=int(version)).first()
    return initial_from(environment) if environment else {}


@requires(Role.DEPLOYER)
@require_POST
def environment_preview(request: HttpRequest) -> HttpResponse:
    """What the definition in the form comes to: its mistakes, or its hash and plan."""
    form = DefinitionForm(request.POST)
    context: dict[str, Any] = {"form": form}
    if form.is_valid():
        texts = ("base_image", "docker_steps", "conda_yaml", "pip_requirements")
        definition = parse(**{name: form.cleaned_data[name] for name in texts})
        context["hash"] = definition_hash(definition)
        context["plan"] = process_plan(definition, tuple(interpreters.find()))
        context["same"] = queries.versions().filter(hash=context["hash"])[:3]
        context["build"] = EnvironmentBuild.objects.filter(hash=context["hash"]).first()
    return render(request, "environments/_preview.html", context)


@requires(Role.VIEWER)
@require_GET
def environment_detail(request: HttpRequest, name: str, version: int) -> HttpResponse:
    environment = _get(name, version)
    definition = parse(
        base_image=environment.base_image,
        docker_steps=environment.docker_steps,
        conda_yaml=environment.conda_yaml,
        pip_requirements=environment.pip_requirements,
    )
    context = {
        **_detail_context(environment),
        **packages_context(environment),
        "plan": process_plan(definition, tuple(interpreters.find())),
        "versions": Environment.objects.filter(name=name).only("name", "version", "hash"),
        "revisions": usage.revisions_of(environment),
        "source": f"environment:{environment.hash}",
        **image_context(environment),
    }
    return render(request, "environments/detail.html", context)


@requires(Role.VIEWER)
@require_GET
def environment_build(request: HttpRequest, name: str, version: int) -> HttpResponse:
    """The build's card alone."""
    return render(request, "environments/_build.html", _detail_context(_get(name, version)))


def _detail_context(environment: Environment) -> dict[str, Any]:
    (row,) = queries.rows([environment], timezone.now())
    return {"environment": environment, "row": row, "build": row.build}


@requires(Role.DEPLOYER)
@require_POST
def build_start(request: HttpRequest, name: str, version: int) -> HttpResponse:
    environment = _get(name, version)
    _do(request, changes.request_build, environment, f"The build of {environment} is queued.")
    return redirect(environment)


@requires(Role.DEPLOYER)
@require_POST
def build_remove(request: HttpRequest, name: str, version: int) -> HttpResponse:
    environment = _get(name, version)
    _do(request, changes.remove_build, environment, f"The build of {environment} is removed.")
    return redirect(environment)


@requires(Role.DEPLOYER)
@require_POST
def environment_delete(request: HttpRequest, name: str, version: int) -> HttpResponse:
    environment = _get(name, version)
    if _do(request, changes.delete_environment, environment, f"{environment} is deleted."):
        return redirect("environment-list")
    return redirect("environment-detail", name, version)


def _do(request: HttpRequest, change: Callable[..., None], row: Environment, done: str) -> bool:
    """Whether it was done; either way a message says what came of it."""
    try:
        change(person(request), row)
    except SlipwayError as error:
        messages.error(request, error.message)
        return False
    messages.success(request, done)
    return True


def _get(name: str, version: int) -> Environment:
    found = queries.versions().filter(name=name, version=version).first()
    if found is None:
        raise Http404(f"There is no environment {name}:{version}; it may have been deleted.")
    return found
