"""Registries as rows: made, changed, tested and removed by administrators; and what they are used with.

Each change writes its audit row, without the password. A stored password goes only where it was entered
for: whoever changes the address, the user or plain http enters it again.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from deployments import sealed
from deployments.audit.record import record
from deployments.environments import usage
from deployments.environments.models import BuildState
from deployments.errors import Conflict, InvalidInput, SlipwayError
from deployments.images import outbound, references
from deployments.images.models import ImageBuild, Registry
from deployments.images.registry_api import Access, RegistryApi, system_resolver
from deployments.signals import announce

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

_REPOSITORY = re.compile(r"^[a-z0-9]+(?:[._/-]+[a-z0-9]+)*$")
_HUB_API = "registry-1.docker.io"  # where Docker Hub answers; its images are called docker.io/...
_HUB_SIGN_IN = (
    "https://index.docker.io/v1/"  # the name the Engine knows Docker Hub's credentials by
)
_FIELDS = ("name", "role", "address", "repository", "plain_http", "username")
_WHERE = ("address", "plain_http", "username")  # a password belongs to these


def add(actor: "AbstractBaseUser | None", *, password: str = "", **values: Any) -> Registry:
    """A new registry. Raises InvalidInput with its field."""
    registry = Registry(created_by_id=actor.pk if actor else None)
    _take(registry, values)
    if password:
        registry.password = sealed.seal(password, sealed.REGISTRY_PASSWORDS)
    _save(
        registry,
        lambda: record(actor, "registry.add", "registry", registry.name, after=_shown(registry)),
    )
    return registry


def change(
    actor: "AbstractBaseUser | None",
    registry: Registry,
    *,
    password: str = "",
    forget_password: bool = False,
    **values: Any,
) -> Registry:
    """Other values; an empty `password` keeps the one there is. Raises InvalidInput, Conflict."""
    before, had = _shown(registry), registry.password
    _take(registry, values)
    after = _shown(registry)
    moved = any(before[name] != after[name] for name in ("address", "repository", "role"))
    if password:
        registry.password = sealed.seal(password, sealed.REGISTRY_PASSWORDS)
    elif forget_password:
        registry.password = ""
    elif had and any(before[name] != after[name] for name in _WHERE):
        raise InvalidInput(
            "Enter the password again: the stored one was given for another address or user, and is sent "
            "nowhere else.",
            field="password",
        )
    if any(before[name] != after[name] for name in _WHERE) or registry.password != had:
        registry.tested_at, registry.test_passed, registry.test_message = None, None, ""

    def note() -> None:
        if moved:
            _forget_images(registry)
        new = {**after, "password": "changed"} if registry.password != had else after
        record(actor, "registry.change", "registry", registry.name, before=before, after=new)

    _save(registry, note)
    return registry


def remove(actor: "AbstractBaseUser | None", registry: Registry) -> None:
    """Delete the row; nothing in the registry itself. Raises Conflict while services run on its images."""
    with transaction.atomic():
        _forget_images(registry)
        record(actor, "registry.remove", "registry", registry.name, before=_shown(registry))
        Registry.objects.filter(pk=registry.pk).delete()


def test(actor: "AbstractBaseUser | None", registry: Registry) -> str:
    """Sign in, and where it is the workspace's try an upload. Keeps and returns what was seen.

    Raises SlipwayError with the registry's own words; they are kept as well.
    """
    path = references.image_path(registry.repository)
    try:
        with api(registry) as asked:
            said = asked.test(path if registry.role == Registry.Role.WORKSPACE else "")
    except SlipwayError as error:
        _keep_test(actor, registry, passed=False, message=error.message)
        raise
    _keep_test(actor, registry, passed=True, message=said)
    return said


def workspace() -> Registry | None:
    return Registry.objects.filter(role=Registry.Role.WORKSPACE).first()


def global_ones() -> list[Registry]:
    return list(Registry.objects.filter(role=Registry.Role.GLOBAL).order_by("name"))


def api(registry: Registry) -> RegistryApi:
    """Its HTTP API, with the stored password. Raises PermanentError when that cannot be decrypted."""
    trusted = Registry.objects.filter(role=Registry.Role.BASE).values_list("address", flat=True)
    hub = registry.address == references.DOCKER_HUB
    return RegistryApi(
        Access(
            address=_HUB_API if hub else registry.address,
            plain_http=registry.plain_http,
            username=registry.username,
            password=password_of(registry),
            trusted=frozenset(trusted),
            ca_bundle=settings.ENV.build_ca_bundle,
        )
    )


def password_of(registry: Registry) -> str:
    if not registry.password:
        return ""
    return sealed.unseal(
        registry.password,
        sealed.REGISTRY_PASSWORDS,
        what=f"The password of the registry {registry.name}",
        remedy="enter it again under Registries",
    )


def credentials(reference: str) -> dict[str, str] | None:
    """What the Engine signs in with for this image; None where no row of its registry has a user.

    Any kind of row counts, the workspace's first. Never log it.
    """
    host = references.parse(reference).host
    rows = Registry.objects.filter(address=host).exclude(username="")
    registry = min(rows, key=lambda row: row.role != Registry.Role.WORKSPACE, default=None)
    return credentials_of(registry) if registry else None


def credentials_of(registry: Registry) -> dict[str, str] | None:
    if not registry.username:
        return None
    hub = registry.address == references.DOCKER_HUB
    return {
        "username": registry.username,
        "password": password_of(registry),
        "serveraddress": _HUB_SIGN_IN if hub else registry.address,
    }


def _take(registry: Registry, values: dict[str, Any]) -> None:
    """Set and check. Raises InvalidInput with its field."""
    for name in _FIELDS:
        if name in values:
            value = values[name]
            setattr(registry, name, value.strip() if isinstance(value, str) else value)
    registry.address = registry.address.lower()
    try:
        registry.clean_fields(exclude=["created_by"])
    except ValidationError as error:
        field, said = next(iter(error.message_dict.items()))
        raise InvalidInput(said[0], field=field) from error
    registry.repository = registry.repository.strip("/")
    if registry.repository and not _REPOSITORY.match(registry.repository):
        raise InvalidInput(
            "Use lower-case letters and digits, with '.', '_', '-' and '/' between them.",
            field="repository",
        )
    host, _ = outbound.host_and_port(registry.address, default=443)
    if "." not in registry.address and ":" not in registry.address and host != "localhost":
        raise InvalidInput(
            "Write a full host name, or a port behind it: Docker takes a single word for a folder of "
            "Docker Hub.",
            field="address",
        )
    try:
        outbound.registry_target(
            registry.address, plain_http=registry.plain_http, resolve=system_resolver
        )
    except OSError:
        # it has no address now; the test of the connection says so, and tests it again
        if registry.plain_http:
            raise InvalidInput(
                f"{host} has no address, so it cannot be told to be this machine; plain http is for "
                "loopback addresses.",
                field="address",
            ) from None


def _save(registry: Registry, note: Callable[[], None]) -> None:
    others = Registry.objects.exclude(pk=registry.pk)
    other = others.filter(role=Registry.Role.WORKSPACE).first()
    if registry.role == Registry.Role.WORKSPACE and other is not None:
        raise InvalidInput(
            f"{other.name} is the workspace's registry already, and there is one. Change that one's "
            "kind first.",
            field="role",
        )
    if others.filter(name=registry.name).exists():
        raise InvalidInput(f"There is a registry named {registry.name} already.", field="name")
    try:
        with transaction.atomic():
            registry.save()
            note()
    except IntegrityError as error:
        raise Conflict(
            "Somebody else changed the registries at this moment; look again."
        ) from error


def _forget_images(registry: Registry) -> None:
    """What was in it is looked for anew. Raises Conflict while services run on it."""
    hashes = list(
        ImageBuild.objects.filter(registry=registry, state=BuildState.READY).values_list(
            "hash", flat=True
        )
    )
    if used := usage.services_using(hashes):
        names = sorted({name for found in used.values() for name in found})
        shown = ", ".join(names[:5]) + (" and more" if len(names) > 5 else "")
        raise Conflict(
            f"Images of {registry.name} are used by {shown}. Delete or update those services first; name, "
            "user and password can be changed meanwhile."
        )
    for hash_ in hashes:
        ImageBuild.objects.filter(hash=hash_, state=BuildState.READY).update(
            state=BuildState.REMOVED, reference="", digest="", registry=None
        )
        announce("environment", hash_)


def _keep_test(
    actor: "AbstractBaseUser | None", registry: Registry, *, passed: bool, message: str
) -> None:
    registry.tested_at, registry.test_passed = timezone.now(), passed
    registry.test_message = message
    Registry.objects.filter(pk=registry.pk).update(
        tested_at=registry.tested_at, test_passed=passed, test_message=message
    )
    record(actor, "registry.test", "registry", registry.name, after={"passed": passed})


def _shown(registry: Registry) -> dict[str, Any]:
    return {name: getattr(registry, name) for name in _FIELDS}
