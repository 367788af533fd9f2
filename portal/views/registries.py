"""Registries: the list, adding, changing, testing and removing one. For administrators."""

from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from deployments.environments.models import BuildState
from deployments.errors import InvalidInput, SlipwayError
from deployments.images import registries
from deployments.images.models import Registry
from portal.access import person, requires
from portal.forms.registries import RegistryForm, initial_from
from portal.models import Role

_ORDER = {Registry.Role.WORKSPACE: 0, Registry.Role.GLOBAL: 1, Registry.Role.BASE: 2}


@requires(Role.ADMINISTRATOR)
@require_GET
def registry_list(request: HttpRequest) -> HttpResponse:
    ready = Count("images", filter=Q(images__state=BuildState.READY))
    rows = sorted(
        Registry.objects.annotate(image_count=ready),
        key=lambda row: (_ORDER[Registry.Role(row.role)], row.name),
    )
    has_workspace = any(row.role == Registry.Role.WORKSPACE for row in rows)
    context = {"registries": rows, "has_workspace": has_workspace}
    return render(request, "registries/list.html", context)


@sensitive_post_parameters("password")
@requires(Role.ADMINISTRATOR)
@require_http_methods(["GET", "POST"])
def registry_add(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        form = RegistryForm(request.POST)
        if form.is_valid():
            try:
                registry = registries.add(person(request), **form.cleaned_data)
            except SlipwayError as error:
                _show(form, error)
            else:
                messages.success(request, f"{registry.name} is added.")
                _test(request, registry)
                return redirect("registry-list")
    else:
        role = "global" if registries.workspace() else "workspace"
        form = RegistryForm(initial={"role": role})
    status = 422 if form.errors else 200
    return render(request, "registries/form.html", {"form": form}, status=status)


@sensitive_post_parameters("password")
@requires(Role.ADMINISTRATOR)
@require_http_methods(["GET", "POST"])
def registry_edit(request: HttpRequest, pk: int) -> HttpResponse:
    registry = get_object_or_404(Registry, pk=pk)
    stored = bool(registry.password)
    if request.method == "POST":
        form = RegistryForm(request.POST, stored=stored)
        if form.is_valid():
            try:
                registries.change(person(request), registry, **form.cleaned_data)
            except SlipwayError as error:
                _show(form, error)
                registry.refresh_from_db()
            else:
                messages.success(request, f"{registry.name} is saved.")
                return redirect("registry-list")
    else:
        form = RegistryForm(initial=initial_from(registry), stored=stored)
    context = {"form": form, "registry": registry}
    return render(request, "registries/form.html", context, status=422 if form.errors else 200)


@requires(Role.ADMINISTRATOR)
@require_POST
def registry_test(request: HttpRequest, pk: int) -> HttpResponse:
    _test(request, get_object_or_404(Registry, pk=pk))
    return redirect("registry-list")


@requires(Role.ADMINISTRATOR)
@require_POST
def registry_remove(request: HttpRequest, pk: int) -> HttpResponse:
    registry = get_object_or_404(Registry, pk=pk)
    try:
        registries.remove(person(request), registry)
    except SlipwayError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, f"{registry.name} is removed; what is in it stays there.")
    return redirect("registry-list")


def _test(request: HttpRequest, registry: Registry) -> None:
    """The row keeps what was seen; the message says it at once."""
    try:
        said = registries.test(person(request), registry)
    except SlipwayError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, f"{registry.name}: {said}")


def _show(form: RegistryForm, error: SlipwayError) -> None:
    field = error.field if isinstance(error, InvalidInput) else ""
    form.add_error(field if field in form.fields else None, error.message)
