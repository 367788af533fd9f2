"""Azure's inferenceconfig.json, today's shape and the older flat one, as values for the form.

PURE. Nothing is read from disk: a path in the file (a conda file, a source directory) is on the
machine of whoever wrote it, and is handed on as a name for the person to see.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from deployments.errors import InvalidInput
from deployments.services import containers
from deployments.services.config import load_object
from deployments.types import ContainerSpec

_FIELD = "inferenceconfig"


@dataclass(frozen=True, slots=True)
class InferenceConfig:
    """What an inferenceconfig.json says. Empty means that it says nothing about it."""

    entry_script: str = ""
    source_directory: str = ""
    environment_name: str = ""
    environment_version: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    base_image: str = ""
    docker_steps: str = ""
    conda_yaml: str = ""
    conda_file: str = ""  # a file's path on the writer's machine, to be uploaded beside
    container: ContainerSpec | None = None  # an image that serves by itself
    notes: tuple[str, ...] = ()  # what is understood but means nothing here, and why


_IGNORED = {
    "environment.docker.shmSize": "Shared memory is not limited on this machine.",
    "environment.python.interpreterPath": "The environment's own Python is used.",
    "environment.inferencingStackVersion": "The scoring server's version comes with Slipway.",
    "runtime": "",
    "enableGpu": "Ask for a GPU with gpu_cores in the deployment configuration.",
    "cudaVersion": "The CUDA version comes with the base image.",
}


def from_azure_json(text: str) -> tuple[InferenceConfig, list[str]]:
    """(what it says, keys that mean nothing here). Raises InvalidInput."""
    data = load_object(text, "inferenceconfig.json")
    values: dict[str, Any] = {}
    unknown: list[str] = []
    notes: list[str] = []
    _read(data, "", values, unknown, notes)
    registry = values.pop("registry", "")
    routes, where = values.pop("routes", ({}, ""))
    if image := values.pop("image", ""):
        values["container"] = containers.from_azure(image, routes, where)
    elif routes:
        notes.append(f"{where}: It says nothing without environment.image.")
    if registry and values.get("base_image") and not values["base_image"].startswith(registry):
        values["base_image"] = f"{registry}/{values['base_image']}"
    return InferenceConfig(**values, notes=tuple(notes)), unknown


def _read(
    data: dict[str, Any],
    prefix: str,
    values: dict[str, Any],
    unknown: list[str],
    notes: list[str],
) -> None:
    for key, value in data.items():
        path = f"{prefix}{key}"
        if value is None:
            continue
        if path in ("environment", "environment.docker", "environment.python"):
            _read(_object(value, path), f"{path}.", values, unknown, notes)
        elif path in _TEXTS:
            values[_TEXTS[path]] = _text(value, path)
        elif path in _ROUTES:
            values["routes"] = (_object(value, path), path)
        elif path == "environment.environmentVariables":
            values["variables"] = {name: str(item) for name, item in _object(value, path).items()}
        elif path == "environment.docker.baseDockerfile":
            image, steps = _dockerfile(_text(value, path))
            values.setdefault("base_image", image)
            values["docker_steps"] = steps
        elif path == "environment.python.condaDependencies":
            definition = _object(value, path)
            if not set(definition) <= {"name", "channels", "dependencies"}:
                extra = sorted(set(definition) - {"name", "channels", "dependencies"})
                unknown += [f"{path}.{name}" for name in extra]
            values["conda_yaml"] = yaml.safe_dump(
                {
                    name: definition[name]
                    for name in ("name", "channels", "dependencies")
                    if name in definition
                },
                sort_keys=False,
            )
        elif path == "environment.docker.baseImageRegistry":
            registry = _object(value, path)
            values["registry"] = _text(registry.get("address") or "", path).rstrip("/")
            if registry.get("username") or registry.get("password"):
                notes.append(f"{path}: Images are not pulled with credentials from this file.")
            unknown += [f"{path}.{name}" for name in registry if name not in _REGISTRY]
        elif path == "environment.python.userManagedDependencies":
            if value is True:
                notes.append(
                    f"{path}: A cluster that runs no containers has none of the base image's "
                    "packages; name those that the script imports."
                )
        elif path in _IGNORED:
            if _IGNORED[path]:
                notes.append(f"{path}: {_IGNORED[path]}")
        else:
            unknown.append(path)


_ROUTES = ("environment.inferenceConfig", "environment.inferenceContainerProperties")
_REGISTRY = ("address", "username", "password")
_TEXTS = {
    "entryScript": "entry_script",
    "sourceDirectory": "source_directory",
    "environment.name": "environment_name",
    "environment.version": "environment_version",
    "environment.docker.baseImage": "base_image",
    "environment.image": "image",
    "environment.python.condaDependenciesFile": "conda_file",
    # the older flat keys
    "condaFile": "conda_file",
    "baseImage": "base_image",
    "extraDockerfileSteps": "docker_steps",
}


def _object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput(f"{path} must be a JSON object.", field=_FIELD)
    return value


def _text(value: Any, path: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InvalidInput(f"{path} must be text.", field=_FIELD)
    return str(value)


def _dockerfile(text: str) -> tuple[str, str]:
    """(base image, the steps after FROM) of a Dockerfile given as text."""
    match = re.search(r"(?im)^\s*FROM\s+(\S+)[^\n]*\n?", text)
    if match is None:
        return "", text.strip()
    return match[1], text[match.end() :].strip()
