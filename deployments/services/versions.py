"""The versions of a service: which there are, what serves in each, and how requests are split.

The one place that writes `ServiceVersion.current` and with it `Service.current`, which is the default
version's. Shares, the default and the control are changed at once, without a deployment: the versions
run already and only the router's maps change. So it may be done while a deployment runs, too.
Each change takes the actor first, is one transaction, leaves an audit row and announces.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from deployments.audit.record import record
from deployments.errors import Conflict, InvalidInput, NotFound
from deployments.services.apply import apply_on_commit
from deployments.services.models import (
    DEFAULT_VERSION,
    UNFINISHED,
    Deployment,
    DeploymentState,
    Revision,
    Service,
    ServiceVersion,
    version_name_validator,
)
from deployments.services.traffic import MOST_VERSIONS, Share, problems, split
from deployments.signals import announce

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

# ---- questions --------------------------------------------------------------------------------


def rows_of(service: Service) -> list[ServiceVersion]:
    """Its versions with their revisions, the default one first."""
    return list(service.versions.select_related("current"))


def find(service: Service, name: str = "") -> ServiceVersion | None:
    """The version of this name, the default one for ""; None where there is none."""
    rows = service.versions.select_related("current")
    return rows.filter(**({"name": name} if name else {"is_default": True})).first()


def shares(rows: Iterable[ServiceVersion]) -> dict[str, int]:
    """Percent of the requests by version's name."""
    return split([row.share for row in rows])


def control_of(rows: Iterable[ServiceVersion]) -> str:
    """The name of the version the others are compared with: the one marked, else the default."""
    ordered = sorted(rows, key=lambda row: (not row.is_control, not row.is_default))
    return ordered[0].name if ordered else ""


def name_problems(service: Service | None, name: str) -> list[InvalidInput]:
    """Why nothing can be deployed to a version of this name; "" is the default one."""
    if not name:
        return []
    try:
        version_name_validator(name)
    except ValidationError as error:
        return [InvalidInput(error.messages[0], field="version")]
    if service is None:
        return []
    rows = rows_of(service)
    if not rows or any(row.name == name for row in rows):
        return []
    if service.current_id is None:
        said = f"{service.name} does not serve yet. Deploy to {rows[0].name}, its default version."
        return [InvalidInput(f"{said} Other versions come after it.", field="version")]
    if len(rows) >= MOST_VERSIONS:
        return [
            InvalidInput(
                f"{service.name} has {len(rows)} versions, the most there can be. Delete one, or "
                "deploy to one of them.",
                field="version",
            )
        ]
    return []


def share_problems(service: Service | None, name: str, percent: int | None) -> list[InvalidInput]:
    """Why a deployment to this version cannot bring it this share when it succeeds."""
    if percent is None or service is None:
        return []
    rows = rows_of(service)
    own = find(service, name)
    others = [row.share for row in rows if own is None or row.pk != own.pk]
    given = Share(name, 0, own is not None and own.is_default, proven=True)
    found = problems({name: percent}, [*others, given])
    return [InvalidInput(problem.message, field="traffic_percentile") for problem in found]


# ---- what deployments do to them ---------------------------------------------------------------


def ensure(actor: "AbstractBaseUser | None", service: Service, name: str = "") -> ServiceVersion:
    """The version of this name, made where it is new: with no share, and nothing running in it.

    A service's first version is its default. Within the transaction of a deployment.
    """
    found = find(service, name)
    if found is not None:
        return found
    return ServiceVersion.objects.create(
        service=service,
        name=name or DEFAULT_VERSION,
        is_default=not service.versions.filter(is_default=True).exists(),
        created_by_id=actor.pk if actor else None,
    )


def reserve(
    actor: "AbstractBaseUser | None", service: Service, version: ServiceVersion, percent: int
) -> None:
    """Give a version its share within the transaction of a deployment to it.

    One that serves already has it at once; a new one gets it when its deployment succeeds.
    """
    if found := share_problems(service, version.name, percent):
        raise found[0]
    if version.is_default or version.traffic_percent == percent:
        return
    before = shares(rows_of(service))
    version.traffic_percent = percent
    rows = [version if row.pk == version.pk else row for row in rows_of(service)]
    _keep_split(actor, service, rows, "service.traffic", before)


def set_current(service: Service, version: ServiceVersion, revision: Revision | None) -> None:
    """What serves in a version; None is nothing. The service's row must be locked and is saved.

    The caller applies it: the generation is raised here.
    """
    version.current = revision
    version.save(update_fields=["current"])
    fields = ["generation", "updated_at"]
    if version.is_default:
        service.current = revision
        fields.append("current")
    service.generation += 1
    service.save(update_fields=fields)


def prove(deployment: Deployment) -> None:
    """A deployment of the version has succeeded: from now on it gets the share it has been given."""
    service = Service.objects.select_for_update().get(pk=deployment.service_id)
    version = find(service, deployment.version_name)
    if version is None or version.proven:
        return
    version.proven = True
    version.save(update_fields=["proven"])
    if version.traffic_percent and not version.is_default:
        _changed(service)


# ---- what people do to them --------------------------------------------------------------------


def set_traffic(
    actor: "AbstractBaseUser | None", service: Service, asked: Mapping[str, int]
) -> dict[str, int]:
    """Give versions their share in percent; the default takes the rest. Returns the new split.

    Versions that are not named keep theirs. Raises InvalidInput that names the version.
    """
    with transaction.atomic():
        locked, rows = _locked(service)
        if found := problems(asked, [row.share for row in rows]):
            raise found[0]
        before = shares(rows)
        changed = [
            row
            for row in rows
            if not row.is_default
            and asked.get(row.name, row.traffic_percent) != row.traffic_percent
        ]
        if not changed:
            return before
        for row in changed:
            row.traffic_percent = asked[row.name]
        return _keep_split(actor, locked, rows, "service.traffic", before)


def promote(actor: "AbstractBaseUser | None", service: Service, name: str) -> dict[str, int]:
    """Make a version the default with all requests; how it was is remembered. At once: it runs."""
    with transaction.atomic():
        locked, rows = _locked(service)
        target = _named(rows, name)
        if target.is_default and shares(rows)[name] == 100:
            raise InvalidInput(f"{name} is the default version and has all requests already.")
        if target.current_id is None or not target.proven:
            raise InvalidInput(
                f"No deployment of {name} has succeeded yet; it cannot be promoted. Deploy to it "
                "first."
            )
        before = shares(rows)
        default = next((row.name for row in rows if row.is_default), "")
        remembered = {
            "default": default,
            "shares": {row.name: row.traffic_percent for row in rows if not row.is_default},
        }
        for row in rows:
            row.traffic_percent = 0
            row.before_promotion = None
        target.before_promotion = remembered
        _make_default(locked, rows, target)
        return _keep_split(actor, locked, rows, "service.promote", before)


def undo_promotion(actor: "AbstractBaseUser | None", service: Service) -> dict[str, int]:
    """Back to the default and the shares of before the last promotion. At once: all of it runs."""
    with transaction.atomic():
        locked, rows = _locked(service)
        default = next((row for row in rows if row.is_default), None)
        remembered = default.before_promotion if default is not None else None
        target = next((row for row in rows if row.name == (remembered or {}).get("default")), None)
        if remembered is None or target is None or target.current_id is None:
            raise InvalidInput("There is no promotion to undo.")
        before = shares(rows)
        for row in rows:
            row.traffic_percent = int(remembered["shares"].get(row.name, 0))
            row.before_promotion = None
        _make_default(locked, rows, target)
        return _keep_split(actor, locked, rows, "service.promote.undo", before)


def set_control(actor: "AbstractBaseUser | None", service: Service, name: str) -> None:
    """Name the version the others are compared with. It changes no request."""
    with transaction.atomic():
        locked, rows = _locked(service)
        target = _named(rows, name)
        before = control_of(rows)
        if target.is_control:
            return
        locked.versions.update(is_control=False)
        ServiceVersion.objects.filter(pk=target.pk).update(is_control=True)
        record(
            actor,
            "service.control",
            "service",
            locked.name,
            before={"control": before},
            after={"control": name},
        )
        announce("service", locked.name)


def delete_version(actor: "AbstractBaseUser | None", service: Service, name: str) -> None:
    """Take a version out: its share goes to the default, its replicas finish their requests.

    A deployment of it that is under way is cancelled, as with a service. Raises Conflict while one
    of another version runs, InvalidInput for the default version.
    """
    with transaction.atomic():
        locked, rows = _locked(service)
        target = _named(rows, name)
        if target.is_default:
            raise InvalidInput(
                f"{name} is the default version; promote another one first, or delete the service."
            )
        running = locked.deployments.filter(state__in=UNFINISHED).first()
        if running is not None and running.version_name != name:
            raise Conflict(
                f"Deployment {running.pk} of version {running.version_name} is under way; one "
                "operation on a service runs at a time. Wait for it to end.",
                code="Conflict",
            )
        if running is not None:
            Deployment.objects.filter(pk=running.pk).update(
                state=DeploymentState.CANCELLED,
                cause_code="Cancelled",
                cause=f"Version {name} was deleted while this deployment ran.",
                finished_at=timezone.now(),
            )
            announce("deployment", running.pk)
        before = shares(rows)
        target.delete()
        rows = [row for row in rows if row.name != name]
        for row in rows:
            if (row.before_promotion or {}).get("default") == name:
                row.before_promotion = None
        _keep_split(actor, locked, rows, "service.version.delete", before, version=name)


def can_undo(rows: Iterable[ServiceVersion]) -> str:
    """The name of the version that undoing the last promotion makes the default; "" for none."""
    found = {row.name: row for row in rows}
    for row in found.values():
        if row.is_default and row.before_promotion:
            back = found.get(row.before_promotion.get("default", ""))
            return back.name if back is not None and back.current_id is not None else ""
    return ""


# ---- within a transaction ----------------------------------------------------------------------


def _locked(service: Service) -> tuple[Service, list[ServiceVersion]]:
    """The service's row, locked, and its versions. Raises NotFound, Conflict."""
    locked = Service.objects.select_for_update().filter(pk=service.pk).first()
    if locked is None:
        raise NotFound(f"There is no service {service.name}.")
    if locked.deleting:
        raise Conflict(f"{locked.name} is being deleted.", code="Conflict")
    return locked, rows_of(locked)


def _named(rows: Iterable[ServiceVersion], name: str) -> ServiceVersion:
    for row in rows:
        if row.name == name:
            return row
    raise NotFound(f"There is no version {name}; it may have been deleted.")


def _make_default(service: Service, rows: Iterable[ServiceVersion], target: ServiceVersion) -> None:
    """Not saved for those that stay what they are; the old default goes first, one may be it."""
    for row in rows:
        if row.is_default and row.pk != target.pk:
            row.is_default = False
            row.save(update_fields=["is_default"])
    target.is_default = True
    target.save(update_fields=["is_default"])
    service.current = target.current
    service.save(update_fields=["current", "updated_at"])


def _keep_split(
    actor: "AbstractBaseUser | None",
    service: Service,
    rows: list[ServiceVersion],
    action: str,
    before: dict[str, int],
    **more: Any,
) -> dict[str, int]:
    """Save the shares, raise the generation, have it applied, leave an audit row."""
    ServiceVersion.objects.bulk_update(rows, ["traffic_percent", "before_promotion"])
    after = shares(rows)
    default = next((row.name for row in rows if row.is_default), "")
    record(
        actor,
        action,
        "service",
        service.name,
        before={"traffic": before},
        after={"traffic": after, "default": default, **more},
    )
    _changed(service)
    return after


def _changed(service: Service) -> None:
    service.generation += 1
    service.save(update_fields=["generation", "updated_at"])
    apply_on_commit(service.pk)
    announce("service", service.name)
