"""No-code services: which models can be served without an entry script, and in what environment.

What runs inside the replica is in `deployments.runtime`; the portal never loads a model.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployments.environments.changes import create_environment
from deployments.environments.models import Environment
from deployments.errors import InvalidInput
from deployments.registry.models import Framework, ModelVersion

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

_PREFIX = "no-code-"


@dataclass(frozen=True, slots=True)
class _Kind:
    package: str  # the one that loads the model
    # A framework's version pins the package, where the two are one. An ONNX model's is the version of
    # the format, which every onnxruntime since then reads: pinning onnxruntime to it would be wrong.
    pinned: bool
    beside: tuple[str, ...]  # what the entry script needs besides
    script: str  # file in deployments/runtime


_KINDS: dict[str, _Kind] = {
    Framework.SCIKIT_LEARN.value: _Kind(
        "scikit-learn", True, ("joblib", "numpy"), "scikit_learn_score.py"
    ),
    Framework.ONNX.value: _Kind("onnxruntime", False, ("numpy",), "onnx_score.py"),
}


def problems(versions: Sequence[ModelVersion]) -> list[InvalidInput]:
    """Why these models cannot be served without an entry script; empty when they can."""
    if not versions:
        return [InvalidInput("Choose a model, or give an entry script.", field="model_versions")]
    first = versions[0]
    names = " or ".join(Framework(name).label for name in _KINDS)
    if len(versions) > 1:
        return [
            InvalidInput(
                "Serving without an entry script takes one model; for several, write one.",
                field="entry_script",
            )
        ]
    if first.framework not in _KINDS:
        return [
            InvalidInput(
                f"{first} is registered with the framework "
                f"{Framework(first.framework).label}; serving without an entry script takes "
                f"{names}. Give an entry script.",
                field="entry_script",
            )
        ]
    if first.framework_version and not re.fullmatch(
        r"[0-9][0-9A-Za-z.!+-]*", first.framework_version
    ):
        return [
            InvalidInput(
                f"The framework version {first.framework_version!r} of {first} is not a version.",
                field="model_versions",
            )
        ]
    return []


def requirements(framework: str, framework_version: str) -> str:
    """pip requirements of the default environment."""
    kind = _KINDS[framework]
    version = framework_version if kind.pinned else ""
    package = f"{kind.package}=={version}" if version else kind.package
    return "\n".join((package, *kind.beside)) + "\n"


def environment_for(actor: "AbstractBaseUser | None", version: ModelVersion) -> Environment:
    """The default environment of a model's framework and version; made on first use."""
    kind = _KINDS[version.framework]
    label = Framework(version.framework).label
    pinned = version.framework_version if kind.pinned else ""
    return create_environment(
        actor,
        name=f"{_PREFIX}{kind.package}-{pinned or 'newest'}",
        pip_requirements=requirements(version.framework, version.framework_version),
        description=f"Made by Slipway to serve {label} models without an entry script.",
    )


def made_here(environment: Environment) -> bool:
    """Whether this is a default environment, which follows the model's framework version."""
    return environment.name.startswith(_PREFIX)


def script_name(version: ModelVersion) -> str:
    """The file in `deployments/runtime` that serves this model."""
    return _KINDS[version.framework].script
