"""From what a deployment form was sent with to what is asked for, and back onto the page.

Several views take the same form: what deploys it, runs it here, fills it in, shows what it would make.
Nothing a person gave is lost on an error: an uploaded project folder is stored at once and kept by a signed
note (`portal.project_source`).
"""

from typing import Any

from django.http import HttpRequest

from deployments.environments.changes import create_environment
from deployments.environments.models import Environment
from deployments.errors import InvalidInput
from deployments.registry.models import Blob, ModelVersion
from deployments.services import changes, no_code, sources, versions
from deployments.services.models import Service
from portal import brought, project_source
from portal.access import person
from portal.deploy_plan import MADE_FOR
from portal.forms.deploy import EDITOR, ENTRY_SCRIPT, KEPT, UPLOAD, CapacityForm, DeployForm
from portal.model_choices import choices
from portal.project_source import Kept
from portal.score_templates import TEMPLATES

# What a room calls a field, and what the form calls it.
_FIELDS = {"model_versions": "models", "source": "archive"}


def bound(request: HttpRequest, service: Service | None) -> tuple[DeployForm, Kept | None]:
    """The form with what was sent. A new upload is stored and takes the place of the kept one."""
    data = request.POST.copy()
    kept = project_source.from_token(person(request), data.get("kept_source", ""))
    problem = None
    if data.get("serving") == ENTRY_SCRIPT and data.get("source_kind") == UPLOAD:
        try:
            blob = project_source.uploaded(request)
        except InvalidInput as error:
            problem = error
        else:
            if blob is not None:
                kept = project_source.keep(person(request), blob)
                data["source_kind"] = KEPT
    data["kept_source"] = kept.token if kept else ""
    form = DeployForm(data, request.FILES, service=service, has_kept=kept is not None)
    if problem is not None:
        form.add_problem(problem)
    return form, kept


def request_of(
    request: HttpRequest, form: DeployForm, service: Service | None, source: Blob | None
) -> changes.DeployRequest:
    """What a valid form asks for; `source` is `source_of` it. An environment that it brings or needs is made.

    Raises InvalidInput under a room's field names (`complain` knows the form's), and other SlipwayErrors.
    """
    data = form.cleaned_data
    models = tuple(data["models"])
    if data["container"] is not None:
        return _container_request(request, data, service)
    scripted = data["serving"] == ENTRY_SCRIPT
    environment = data["environment"] or _brought_environment(request, form, service)
    if environment is None and scripted:
        environment = _made_for(request, models)
    elif environment is None and service is not None:
        # None would keep the environment of the revision before
        environment = no_code.environment_for(person(request), models[0]) if _fits(models) else None
    return changes.DeployRequest(
        name=service.name if service else data["name"],
        update=service is not None,
        version=data.get("version", ""),
        cluster=None if service else data["cluster"],
        model_versions=models,
        source=source,
        entry_script=data["entry_script"] if scripted else "",
        environment=environment,
        config=data["config_values"],
        description=None if service else data["description"],
        tags=None if service else data["tags"],
        note=data["note"],
        keys=brought.keys_from(person(request), data["brought_keys"]),
    )


def _container_request(
    request: HttpRequest, data: dict[str, Any], service: Service | None
) -> changes.DeployRequest:
    return changes.DeployRequest(
        name=service.name if service else data["name"],
        update=service is not None,
        version=data.get("version", ""),
        cluster=None if service else data["cluster"],
        container=data["container"],
        config=data["config_values"],
        description=None if service else data["description"],
        tags=None if service else data["tags"],
        note=data["note"],
        keys=brought.keys_from(person(request), data["brought_keys"]),
    )


def _brought_environment(
    request: HttpRequest, form: DeployForm, service: Service | None
) -> Environment | None:
    """The environment that inferenceconfig.json defines, made now where it is the chosen one."""
    defined = form.cleaned_data["new_environment"]
    if defined is None:
        return None
    name = service.name if service else form.cleaned_data["name"]
    try:
        return create_environment(
            person(request),
            name=defined.name or f"{name}-environment",
            variables=defined.variables,
            description="From inferenceconfig.json.",
            **defined.texts(),
        )
    except InvalidInput as error:
        raise InvalidInput(error.message, field="environment") from error


def _fits(models: tuple[ModelVersion, ...]) -> bool:
    return not no_code.problems(models)


def _made_for(request: HttpRequest, models: tuple[ModelVersion, ...]) -> Any:
    """The environment of the first model's framework, for an entry script that named none."""
    first = models[0]
    if first.framework not in MADE_FOR:
        raise InvalidInput(
            f"No environment is made for the framework of {first} "
            f"({first.get_framework_display()}); choose one.",
            field="environment",
        )
    return no_code.environment_for(person(request), first)


def source_of(form: DeployForm, kept: Kept | None) -> Blob | None:
    """A valid form's project folder, stored and held for a while; None where none is part of it.

    Not within a transaction: the store keeps its rows and its files together. Raises InvalidInput.
    """
    data = form.cleaned_data
    if data["container"] is not None or data["serving"] != ENTRY_SCRIPT:
        return None
    if data["source_kind"] != EDITOR:
        return kept.blob if kept else None
    text = {data["entry_script"]: data["score_py"]}
    return sources.with_text(kept.blob, text) if kept else sources.from_text(text)


def complain(form: DeployForm, problem: InvalidInput) -> None:
    """Beside the field it is about."""
    field = _FIELDS.get(problem.field, problem.field)
    if field == "archive" and form.cleaned_data.get("source_kind") == EDITOR:
        field = "score_py"
    form.add_problem(InvalidInput(problem.message, field=field))


def form_context(
    form: DeployForm, service: Service | None, kept: Kept | None, **more: Any
) -> dict[str, Any]:
    """What templates/services/_form.html takes."""
    chosen = _chosen(form)
    return {
        "form": form,
        "service": service,
        "versions": versions.rows_of(service) if service else [],
        "kept": kept,
        "templates": TEMPLATES,
        "capacity_form": CapacityForm(),
        **choices("", chosen),
        **more,
    }


def _chosen(form: DeployForm) -> list[str]:
    value = form["models"].value() or []
    return [str(item) for item in value]
