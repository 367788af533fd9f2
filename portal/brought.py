"""What Azure's files bring into the deployment form beside its plain fields: keys and an environment.

The form carries both in hidden fields. The keys travel encrypted and signed, for the person who brought
them and for a day: a page never holds one in clear. The environment is no secret; it is judged when it
is brought and again when the form is sent, and made when the service is deployed. Reads rows only.
"""

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.core import signing

from deployments.environments import definition
from deployments.environments.hashing import environment_hash
from deployments.environments.models import Environment
from deployments.errors import InvalidInput
from deployments.services import keys
from deployments.services.inference import InferenceConfig

_SALT = "slipway.brought-keys"
_KEPT_FOR = 24 * 3600  # seconds
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Definition:
    """An environment that is not registered here yet. `name` may be empty."""

    name: str = ""
    base_image: str = ""
    docker_steps: str = ""
    conda_yaml: str = ""
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.name or "the environment"

    def texts(self) -> dict[str, str]:
        """Its texts under the names that `definition` and `hashing` use."""
        return {
            "base_image": self.base_image,
            "docker_steps": self.docker_steps,
            "conda_yaml": self.conda_yaml,
        }


def keys_token(user: AbstractBaseUser, primary: str, secondary: str) -> str:
    """The two keys as the form carries them."""
    note = {"user": user.pk, "keys": keys.encrypt(json.dumps([primary, secondary]))}
    return signing.dumps(note, salt=_SALT)


def keys_from(user: AbstractBaseUser, text: str) -> tuple[str, str] | None:
    """(primary, secondary); None when there are none. Raises InvalidInput for a note that is void."""
    if not text:
        return None
    try:
        note = signing.loads(text, salt=_SALT, max_age=_KEPT_FOR)
    except signing.BadSignature:
        note = {}
    if note.get("user") != user.pk:
        raise InvalidInput(
            "The keys of deploymentconfig.json are not kept any more; fill in from the file again."
        )
    primary, secondary = json.loads(keys.decrypt(note["keys"]))
    return primary, secondary


def environment_of(said: InferenceConfig) -> Definition | None:
    """What an inferenceconfig.json defines itself; None when it only names an environment."""
    if not (said.base_image or said.docker_steps or said.conda_yaml or said.variables):
        return None
    # Azure's names may hold spaces and slashes
    name = re.sub(r"[^a-zA-Z0-9_.-]+", "-", said.environment_name).strip("-_.")[:_LONGEST_NAME]
    return Definition(
        name, said.base_image, said.docker_steps, said.conda_yaml, dict(said.variables)
    )


def check(brought: Definition) -> None:
    """Raises InvalidInput of the field `environment` for the first thing that is wrong in it."""
    found = definition.problems(**brought.texts(), variables=brought.variables)
    if found:
        raise InvalidInput(
            f"In {brought.label} of inferenceconfig.json: {found[0].message}", field="environment"
        )


def registered(brought: Definition) -> Environment | None:
    """The environment that is registered here and means the same; of its own name before others.

    `brought` must have been checked.
    """
    hash_ = environment_hash(**brought.texts(), pip_requirements="")
    same = [
        row
        for row in Environment.objects.filter(hash=hash_).order_by("-created_at")
        if row.variables == brought.variables
    ]
    return next((row for row in same if row.name == brought.name), same[0] if same else None)


def environment_text(brought: Definition) -> str:
    """The definition as the form carries it."""
    return json.dumps(asdict(brought))


def environment_from(text: str) -> Definition | None:
    """The definition of the hidden field, checked; None where there is none. Raises InvalidInput."""
    if not text:
        return None
    try:
        values: Any = json.loads(text)
        brought = Definition(**values)
        whole = all(isinstance(item, str) for item in (brought.name, *brought.texts().values()))
        if not whole or not isinstance(brought.variables, dict):
            raise TypeError
    except (ValueError, TypeError) as error:
        raise InvalidInput(
            "The environment of inferenceconfig.json was lost on the way; fill in from the file again.",
            field="environment",
        ) from error
    check(brought)
    return brought
