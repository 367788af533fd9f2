"""The models' pages: list, register, a model, a version, downloads, deletion.

Each view asks for a role, reads a form, calls one function of the registry and renders. Rows are
changed by `deployments.registry.versions` alone; a model's file is passed on, never opened.
"""

import json
from functools import partial
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    JsonResponse,
    QueryDict,
)
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from deployments.errors import InvalidInput, NotFound, SlipwayError
from deployments.registry import queries, rules
from deployments.registry.blobs import open_blob
from deployments.registry.models import Model, ModelVersion
from deployments.registry.versions import (
    NewFile,
    delete_model,
    delete_version,
    kept_by,
    register_version,
    where_used,
)
from portal import downloads, uploads
from portal.access import requires
from portal.forms.models import CheckForm, FilterForm, RegisterForm, initial_from, pretty_json
from portal.models import Role

_MODELS_A_PAGE = 50
_FILES_A_PAGE = 200
_NAMES_OFFERED = 300


@requires(Role.VIEWER)
@require_GET
def model_list(request: HttpRequest) -> HttpResponse:
    return render(request, "models/list.html", _list_context(request))


@requires(Role.VIEWER)
@require_GET
def model_rows(request: HttpRequest) -> HttpResponse:
    """The list's rows alone, for its filters."""
    return render(request, "models/_rows.html", _list_context(request))


def _list_context(request: HttpRequest) -> dict[str, Any]:
    form = FilterForm(request.GET)
    form.is_valid()
    wanted = {key: form.cleaned_data.get(key, "") for key in ("q", "framework", "tag")}
    newest = queries.newest_versions(
        search=wanted["q"], framework=wanted["framework"], tag=wanted["tag"]
    )
    page = Paginator(newest, _MODELS_A_PAGE).get_page(request.GET.get("page"))
    query = QueryDict(mutable=True)
    query.update({key: value for key, value in wanted.items() if value})
    return {
        "form": form,
        "page": page,
        "rows": queries.model_rows(list(page)),
        "filtered": bool(query),
        "query": query.urlencode(),
    }


@requires(Role.DEPLOYER)
@require_http_methods(["GET", "POST"])
def register(request: HttpRequest) -> HttpResponseBase:
    """Register a version. The page's script asks for JSON and keeps the chosen files on an error."""
    if request.method == "GET":
        name = request.GET.get("name", "").strip()
        form = RegisterForm(initial=initial_from(_newest(name), name))
        return render(request, "models/register.html", _register_context(form))
    files: list[Any] = request.FILES.getlist("files")
    form = RegisterForm(
        request.POST,
        paths=[file.relative_path for file in files],
        problem=uploads.problem(request),
    )
    version = _registered(request, form, files) if form.is_valid() else None
    by_script = request.headers.get("Accept") == "application/json"
    if version is None:
        if by_script:
            return _errors(request, form)
        return render(request, "models/register.html", _register_context(form), status=422)
    messages.success(request, f"{version} is registered.")
    if by_script:
        return JsonResponse({"location": version.get_absolute_url()}, status=201)
    return redirect(version)


def _registered(request: HttpRequest, form: RegisterForm, files: list[Any]) -> ModelVersion | None:
    """The new version, or None with the reason added to the form."""
    data = form.cleaned_data
    for file in files:
        file.let_go()
    try:
        return register_version(
            request.user,  # type: ignore[arg-type]
            name=data["name"],
            files=[
                NewFile(path, file.path, file.sha256, file.size)
                for path, file in zip(data["upload"], files, strict=True)
            ],
            framework=data["framework"],
            framework_version=data["framework_version"],
            description=data["description"],
            tags=data["tags"],
            sample_input=data["sample_input"],
        )
    except InvalidInput as error:
        field = "upload" if error.field == "files" else error.field
        form.add_error(field if field in form.fields else None, error.message)
    except SlipwayError as error:
        form.add_error(None, error.message)
    return None


@requires(Role.DEPLOYER)
@require_POST
def register_check(request: HttpRequest) -> HttpResponse:
    """Everything that can be known to be wrong before the files are sent."""
    chosen = CheckForm(request.POST)
    if not chosen.is_valid():
        return JsonResponse({"files": ["The list of files could not be read."]}, status=422)
    problem = ""
    if chosen.cleaned_data["total"] > uploads.max_bytes():
        problem = uploads.too_large()
    form = RegisterForm(request.POST, paths=chosen.cleaned_data["paths"], problem=problem)
    if not form.is_valid():
        return _errors(request, form)
    name = form.cleaned_data["name"]
    return JsonResponse({"name": name, "version": queries.next_number(name)})


def _errors(request: HttpRequest, form: RegisterForm) -> JsonResponse:
    """The fields with their errors as markup, and the files' errors, which stand outside of them."""
    fields = render_to_string("models/_fields.html", _register_context(form), request)
    return JsonResponse({"html": fields, "files": form.errors.get("upload", [])}, status=422)


def _register_context(form: RegisterForm) -> dict[str, Any]:
    name = str(form["name"].value() or "")
    known = queries.next_number(name) if form.initial.get("name") else 1
    return {
        "form": form,
        "next_number": known if known > 1 else None,
        "names": list(
            Model.objects.order_by("name").values_list("name", flat=True)[:_NAMES_OFFERED]
        ),
        "max_bytes": uploads.max_bytes(),
        "max_files": rules.MAX_FILES,
        "hints": {
            "suffixes": {end: hint.label for end, hint in rules.SUFFIX_HINTS.items()},
            "names": {name: hint.label for name, hint in rules.NAME_HINTS.items()},
        },
    }


def _newest(name: str) -> ModelVersion | None:
    return ModelVersion.objects.filter(model__name=name).order_by("-version").first()


def _model(name: str) -> Model:
    try:
        return queries.model_named(name)
    except NotFound as error:
        raise Http404(error.message) from error


def _version(name: str, number: int) -> ModelVersion:
    try:
        return queries.version_of(name, number)
    except NotFound as error:
        raise Http404(error.message) from error


@requires(Role.VIEWER)
@require_GET
def detail(request: HttpRequest, name: str) -> HttpResponse:
    return render(request, "models/detail.html", _detail_context(name))


@requires(Role.VIEWER)
@require_GET
def versions(request: HttpRequest, name: str) -> HttpResponse:
    """The versions' table alone, read again when a version comes or goes."""
    return render(request, "models/_versions.html", _detail_context(name))


def _detail_context(name: str) -> dict[str, Any]:
    model = _model(name)
    rows = queries.version_rows(model)
    services = sorted({service for row in rows for service in row.services})
    return {
        "model": model,
        "rows": rows,
        "newest": rows[0].version,
        "services": services,
        "size": sum(row.version.size for row in rows),
    }


@requires(Role.DEPLOYER)
@require_POST
def delete_all(request: HttpRequest, name: str) -> HttpResponse:
    """Delete a model with all its versions, or nothing."""
    model = _model(name)
    try:
        count = delete_model(request.user, model)  # type: ignore[arg-type]
    except SlipwayError as error:
        messages.error(request, error.message)
        return redirect("model-detail", name)
    messages.success(request, f"{name} and its {count} version{'s'[: count != 1]} were deleted.")
    return redirect("model-list")


@requires(Role.VIEWER)
@require_GET
def version_detail(request: HttpRequest, name: str, version: int) -> HttpResponse:
    row = _version(name, version)
    files = Paginator(row.files.select_related("blob"), _FILES_A_PAGE)
    page = files.get_page(request.GET.get("page"))
    return render(
        request,
        "models/version.html",
        {
            **_used_context(row),
            "files": page,
            "loading": _loading([file.path for file in page]),
            "sample_input": pretty_json(row.sample_input),
            "newest_number": row.model.versions.order_by("-version").values_list(
                "version", flat=True
            )[0],
        },
    )


def _loading(paths: list[str]) -> str:
    """Lines of score.py that find a model's main file: the first whose name says what it is."""
    main = next((path for path in paths if rules.framework_hint([path])), paths[0])
    quoted = json.dumps(f"/{main}", ensure_ascii=False)
    return f'import os\n\nfolder = os.environ["AZUREML_MODEL_DIR"]\npath = folder + {quoted}'


@requires(Role.VIEWER)
@require_GET
def version_used(request: HttpRequest, name: str, version: int) -> HttpResponse:
    """Where a version is deployed, alone."""
    return render(request, "models/_used.html", _used_context(_version(name, version)))


def _used_context(version: ModelVersion) -> dict[str, Any]:
    services = where_used(version)
    return {
        "model": version.model,
        "model_version": version,
        "services": services,
        "kept_by": [] if services else kept_by(version),
    }


@requires(Role.DEPLOYER)
@require_POST
def version_delete(request: HttpRequest, name: str, version: int) -> HttpResponse:
    row = _version(name, version)
    try:
        delete_version(request.user, row)  # type: ignore[arg-type]
    except SlipwayError as error:
        messages.error(request, error.message)
        return redirect("model-version", name, version)
    messages.success(request, f"{name}:{version} was deleted.")
    others = Model.objects.filter(name=name, versions__isnull=False).exists()
    return redirect(reverse("model-detail", args=[name]) if others else reverse("model-list"))


@requires(Role.VIEWER)
@require_GET
def version_download(request: HttpRequest, name: str, version: int) -> HttpResponseBase:
    """All files of a version as one zip."""
    row = _version(name, version)
    files = row.files.select_related("blob")
    members = [
        downloads.Member(file.path, file.blob.size, partial(open_blob, file.blob_id))
        for file in files
    ]
    return downloads.zip_response(request, members, name=f"{name}-{version}.zip", at=row.created_at)


@requires(Role.VIEWER)
@require_GET
def file_download(request: HttpRequest, name: str, version: int, path: str) -> HttpResponseBase:
    """One file of a version."""
    row = _version(name, version)
    file = row.files.filter(path=path).select_related("blob").first()
    if file is None:
        raise Http404(f"{row} has no file {path}.")
    try:
        source = open_blob(file.blob_id)
    except NotFound as error:
        raise Http404(error.message) from error
    return downloads.file_response(
        request,
        source,
        name=path.rsplit("/", 1)[-1],
        size=file.blob.size,
        etag=file.blob_id,
    )
