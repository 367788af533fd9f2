"""An environment's definition, parsed and checked whole: every message names its field and line.

PURE: no files, no network, no rows. `parse` raises for the first thing that is wrong; `problems` gives
one message a field, for a form.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from deployments.environments.conda import CondaDefinition, parse_conda
from deployments.environments.pip import PipDefinition, parse_pip
from deployments.errors import InvalidInput

LONGEST_TEXT = 256 * 1024  # characters of one field

_INSTRUCTIONS = (
    "ADD",
    "ARG",
    "COPY",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
)
_HEREDOC = re.compile(r"(?:^|\s)\d*<<-?[\"']?([A-Za-z_]\w*)[\"']?(?=\s|$)")
_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
# Set by whatever starts a replica; a definition that sets them would break it.
_RESERVED = ("AML_APP_ROOT", "AZUREML_ENTRY_SCRIPT", "AZUREML_MODEL_DIR")

# The grammar of image references: [host[:port]/]path[:tag][@digest]
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*(?::[0-9]+)?/)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"^{_HOST}{_PART}(?:/{_PART})*(?::[\w][\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?$"
)


@dataclass(frozen=True, slots=True)
class Step:
    """One Dockerfile instruction with its continuation lines. `line` counts from 1."""

    line: int
    instruction: str
    text: str


@dataclass(frozen=True, slots=True)
class Definition:
    """Everything a person wrote down, understood."""

    base_image: str
    docker_steps: tuple[Step, ...]
    conda: CondaDefinition
    pip: PipDefinition


def parse(
    *,
    base_image: str = "",
    docker_steps: str = "",
    conda_yaml: str = "",
    pip_requirements: str = "",
) -> Definition:
    """The definition these texts make. Raises InvalidInput for the first that is wrong."""
    return Definition(
        base_image=parse_base_image(base_image),
        docker_steps=parse_docker_steps(docker_steps),
        conda=parse_conda(_short_enough(conda_yaml, "conda_yaml")),
        pip=parse_pip(_short_enough(pip_requirements, "pip_requirements")),
    )


def problems(
    *,
    base_image: str = "",
    docker_steps: str = "",
    conda_yaml: str = "",
    pip_requirements: str = "",
    variables: Mapping[str, str] | None = None,
) -> list[InvalidInput]:
    """What is wrong with these texts, at most one message a field."""
    found = []
    texts = {
        "base_image": base_image,
        "docker_steps": docker_steps,
        "conda_yaml": conda_yaml,
        "pip_requirements": pip_requirements,
    }
    for field, text in texts.items():
        try:
            parse(**{field: text})
        except InvalidInput as error:
            found.append(error)
    try:
        check_variables(variables or {})
    except InvalidInput as error:
        found.append(error)
    return found


def parse_base_image(text: str) -> str:
    """An image reference, or "" for the cluster's own. Raises InvalidInput."""
    image = text.strip()
    if image and not _IMAGE.match(image):
        raise InvalidInput(
            f'"{image}" is not an image reference; write one such as '
            "`mcr.microsoft.com/azureml/minimal-ubuntu22.04-py39-cpu-inference:latest`.",
            field="base_image",
        )
    return image


def parse_docker_steps(text: str) -> tuple[Step, ...]:
    """Dockerfile instructions that follow the base image's FROM. Raises InvalidInput with the line.

    Comments and blank lines are dropped, but not inside a heredoc, where they are content.
    """
    steps: list[Step] = []
    lines = _short_enough(text, "docker_steps").splitlines()
    at = 0
    while at < len(lines):
        if not lines[at].strip() or lines[at].lstrip().startswith("#"):
            at += 1
            continue
        start, collected = at, [lines[at].strip()]
        while collected[-1].endswith("\\") and at + 1 < len(lines):
            at += 1
            if lines[at].strip() and not lines[at].lstrip().startswith("#"):
                collected.append(lines[at].strip())
        at += 1
        for end in _HEREDOC.findall(" ".join(collected)):
            at = _take_heredoc(lines, at, end, collected, start)
        steps.append(_step(start + 1, "\n".join(collected)))
    return tuple(steps)


def _take_heredoc(lines: list[str], at: int, end: str, collected: list[str], start: int) -> int:
    while at < len(lines):
        collected.append(lines[at].rstrip())
        at += 1
        if collected[-1].strip() == end:
            return at
    raise InvalidInput(
        f'Line {start + 1}: the text that begins with "<<{end}" never ends with a line "{end}".',
        field="docker_steps",
    )


def _step(line: int, text: str) -> Step:
    word, _, rest = text.partition(" ")
    instruction = word.upper()
    reason = ""
    if instruction == "FROM":
        reason = "FROM is not allowed here: the image goes into the field Base image"
    elif instruction in ("CMD", "ENTRYPOINT"):
        reason = f"{instruction} is not allowed: the scoring server is what the image runs"
    elif instruction not in _INSTRUCTIONS:
        reason = f'"{word}" is not a Dockerfile instruction; allowed are {", ".join(_INSTRUCTIONS)}'
    elif not rest.strip():
        reason = f"{instruction} needs something after it"
    if reason:
        raise InvalidInput(f"Line {line}: {reason}.", field="docker_steps")
    return Step(line, instruction, f"{instruction} {rest.strip()}")


def check_variables(variables: Mapping[str, str]) -> None:
    """Names of environment variables and their values. Raises InvalidInput."""
    for name, value in variables.items():
        reason = ""
        if not _VARIABLE.match(name):
            reason = "is not a name; use letters, digits and _, not starting with a digit"
        elif name in _RESERVED:
            reason = "is set by Slipway for each replica; take it out"
        elif not isinstance(value, str):
            reason = "must hold text"
        elif "\0" in value:
            reason = "holds a zero byte, which no environment variable can"
        if reason:
            raise InvalidInput(f'The variable "{name}" {reason}.', field="variables")


def parse_variables(text: str) -> dict[str, str]:
    """`NAME=value` lines; blank lines and lines that start with # are dropped. Raises InvalidInput."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise InvalidInput(
                f'Line {number}: "{line.strip()}" has no "="; write NAME=value.', field="variables"
            )
        if name.strip() in found:
            raise InvalidInput(
                f'Line {number}: the variable "{name.strip()}" is there twice.', field="variables"
            )
        found[name.strip()] = value.strip()
    check_variables(found)
    return found


def _short_enough(text: str, field: str) -> str:
    if len(text) > LONGEST_TEXT:
        raise InvalidInput(
            f"This has {len(text):,} characters; at most {LONGEST_TEXT:,} are taken.", field=field
        )
    return text
