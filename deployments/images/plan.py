"""What an environment becomes as an image: its base, its steps, and what installs its packages.

PURE. conda's packages are installed by micromamba, with channels and builds as written; an environment that
asks conda for nothing but a Python its base image has already needs no conda. The rest is pip's. The
scoring server is part of every image.
"""

from dataclasses import dataclass

from deployments.environments.conda import CondaPackage
from deployments.environments.definition import Definition
from deployments.environments.mapping import (
    AZUREML_DEFAULTS,
    OLDEST_PYTHON,
    allows_python,
    pip_lines,
)
from deployments.errors import InvalidInput

_DEFAULT_CHANNEL = "conda-forge"


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """`conda` is the specifications for micromamba, empty where it is not needed; `python` is the
    (major, minor) of the base image's, None where it has none or was not looked at yet."""

    base_image: str
    steps: tuple[str, ...]
    channels: tuple[str, ...]
    conda: tuple[str, ...]
    requirements: tuple[str, ...]
    python: tuple[int, int] | None
    notes: tuple[str, ...]
    problems: tuple[InvalidInput, ...]


def needs_conda(definition: Definition) -> bool:
    """Whether conda is asked for more than a Python: then no look at the base image's is needed."""
    return any(item.name not in ("python", "pip") for item in _wanted(definition))


def image_plan(
    definition: Definition,
    *,
    default_base: str,
    python: tuple[int, int] | None,
    looked: bool = True,
) -> ImagePlan:
    """The plan. `looked` False: nobody has looked yet which Python the base image has."""
    notes: list[str] = []
    problems: list[InvalidInput] = []
    pinned = next((item for item in _wanted(definition) if item.name == "python"), None)
    conda = needs_conda(definition)
    if not conda and pinned is not None and python is not None:
        conda = not allows_python(pinned, python)
        if conda:
            notes.append(
                f"The base image has Python {python[0]}.{python[1]}, and {pinned.text} is asked for: it "
                "comes from conda."
            )
    if not conda and pinned is not None and python is None:
        conda = looked
        notes.append(
            f"{pinned.text} comes from conda."
            if looked
            else f"{pinned.text} is the base image's own where it is that; else it comes from conda."
        )
    if not conda and looked and python is None:
        problems.append(
            InvalidInput(
                "The base image has no Python. Choose one that has, install it in the docker steps, or ask "
                "conda for it with a line such as python=3.11.",
                field="base_image",
            )
        )
    if not conda and python is not None and python < OLDEST_PYTHON:
        problems.append(
            InvalidInput(
                f"The base image has Python {python[0]}.{python[1]}; the scoring server needs 3.9 or newer. "
                "Choose another base image, or ask conda for a line such as python=3.11.",
                field="base_image",
            )
        )
    return ImagePlan(
        base_image=definition.base_image or default_base,
        steps=tuple(step.text for step in definition.docker_steps),
        channels=(definition.conda.channels or (_DEFAULT_CHANNEL,)) if conda else (),
        conda=_specifications(definition) if conda else (),
        requirements=pip_lines(definition, (), notes, problems),
        python=python,
        notes=tuple(dict.fromkeys(notes)),
        problems=tuple(problems),
    )


def _wanted(definition: Definition) -> list[CondaPackage]:
    """conda's packages without Azure's old name of the scoring server, which pip brings."""
    return [
        item
        for item in definition.conda.packages
        if not (item.name == AZUREML_DEFAULTS and not item.spec)
    ]


def _specifications(definition: Definition) -> tuple[str, ...]:
    wanted = _wanted(definition)
    texts = {item.text for item in wanted}
    names = {item.name for item in wanted}
    missing = {"python": "python>=3.9,<3.13", "pip": "pip"}
    return tuple(sorted(texts | {text for name, text in missing.items() if name not in names}))
