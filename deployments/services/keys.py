"""A service's two keys: made here, kept encrypted, shown to people who ask and to nobody else.

At rest a key is a Fernet text under a key derived from SECRET_KEY; on the way to the cluster it is a
SHA-256 digest. A key is never written to a log, an audit row or a process list.
"""

import hashlib
import secrets
import string
from typing import TYPE_CHECKING, Literal

from django.db import transaction
from django.db.models import F

from deployments import sealed
from deployments.audit.record import record
from deployments.errors import InvalidInput
from deployments.services.models import Service
from deployments.signals import announce

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

Which = Literal["primary", "secondary"]

_ALPHABET = string.ascii_letters + string.digits
_LENGTH = 32  # 190 bits, the length Azure's clients expect
_SHORTEST_GIVEN = 16
_LONGEST_GIVEN = 256


def generate() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def check_given(primary: str, secondary: str) -> list[InvalidInput]:
    """What is wrong with keys a person brought along; their values are never repeated."""
    found = [
        wrong
        for field, value in (("primary_key", primary), ("secondary_key", secondary))
        if (wrong := _misfit(value, field)) is not None
    ]
    if not found and primary == secondary:
        found.append(InvalidInput("The two keys must differ.", field="secondary_key"))
    return found


def _misfit(value: str, field: str) -> InvalidInput | None:
    if not _SHORTEST_GIVEN <= len(value) <= _LONGEST_GIVEN:
        return InvalidInput(
            f"A key has {_SHORTEST_GIVEN} to {_LONGEST_GIVEN} characters; "
            f"this one has {len(value)}.",
            field=field,
        )
    if not all("!" <= character <= "~" for character in value):
        return InvalidInput("A key takes ASCII characters without spaces.", field=field)
    return None


def encrypt(key: str) -> str:
    return sealed.seal(key, sealed.SERVICE_KEYS)


def decrypt(text: str) -> str:
    """The key in a Fernet text; raises PermanentError when SECRET_KEY is another one now."""
    return sealed.unseal(
        text, sealed.SERVICE_KEYS, what="A key of the service", remedy="regenerate both keys"
    )


def read(service: Service) -> tuple[str, str]:
    """(primary, secondary) for the system's own use; a person's look goes through `reveal`."""
    return decrypt(service.primary_key), decrypt(service.secondary_key)


def reveal(actor: "AbstractBaseUser | None", service: Service) -> tuple[str, str]:
    """(primary, secondary) for a person's eyes. Leaves an audit row."""
    keys = read(service)
    record(actor, "service.keys.reveal", "service", service.name)
    return keys


def digest(key: str) -> str:
    """Lower-case hex SHA-256; the only form in which a key leaves the database."""
    return hashlib.sha256(key.encode()).hexdigest()


def digests(service: Service) -> tuple[str, ...]:
    """Digests of both keys, primary first."""
    return tuple(digest(key) for key in read(service))


def regenerate(
    actor: "AbstractBaseUser | None", service: Service, which: Which, value: str | None = None
) -> str:
    """Replace one key, by `value` where a person brings one; the other goes on working. Returns the
    new one.

    The cluster learns of it at once, without a new revision: the old key stops working within the
    router's next second.
    """
    # imported here: applying needs the driver table, which reading keys does not
    from deployments.services.apply import apply_on_commit

    if which not in ("primary", "secondary"):
        raise InvalidInput("Only the primary or the secondary key can be regenerated.")
    fresh = value or generate()
    if value and (wrong := _misfit(value, f"{which}_key")):
        raise wrong
    with transaction.atomic():
        locked = Service.objects.select_for_update().get(pk=service.pk)
        other = locked.secondary_key if which == "primary" else locked.primary_key
        if value and decrypt(other) == value:
            raise InvalidInput("The two keys must differ.", field=f"{which}_key")
        Service.objects.filter(pk=service.pk).update(
            **{f"{which}_key": encrypt(fresh)}, generation=F("generation") + 1
        )
        service.refresh_from_db(fields=["primary_key", "secondary_key", "generation"])
        record(actor, "service.keys.regenerate", "service", service.name, after={"key": which})
        apply_on_commit(service.pk)
        announce("service", service.name)
    return fresh
