"""The deployment form: a new service, or the next revision of one, with its live parts.

The form checks, `deployments.services.changes` decides and writes. Nothing a person gave is lost on an
error: an uploaded project folder is stored at once and kept by a signed note (`portal.project_source`).
"""

from typing import Any

from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from deployments.errors import InvalidInput, SlipwayError
from deployments.localruns import changes as localruns
from deployments.localruns.models import LocalRun
from deployments.services import changes, no_code, planning, versions
from deployments.services.models import Revision, Service, ServiceVersion
from portal import local_runs, project_source
from portal.access import person, requires
from portal.deploy_fill import read_files
from portal.deploy_initial import of_model, of_revision
from portal.deploy_plan import capacity_of, plan_of
from portal.deploy_request import bound, complain, form_context, request_of, source_of
from portal.forms.deploy import (
    TICKS,
    CapacityForm,
    DeployForm,
)
from portal.forms.services import AccessForm, DeleteForm
from portal.model_choices import choices
from portal.models import Role
from portal.project_source import Kept
from portal.views.services_shared import get_service, page

NEW_VERSION = "_new"  # in place of a version's name, which never begins like this


@requires(Role.DEPLOYER)
@require_http_methods(["GET", "POST"])
def deploy_new(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        return _submit(request, None)
    initial, kept = of_model(request.GET.get("model", "")), None
    if (local := _from_local_run(request)) is not None:
        initial, kept = local
    form = DeployForm(initial=initial, has_kept=kept is not None)
    return render(request, "services/deploy.html", form_context(form, None, kept))


@requires(Role.VIEWER)
@require_http_methods(["GET", "POST"])
def settings(request: HttpRequest, name: str) -> HttpResponse:
    service = get_service(name)
    if request.method == "POST":
        return requires(Role.DEPLOYER)(_submit)(request, service)
    return settings_page(request, service)


def settings_page(
    request: HttpRequest,
    service: Service,
    *,
    access: AccessForm | None = None,
    deletion: DeleteForm | None = None,
    status: int = 200,
) -> HttpResponse:
    """The settings page with the form of the revision asked for, else the one that serves."""
    rows = versions.rows_of(service)
    revision = _revision(request, service, rows)
    kept = None
    if revision is not None and revision.source is not None:
        kept = project_source.keep(person(request), revision.source)
    initial = of_revision(revision, kept) | {"version": _version(request, rows, revision)}
    if (local := _from_local_run(request)) is not None:
        initial, kept = local
    form = DeployForm(initial=initial, service=service, has_kept=kept is not None)
    context = form_context(form, service, kept) | {
        "access": access or _access_form(service),
        "deletion": deletion or DeleteForm(service=service),
        "from_revision": revision,
        "serves_in": [row.name for row in rows if revision and row.current_id == revision.pk],
    }
    return render(
        request, "services/settings.html", page(service, "settings", **context), status=status
    )


def _from_local_run(request: HttpRequest) -> tuple[dict[str, Any], Kept] | None:
    """`?local=<id>&source=<note>`: the form a local run came from, with the source as it was edited."""
    pk = request.GET.get("local", "")
    kept = project_source.from_token(person(request), request.GET.get("source", ""))
    if not pk.isdecimal() or kept is None:
        return None
    return local_runs.initial_of(local_runs.get_run(person(request), int(pk)), kept), kept


def _access_form(service: Service) -> AccessForm:
    return AccessForm(
        initial={
            "auth_enabled": service.auth_enabled,
            "token_auth_enabled": service.token_auth_enabled,
            "cors_origins": "\n".join(service.cors_origins),
        }
    )


def _revision(
    request: HttpRequest, service: Service, rows: list[ServiceVersion]
) -> Revision | None:
    """The revision asked for, else what serves in the version asked for, else in the default one."""
    revisions = service.revisions.select_related("environment", "source").prefetch_related(
        "model_links__model_version__model"
    )
    asked = request.GET.get("revision", "")
    if asked.isascii() and asked.isdigit():
        return get_object_or_404(revisions, number=int(asked[:9]))
    named = next((row for row in rows if row.name == request.GET.get("version", "")), None)
    for current in (named.current_id if named else None, service.current_id):
        if current is not None:
            return revisions.get(pk=current)
    return revisions.first()


def _version(request: HttpRequest, rows: list[ServiceVersion], revision: Revision | None) -> str:
    """The version the form is for: the one asked for, a free name for a new one, else the one that
    the form's revision was last deployed to, else the default one."""
    asked = request.GET.get("version", "")
    names = [row.name for row in rows]
    if asked == NEW_VERSION:
        return next(name for number in range(2, 100) if (name := f"v{number}") not in names)
    if asked in names:
        return asked
    last = revision.deployments.order_by("-pk").first() if revision is not None else None
    if last is not None and last.version_name in names:
        return last.version_name
    return next((row.name for row in rows if row.is_default), "")


def _submit(request: HttpRequest, service: Service | None) -> HttpResponse:
    form, kept = bound(request, service)
    deployment = None
    if form.is_valid():
        deployment = _deploy(request, form, service, kept)
    if deployment is not None:
        return redirect("service-overview", deployment.service.name)
    context = form_context(form, service, kept)
    if service is None:
        return render(request, "services/deploy.html", context, status=422)
    context |= {"access": _access_form(service), "deletion": DeleteForm(service=service)}
    return render(
        request, "services/settings.html", page(service, "settings", **context), status=422
    )


def _deploy(
    request: HttpRequest, form: DeployForm, service: Service | None, kept: Kept | None
) -> Any:
    """The deployment that was written down; None with the reasons in the form."""
    try:
        asked = request_of(request, form, service, source_of(form, kept))
        found = changes.check(asked)
        if not found:
            return changes.deploy(person(request), asked)
    except InvalidInput as error:
        found = [error]
    except SlipwayError as error:
        form.add_error(None, error.message)
        return None
    for problem in found:
        complain(form, problem)
    return None


@requires(Role.DEPLOYER)
@require_POST
def run_locally(request: HttpRequest) -> HttpResponse:
    """What the form says, run once on this machine; a form that is wrong comes back as it does when it
    is deployed."""
    service = get_service(request.POST["service"]) if request.POST.get("service") else None
    form, kept = bound(request, service)
    run = None
    if form.is_valid():
        run = _local_run(request, form, service, kept)
    if run is not None:
        return redirect(run)
    context = form_context(form, service, kept)
    if service is None:
        return render(request, "services/deploy.html", context, status=422)
    context |= {"access": _access_form(service), "deletion": DeleteForm(service=service)}
    return render(
        request, "services/settings.html", page(service, "settings", **context), status=422
    )


def _local_run(
    request: HttpRequest, form: DeployForm, service: Service | None, kept: Kept | None
) -> LocalRun | None:
    """The run that was written down; None with the reasons in the form."""
    actor = person(request)
    try:
        asked = request_of(request, form, service, source_of(form, kept))
        if asked.container is not None:
            raise InvalidInput(
                "A brought image has no script to edit here; run it with docker run, or deploy it.",
                field="serving",
            )
        found = planning.check(asked)
        if not found:
            plan = planning.plan_of(asked, service)
            cluster = service.cluster if service is not None else form.cleaned_data["cluster"]
            return localruns.start(
                actor,
                name=asked.name,
                service=service.name if service is not None else "",
                cluster=cluster,
                environment=plan.environment
                or no_code.environment_for(actor, plan.model_versions[0]),
                source=plan.source if plan.entry_script else None,
                entry_script=plan.entry_script,
                model_versions=plan.model_versions,
                config=plan.config,
                form=local_runs.form_values(_sent(form.data)),
            )
    except InvalidInput as error:
        found = [error]
    except SlipwayError as error:
        form.add_error(None, error.message)
        return None
    for problem in found:
        complain(form, problem)
    return None


@requires(Role.DEPLOYER)
@require_GET
def model_choices(request: HttpRequest) -> HttpResponse:
    context = choices(request.GET.get("model_query", "")[:300], request.GET.getlist("models"))
    return render(request, "services/_model_choices.html", context)


@requires(Role.DEPLOYER)
@require_POST
def plan(request: HttpRequest) -> HttpResponse:
    service = None
    if name := request.POST.get("service", ""):
        service = get_service(name)
    form = DeployForm(request.POST, service=service, has_kept=bool(request.POST.get("kept_source")))
    form.is_valid()
    context = {"plan": plan_of(form, service), "service": service}
    return render(request, "services/_plan.html", context)


@requires(Role.DEPLOYER)
@require_GET
def capacity(request: HttpRequest) -> HttpResponse:
    form = CapacityForm(request.GET)
    result = None
    if form.is_valid():
        result = capacity_of(form.cleaned_data)
    return render(request, "services/_capacity.html", {"capacity_form": form, "capacity": result})


@requires(Role.DEPLOYER)
@require_POST
def fill(request: HttpRequest) -> HttpResponse:
    """The form as it stands with the values of the uploaded files over it."""
    service = None
    if name := request.POST.get("service", ""):
        service = get_service(name)
    sent, kept = bound(request, service)
    filled = read_files(request.FILES, person(request))
    initial = _sent(sent.data) | filled.values
    if kept is not None:
        initial["source_kind"] = sent.data.get("source_kind")  # its folder is here already
    form = DeployForm(initial=initial, service=service, has_kept=kept is not None)
    context = form_context(form, service, kept, filled=filled)
    return render(request, "services/_form.html", context)


def _sent(data: QueryDict | Any) -> dict[str, Any]:
    """What was sent, as initial values: a list for the models, a flag for each checkbox."""
    values: dict[str, Any] = {name: data.get(name) for name in data}
    values["models"] = data.getlist("models")
    values |= {name: bool(data.get(name)) for name in TICKS}
    return values
