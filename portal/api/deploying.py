"""Deploying over the API: services made, revisions given to their versions, services deleted.

POST   /api/v1/services                             a new service; 202 with its deployment
PUT    /api/v1/services/<name>                      the next revision of its default version, or another
PUT    /api/v1/services/<name>/versions/<version>   the same for this version, which is made where it is new
DELETE /api/v1/services/<name>                      the service; its replicas finish their requests

The body is the service as GET shows it, with Azure's names: `models` (["diabetes:1"]), `environment`
({"name", "version"}; a brought image: {"image", "inferenceConfig"}), `entryScript` with `files`
({"score.py": "..."}), and deploymentconfig.json's keys. What an update leaves out stays. A version is
named by `versionName`, or holds its part of the body in
`versions` ({"green": {...}}), as AksEndpoint has it; one deployment brings one version.
"""

import json
from collections.abc import Callable
from typing import Any, cast

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from deployments.clusters.models import Cluster
from deployments.environments.models import Environment
from deployments.errors import InvalidInput
from deployments.registry.models import ModelVersion
from deployments.services import changes, config, containers, sources, versions
from deployments.services.models import Deployment
from portal.access import person
from portal.api import services, services_access
from portal.api import versions as versions_api
from portal.api.responses import endpoint, object_of
from portal.forms.fields import split_version, versions_named
from portal.models import Role

_COMPUTE_TYPES = ("aks", "aksendpoint", "local")
# Said by GET and of no meaning in a body that is sent back.
_TOLD = frozenset(
    {
        "id", "state", "error", "scoringUri", "swaggerUri", "createdTime", "updatedTime", "createdBy",
        "deploymentStatus", "revision",
    }
)  # fmt: skip
_TEXTS = (("description", "description"), ("note", "note"))
_MAPS = (("kvTags", "tags"), ("tags", "tags"), ("properties", "properties"))


def _by_method(**views: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """One address whose methods need different roles; GET's view answers what is not there."""

    @csrf_exempt  # both are answered by the endpoints, in the API's shape
    @login_not_required
    def view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return views.get(request.method or "", views["GET"])(request, *args, **kwargs)

    return view


@endpoint(Role.DEPLOYER, "POST")
def create(request: HttpRequest) -> tuple[int, dict[str, Any]]:
    given = object_of(request)
    name = given.pop("name", "")
    if not isinstance(name, str) or not name:
        raise InvalidInput("Give the service a name.", field="name")
    return _deploy(request, name, given, update=False)


@endpoint(Role.DEPLOYER, "PUT")
def update(request: HttpRequest, name: str, version: str = "") -> tuple[int, dict[str, Any]]:
    given = object_of(request)
    services.named(name)
    if given.pop("name", name) not in (name, version):
        raise InvalidInput("A service's name never changes.", field="name")
    return _deploy(request, name, given, update=True, version=version)


@endpoint(Role.DEPLOYER, "DELETE")
def delete(request: HttpRequest, name: str) -> tuple[int, dict[str, Any]]:
    changes.delete_service(person(request), services.named(name))
    return 202, services.service_json(services.named(name))


def _deploy(
    request: HttpRequest, name: str, given: dict[str, Any], *, update: bool, version: str = ""
) -> tuple[int, dict[str, Any]]:
    given, version = _one_version(given, version)
    default = versions_api.take(given, versions_api.DEFAULT, bool)
    percent = versions_api.take(given, versions_api.TRAFFIC, int)
    control = versions_api.take_control(given)
    if default and update and (own := versions.find(services.named(name), version)) is not None:
        default = None if own.is_default else default
    if default and update:
        raise InvalidInput(
            "A version is promoted once its deployment has succeeded, with "
            f"POST /api/v1/services/{name}/versions/{version}/promote.",
            field="isDefault",
        )
    asked = _request(name, given, update=update, version=version, percent=percent)
    deployment = changes.deploy(person(request), asked)
    if control:
        versions.set_control(person(request), deployment.service, deployment.version_name)
    row = Deployment.objects.select_related("service", "revision", "created_by")
    return 202, services.deployment_json(row.get(pk=deployment.pk))


def _one_version(given: dict[str, Any], version: str) -> tuple[dict[str, Any], str]:
    """The body with its version's part in it, and that version's name ("" the default one)."""
    found = {name: value for name, value in given.items() if name not in _TOLD}
    named = found.pop("versionName", found.pop("version_name", version))
    inner = found.pop("versions", None)
    if inner is not None:
        if not isinstance(inner, dict) or not all(isinstance(v, dict) for v in inner.values()):
            raise InvalidInput("versions is an object of objects, by name.", field="versions")
        if len(inner) != 1:
            raise InvalidInput(
                "One deployment brings one version; deploy to the others one after another.",
                field="versions",
            )
        ((named, own),) = inner.items()
        found |= {name: value for name, value in own.items() if name not in (*_TOLD, "name")}
    if not isinstance(named, str) or (version and named != version):
        raise InvalidInput(f"The body speaks of version {named}, the address of {version}.")
    return found, named


def _request(
    name: str, given: dict[str, Any], *, update: bool, version: str, percent: int | None
) -> changes.DeployRequest:
    values: dict[str, Any] = {"traffic_percent": percent}
    for key, field in _TEXTS:
        if key in given:
            values[field] = _text(given.pop(key), key)
    for key, field in _MAPS:
        if key in given:
            values[field] = _map(given.pop(key), key)
    if "corsOrigins" in given:
        origins = given.pop("corsOrigins")
        if not isinstance(origins, list) or not all(isinstance(item, str) for item in origins):
            raise InvalidInput("corsOrigins is a list of origins.", field="corsOrigins")
        values["cors_origins"] = tuple(origins)
    if "computeName" in given:
        values["cluster"] = _cluster(_text(given.pop("computeName"), "computeName"))
    if (kind := given.pop("computeType", None)) is not None and (
        str(kind).lower() not in _COMPUTE_TYPES
    ):
        raise InvalidInput(f"computeType is {kind!r}; it is AKS.", field="computeType")
    for key in ("models", "modelIds"):
        if key in given:
            values["model_versions"] = _models(given.pop(key))
    if "environment" in given:
        said = given.pop("environment")
        if isinstance(said, dict) and "image" in said:
            image = _text(said["image"], "environment.image")
            routes = said.get("inferenceConfig") or {}
            values["container"] = containers.from_azure(
                image, routes, "environment.inferenceConfig"
            )
        else:
            values["environment"] = _environment(said)
    values |= _script(given)
    if "aadAuthEnabled" in given:
        given.setdefault("tokenAuthEnabled", given.pop("aadAuthEnabled"))
    values["config"], values["keys"] = _config(given, update=update)
    return changes.DeployRequest(name=name, update=update, version=version, **values)


def _config(
    given: dict[str, Any], *, update: bool
) -> tuple[dict[str, Any], tuple[str, str] | None]:
    """The deployment configuration and the keys brought along. Both kinds of Azure's names do."""
    found, unknown = config.from_azure_json(json.dumps(given))
    for name in unknown:
        if name not in config.NAMES:
            raise InvalidInput(f"Nothing here knows {name}.", field=name)
        found[name] = given[name]
    primary, secondary = found.pop("primary_key", None), found.pop("secondary_key", None)
    if found.get("token_auth_enabled") and found.get("auth_enabled", not update):
        raise InvalidInput(services_access.BOTH_AUTHS, field="authEnabled")
    if (primary is None) != (secondary is None):
        raise InvalidInput("Give both keys, or none.", field="keys")
    return found, (str(primary), str(secondary)) if primary is not None else None


def _script(given: dict[str, Any]) -> dict[str, Any]:
    """The entry script and the project folder, where they are given as texts."""
    values: dict[str, Any] = {}
    if "entryScript" in given:
        script = given.pop("entryScript")
        values["entry_script"] = "" if script is None else _text(script, "entryScript")
    if "files" in given:
        values["source"] = sources.from_text(_map(given.pop("files"), "files"))
    return values


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{name} is a string.", field=name)
    return value


def _map(value: Any, name: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise InvalidInput(f"{name} is an object of strings.", field=name)
    return value


def _cluster(name: str) -> Cluster:
    cluster = Cluster.objects.select_related("sku").filter(name=name).first()
    if cluster is None:
        raise InvalidInput(f"There is no cluster {name}.", field="computeName")
    return cluster


def _models(value: Any) -> tuple[ModelVersion, ...]:
    if not isinstance(value, list):
        raise InvalidInput("models is a list such as ['diabetes:1'].", field="models")
    wanted = []
    for item in value:
        text = item.get("id") if isinstance(item, dict) else item
        pair = split_version(text) if isinstance(text, str) else None
        if pair is None:
            raise InvalidInput(
                f"{text!r} is not a model version; write name:version.", field="models"
            )
        wanted.append(pair)
    found = versions_named(wanted)
    for name, number in wanted:
        if (name, number) not in found:
            raise InvalidInput(f"{name}:{number} is not registered.", field="models")
    return tuple(found[pair] for pair in wanted)


def _environment(value: Any) -> Environment | None:
    """By name and version, or the newest of a name; None is one made for the model's framework."""
    if value is None:
        return None
    if isinstance(value, str):
        name, _, number = value.partition(":")
        value = {"name": name, "version": number}
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise InvalidInput('environment is {"name", "version"}.', field="environment")
    rows = Environment.objects.filter(name=value["name"])
    number = str(value.get("version") or "")
    if number:
        rows = (
            rows.filter(version=int(number))
            if number.isascii() and number.isdigit()
            else rows.none()
        )
    found = rows.order_by("-version").first()
    if found is None:
        raise InvalidInput(
            f"There is no environment {value['name']} {number}".rstrip() + ".", field="environment"
        )
    return found


services_view = _by_method(GET=services.service_list, POST=create)
service_view = _by_method(
    GET=services.service_detail, PATCH=services_access.update, PUT=update, DELETE=delete
)
version_view = _by_method(
    GET=versions_api.version_detail,
    PUT=cast(Callable[..., HttpResponse], update),
    PATCH=versions_api.change,
    DELETE=versions_api.delete,
)
