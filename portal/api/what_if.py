"""What-ifs over the API: a past range of a service run again with other settings.

GET  /api/v1/services/<name>/whatIfs               the latest ones, newest first, without their results
POST /api/v1/services/<name>/whatIfs               ask; 202 with the row, whose state goes to done
GET  /api/v1/services/<name>/whatIfs/<id>          one of them, with its result once it is done
POST /api/v1/services/<name>/whatIfs/<id>/cancel   stop it
POST /api/v1/services/<name>/whatIfs/<id>/apply    deploy a revision with its settings

The question: `version`, `since` and `until` (ISO 8601 or epoch seconds), and of the settings those that are
to differ: `minReplicas`, `maxReplicas`, `targetUtilization`, `maxConcurrentRequestsPerContainer`,
`startSeconds`, `pricePerReplicaHour`.
"""

from datetime import datetime
from typing import Any

from django.http import HttpRequest
from django.utils import timezone

from deployments.errors import InvalidInput
from deployments.services.models import Service
from portal import what_if as words
from portal.access import person
from portal.api.responses import endpoint, object_of
from portal.api.services import deployment_json, named
from portal.forms.what_if import WhatIfForm
from portal.models import Role
from router.telemetry import what_if as runs
from router.telemetry.models import WhatIf

_LISTED = 50
_WIRE = {
    "minReplicas": "minimum",
    "maxReplicas": "maximum",
    "targetUtilization": "target",
    "maxConcurrentRequestsPerContainer": "concurrency",
    "startSeconds": "start_seconds",
    "pricePerReplicaHour": "price",
}


@endpoint(Role.VIEWER, "GET", "POST")
def what_ifs(request: HttpRequest, name: str) -> Any:
    service = named(name)
    if request.method == "POST":
        return 202, words.as_json(_ask(request, service))
    rows = WhatIf.objects.filter(service=name).defer("result")[:_LISTED]
    return {"value": [words.as_json(row) | {"result": None} for row in rows]}


@endpoint(Role.VIEWER)
def what_if(request: HttpRequest, name: str, pk: int) -> dict[str, Any]:
    return words.as_json(runs.find(named(name).name, pk))


@endpoint(Role.VIEWER, "POST")
def cancel(request: HttpRequest, name: str, pk: int) -> dict[str, Any]:
    row = runs.find(named(name).name, pk)
    runs.cancel(row)
    row.refresh_from_db()
    return words.as_json(row)


@endpoint(Role.DEPLOYER, "POST")
def apply(request: HttpRequest, name: str, pk: int) -> Any:
    service = named(name)
    return 202, deployment_json(words.apply(person(request), service, runs.find(name, pk)))


def _ask(request: HttpRequest, service: Service) -> WhatIf:
    given = object_of(request)
    version = given.pop("version", None) or words.default_version(service)
    if not isinstance(version, str) or not service.versions.filter(name=version).exists():
        raise InvalidInput(f"{service.name} has no version {version!r}.", field="version")
    since, until = (_moment(given.pop(key, None), key) for key in ("since", "until"))
    if unknown := sorted(set(given) - set(_WIRE)):
        raise InvalidInput(f"{unknown[0]} means nothing here.", field=unknown[0])
    form = WhatIfForm(
        {"span": "1h", "version": version, **{_WIRE[key]: given[key] for key in given}},
        versions=[version],
    )
    if not form.is_valid():
        field, problems = next(iter(form.errors.items()))
        wire = next((key for key, ours in _WIRE.items() if ours == field), field)
        raise InvalidInput(str(problems[0]), field=wire)
    asked = words.question(
        service, version, since, until, form.settings(), form.cleaned_data["price"]
    )
    return runs.ask(person(request).username, asked)


def _moment(value: object, field: str) -> int:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value)
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise InvalidInput(
            f"{field} is {value!r}; give a time such as 2026-03-01T03:12:00Z, or epoch seconds.",
            field=field,
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.get_current_timezone())
    return int(moment.timestamp())
