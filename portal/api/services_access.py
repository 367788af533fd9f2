"""Keys, tokens and access over the API, in the wire words of Azure ML v1. All of it needs a deployer.

POST  /api/v1/services/<name>/token                 a token: {accessToken, tokenType, refreshAfter, expiryOn}
GET   /api/v1/services/<name>/tokens                what is valid, without the tokens themselves
POST  /api/v1/services/<name>/tokens/<jti>/revoke   one token refused from now on
POST  /api/v1/services/<name>/tokens/revoke         all of them
POST  /api/v1/services/<name>/listkeys              {primaryKey, secondaryKey}
POST  /api/v1/services/<name>/regenerateKeys        {keyType, keyValue?} -> {primaryKey, secondaryKey}
PATCH /api/v1/services/<name>                       Azure's list of {op, path, value}: access and words

Times are seconds since the epoch, which is what Azure's SDK reads. Azure's clients know keys or tokens,
never both: a PATCH that would turn one on beside the other is refused with Azure's words, though the
portal allows it.
"""

from datetime import timedelta
from typing import Any, Literal, cast

from django.http import HttpRequest
from django.utils import timezone
from django.views.decorators.cache import never_cache

from deployments.errors import InvalidInput, NotFound
from deployments.services import changes, keys, tokens
from deployments.services.models import Service
from portal.access import person
from portal.api import services
from portal.api.responses import endpoint, json_of, object_of
from portal.models import Role

_LISTED = 1000
BOTH_AUTHS = (
    "Error, cannot set token_auth_enabled without disabling key auth (set auth_enabled to False)."
)
# Azure's JSON paths and what they are here.
_PATCHABLE = {
    "/authEnabled": ("auth_enabled", bool),
    "/aadAuthEnabled": ("token_auth_enabled", bool),
    "/description": ("description", str),
    "/tags": ("tags", dict),
    "/kvTags": ("tags", dict),
    "/properties": ("properties", dict),
}
_TAKES = {bool: "true or false", str: "a string", dict: "an object of strings"}


@never_cache
@endpoint(Role.DEPLOYER, "POST")
def token(request: HttpRequest, name: str) -> dict[str, Any]:
    """Azure's clients send no body; ours may send {"lifetimeSeconds", "subject"}."""
    asked = object_of(request)
    seconds = asked.get("lifetimeSeconds", tokens.DEFAULT_LIFETIME.total_seconds())
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < 1e9:
        raise InvalidInput("lifetimeSeconds is a number of seconds.", field="lifetimeSeconds")
    issued = tokens.issue(
        person(request),
        _named(name),
        lifetime=timedelta(seconds=seconds),
        subject=str(asked.get("subject", "")),
    )
    return {
        "accessToken": issued.token,
        "tokenType": "Bearer",
        "refreshAfter": int(issued.refresh_after.timestamp()),
        "expiryOn": int(issued.expires_at.timestamp()),
    }


@endpoint(Role.DEPLOYER)
def token_list(request: HttpRequest, name: str) -> dict[str, Any]:
    rows = tokens.live(_named(name), timezone.now()).select_related("created_by")[:_LISTED]
    return {
        "value": [
            {
                "id": row.jti,
                "subject": row.subject,
                "issuedOn": int(row.issued_at.timestamp()),
                "refreshAfter": int(row.refresh_after.timestamp()),
                "expiryOn": int(row.expires_at.timestamp()),
                "createdBy": row.created_by.username if row.created_by else None,
            }
            for row in rows
        ]
    }


@endpoint(Role.DEPLOYER, "POST")
def revoke(request: HttpRequest, name: str, jti: str) -> dict[str, Any]:
    tokens.revoke(person(request), _named(name), jti)
    return {"id": jti, "revoked": 1}


@endpoint(Role.DEPLOYER, "POST")
def revoke_all(request: HttpRequest, name: str) -> dict[str, Any]:
    return {"revoked": tokens.revoke_all(person(request), _named(name))}


@never_cache
@endpoint(Role.DEPLOYER, "POST")
def list_keys(request: HttpRequest, name: str) -> dict[str, Any]:
    primary, secondary = keys.reveal(person(request), _named(name))
    return {"primaryKey": primary, "secondaryKey": secondary}


@never_cache
@endpoint(Role.DEPLOYER, "POST")
def regenerate_keys(request: HttpRequest, name: str) -> dict[str, Any]:
    asked = object_of(request)
    kind, value = asked.get("keyType"), asked.get("keyValue")
    if kind not in ("Primary", "Secondary"):
        raise InvalidInput("keyType is Primary or Secondary.", field="keyType")
    if value is not None and not isinstance(value, str):
        raise InvalidInput("keyValue is a string, or left out.", field="keyValue")
    found = _named(name)
    which = cast(Literal["primary", "secondary"], kind.lower())
    keys.regenerate(person(request), found, which, value)
    primary, secondary = keys.reveal(person(request), found)
    return {"primaryKey": primary, "secondaryKey": secondary}


@endpoint(Role.DEPLOYER, "PATCH")
def update(request: HttpRequest, name: str) -> dict[str, Any]:
    found = _named(name)
    given = _patch(json_of(request))
    auth = given.get("auth_enabled", found.auth_enabled)
    token_auth = given.get("token_auth_enabled", found.token_auth_enabled)
    touched = given.get("auth_enabled") or given.get("token_auth_enabled")
    if auth and token_auth and touched:
        raise InvalidInput(BOTH_AUTHS, field="authEnabled")
    changes.update_access(person(request), found, **given)
    return services.service_json(_named(name))


def _named(name: str) -> Service:
    found = (
        Service.objects.select_related("cluster", "current__environment", "created_by")
        .filter(name=name)
        .first()
    )
    if found is None:
        raise NotFound(f"There is no service named {name}.", code="WebServiceNotFound")
    return found


def _patch(operations: Any) -> dict[str, Any]:
    """Azure's list of operations as arguments of `changes.update_access`."""
    if not isinstance(operations, list):
        raise InvalidInput("A list of {op, path, value} is needed.")
    given: dict[str, Any] = {}
    for item in operations:
        path = item.get("path") if isinstance(item, dict) else None
        known = _PATCHABLE.get(path) if isinstance(path, str) else None
        if known is None or item.get("op") not in ("replace", "add"):
            raise InvalidInput(
                f"Only replace of {', '.join(_PATCHABLE)} is possible here; deploy a new revision to "
                "change anything else."
            )
        name, kind = known
        value = item.get("value")
        words = isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
        if not isinstance(value, kind) or (kind is dict and not words):
            raise InvalidInput(f"{path} takes {_TAKES[kind]}.", field=str(path).lstrip("/"))
        given[name] = value
    return given
