"""The functions that change people. Each writes its audit row in its own transaction.

The rule that holds everywhere: there is always at least one active administrator. Passwords never reach
the audit.
"""

from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.contrib.auth.hashers import check_password
from django.db import IntegrityError, transaction

from deployments.audit.record import record
from deployments.errors import InvalidInput
from portal.models import Role, User


@dataclass(frozen=True, slots=True)
class Details:
    """What a person's page shows and changes."""

    role: str
    first_name: str = ""
    last_name: str = ""
    email: str = ""
    is_active: bool = True


def _values(person: User) -> dict[str, object]:
    return {
        "role": str(person.role),
        "active": person.is_active,
        "name": person.get_full_name(),
        "email": person.email,
    }


@transaction.atomic
def add_person(actor: User, username: str, password: str, details: Details) -> User:
    """A new person. Raises InvalidInput where the username is taken, in whatever case."""
    if User.objects.filter(username__iexact=username).exists():
        raise InvalidInput(f"{username} is taken; choose another.", field="username")
    person = User(username=username, **_columns(details))
    person.set_password(password)
    try:
        with transaction.atomic():
            person.save()
    except IntegrityError as error:
        raise InvalidInput(f"{username} is taken; choose another.", field="username") from error
    record(actor, "person.add", "person", username, after=_values(person))
    return person


@transaction.atomic
def change_person(actor: User, pk: int, details: Details) -> User:
    """Change details, role or activity. Raises InvalidInput for the last active administrator."""
    # All administrators are locked, so that two demotions at once cannot both find the other one left.
    administrators = list(
        User.objects.select_for_update().filter(role=Role.ADMINISTRATOR, is_active=True)
    )
    person = User.objects.select_for_update().get(pk=pk)
    stays = details.role == Role.ADMINISTRATOR and details.is_active
    if not stays and [one.pk for one in administrators] == [pk]:
        raise InvalidInput(
            f"{person.username} is the last active administrator. Make somebody else one first.",
            field="role" if details.role != Role.ADMINISTRATOR else "is_active",
        )
    before = _values(person)
    for name, value in _columns(details).items():
        setattr(person, name, value)
    if _values(person) == before:
        return person
    person.save(update_fields=list(_columns(details)))
    record(actor, "person.change", "person", person.username, before=before, after=_values(person))
    return person


@transaction.atomic
def set_password(actor: User, person: User, password: str) -> None:
    """Set a password: one's own, or another's by an administrator. Ends the person's other sessions."""
    one_time = _is_one_time(person)
    person.set_password(password)
    person.save(update_fields=["password"])
    record(actor, "person.password", "person", person.username)
    if one_time:
        transaction.on_commit(lambda: settings.HOME.admin_password.unlink(missing_ok=True))


def _is_one_time(person: User) -> bool:
    """Whether the file of the first start holds this person's present password."""
    path: Path = settings.HOME.admin_password
    try:
        kept = path.read_text(encoding="utf-8").strip()
    except OSError:
        return False
    # `User.check_password` could save the row (hash upgrade); this only looks.
    return check_password(kept, person.password)


def _columns(details: Details) -> dict[str, object]:
    return {
        "role": details.role,
        "first_name": details.first_name,
        "last_name": details.last_name,
        "email": details.email,
        "is_active": details.is_active,
    }
