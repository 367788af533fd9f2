"""The one function that writes audit rows."""

from typing import TYPE_CHECKING, Any

from deployments.audit.models import AuditEntry

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser


def record(
    actor: "AbstractBaseUser | None",
    action: str,
    object_type: str,
    object_name: str,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    """Write one audit row. `actor` None is the system itself. Never pass a secret in the values."""
    AuditEntry.objects.create(
        actor_id=actor.pk if actor is not None else None,
        actor_name=actor.get_username() if actor is not None else "slipway",
        action=action,
        object_type=object_type,
        object_name=object_name,
        before=before,
        after=after,
    )
