"""A service's versions over the API: what Azure's AksEndpoint can do with them.

GET    /api/v1/services/<name>/versions                     all versions, the default one first
GET    /api/v1/services/<name>/versions/<version>           one of them
PATCH  /api/v1/services/<name>/versions/<version>           trafficPercentile, isDefault, isControlVersionType
DELETE /api/v1/services/<name>/versions/<version>           its share goes to the default, its replicas drain
POST   /api/v1/services/<name>/versions/<version>/promote   the default with all requests, at once
POST   /api/v1/services/<name>/undoPromotion                as it was before the last promotion
PUT    /api/v1/services/<name>/traffic                      {"<version>": percent}; the default has the rest

Deploying to a version is `portal.api.deploying`'s. Azure's Python names (traffic_percentile, is_default,
is_control_version_type) are understood as well. `isDefault: true` is a promotion.
"""

from typing import Any

from django.http import HttpRequest

from deployments.errors import InvalidInput, NotFound
from deployments.services import versions
from deployments.services.models import Service
from portal.access import person
from portal.api.responses import endpoint, object_of
from portal.api.services import named, versions_json
from portal.models import Role

# Azure's wire names and its Python names of one thing.
TRAFFIC = ("trafficPercentile", "traffic_percentile")
DEFAULT = ("isDefault", "is_default")
CONTROL = ("isControlVersionType", "is_control_version_type")


def take(given: dict[str, Any], names: tuple[str, ...], kind: type) -> Any:
    """Remove a value that has several names; None where it is not given. Raises InvalidInput."""
    value = None
    for name in names:
        if name in given:
            value = given.pop(name)
    right = value is None or (
        isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    )
    if not right:
        takes = "true or false" if kind is bool else "a whole number of percent, 0 to 100"
        raise InvalidInput(f"{names[0]} is {value!r}; it takes {takes}.", field=names[0])
    return value


def take_control(given: dict[str, Any]) -> bool | None:
    """Whether it is the control: by its flag, or by Azure's `type` (Control or Treatment)."""
    control: bool | None = take(given, CONTROL, bool)
    kind = given.pop("type", None)
    if kind not in (None, "Control", "Treatment"):
        raise InvalidInput(f"type is {kind!r}; it is Control or Treatment.", field="type")
    return control if kind is None else kind == "Control"


@endpoint(Role.VIEWER)
def version_list(request: HttpRequest, name: str) -> dict[str, Any]:
    return {"value": list(versions_json(named(name)).values())}


@endpoint(Role.VIEWER)
def version_detail(request: HttpRequest, name: str, version: str) -> dict[str, Any]:
    return _one(name, version)


@endpoint(Role.DEPLOYER, "PATCH")
def change(request: HttpRequest, name: str, version: str) -> dict[str, Any]:
    given = object_of(request)
    percent = take(given, TRAFFIC, int)
    default = take(given, DEFAULT, bool)
    control = take_control(given)
    if given:
        raise InvalidInput(
            f"{min(given)} cannot be changed here; deploy a new revision to the version (PUT).",
            field=min(given),
        )
    service = named(name)
    own = _named(service, version)
    if percent is not None and default:
        raise InvalidInput(
            "Give trafficPercentile or isDefault: the default version takes what is left.",
            field=TRAFFIC[0],
        )
    if default is False and own.is_default:
        raise InvalidInput(
            f"{version} is the default version until another one is promoted.", field=DEFAULT[0]
        )
    if control is False and versions.control_of(service.versions.all()) == version:
        raise InvalidInput(
            f"{version} is the control until another version is made it.", field=CONTROL[0]
        )
    if percent is not None:
        try:
            versions.set_traffic(person(request), service, {version: percent})
        except InvalidInput as error:
            raise InvalidInput(error.message, field=TRAFFIC[0]) from error
    if default and not own.is_default:
        versions.promote(person(request), service, version)
    if control:
        versions.set_control(person(request), service, version)
    return _one(name, version)


@endpoint(Role.DEPLOYER, "DELETE")
def delete(request: HttpRequest, name: str, version: str) -> dict[str, Any]:
    service = named(name)
    versions.delete_version(person(request), service, version)
    return {"value": list(versions_json(named(name)).values())}


@endpoint(Role.DEPLOYER, "POST")
def promote(request: HttpRequest, name: str, version: str) -> dict[str, Any]:
    versions.promote(person(request), named(name), version)
    return {"value": list(versions_json(named(name)).values())}


@endpoint(Role.DEPLOYER, "POST")
def undo(request: HttpRequest, name: str) -> dict[str, Any]:
    versions.undo_promotion(person(request), named(name))
    return {"value": list(versions_json(named(name)).values())}


@endpoint(Role.DEPLOYER, "PUT")
def traffic(request: HttpRequest, name: str) -> dict[str, Any]:
    versions.set_traffic(person(request), named(name), object_of(request))
    return {"value": list(versions_json(named(name)).values())}


def _named(service: Service, version: str) -> Any:
    found = next((row for row in service.versions.all() if row.name == version), None)
    if found is None:
        raise NotFound(f"{service.name} has no version {version}.", code="VersionNotFound")
    return found


def _one(name: str, version: str) -> dict[str, Any]:
    service = named(name)
    _named(service, version)
    return versions_json(service)[version]
