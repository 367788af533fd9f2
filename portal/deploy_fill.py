"""Azure's two JSON files as values of the deployment form, with what could not be taken over named.

Reads environments by name; changes nothing. The keys in a file are never put into a page.
"""

from dataclasses import dataclass, field
from typing import Any

from django.utils.datastructures import MultiValueDict

from deployments.environments.models import Environment
from deployments.errors import InvalidInput
from deployments.services import config, inference
from portal.forms.deploy import AUTOSCALE, ENTRY_SCRIPT, FIXED, DeployForm

_LARGEST = 256 * 1024  # bytes of one of these files
_SECRETS = ("primary_key", "secondary_key")
_WITHOUT_PLACE = {
    "token_auth_enabled": "tokenAuthEnabled: access with tokens is not part of this form.",
    "collect_model_data": "dataCollection.storageEnabled: data collection is not part of this form.",
    "enable_app_insights": "appInsightsEnabled: request logging is not part of this form.",
    "namespace": "namespace: services have no namespace on this kind of cluster.",
}


@dataclass(slots=True)
class Filled:
    """Values for the form; keys nobody knows, by file; remarks; files that could not be read."""

    values: dict[str, Any] = field(default_factory=dict)
    unknown: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


def read_files(files: MultiValueDict[str, Any]) -> Filled:
    """What `inferenceconfig` and `deploymentconfig` of this upload say; either may be missing."""
    filled = Filled()
    for name, read in (("inferenceconfig", _inference), ("deploymentconfig", _deployment)):
        file = files.get(name)
        if file is None:
            continue
        shown = f"{name}.json"
        try:
            if file.size > _LARGEST:
                raise InvalidInput(f"{shown} is larger than 256 KiB; this is another file.")
            try:
                text = file.read().decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise InvalidInput(f"{shown} is not text in UTF-8.") from error
            read(text, filled)
            filled.files.append(shown)
        except InvalidInput as error:
            filled.problems.append(error.message)
    if not filled.files and not filled.problems:
        filled.problems.append("Choose an inferenceconfig.json, a deploymentconfig.json, or both.")
    return filled


def _deployment(text: str, filled: Filled) -> None:
    values, unknown = config.from_azure_json(text)
    filled.unknown += [("deploymentconfig.json", key) for key in unknown]
    if any(values.pop(name, None) for name in _SECRETS):
        filled.notes.append("keys: keys of a file are not shown in a page; new ones are made.")
    for name, note in _WITHOUT_PLACE.items():
        if values.pop(name, None):
            filled.notes.append(note)
    enabled = values.pop("autoscale_enabled", None)
    if enabled is False or (enabled is None and values.get("num_replicas") is not None):
        filled.values["replicas_mode"] = FIXED
    elif enabled is not None or any(name.startswith("autoscale_") for name in values):
        filled.values["replicas_mode"] = AUTOSCALE
    for name, value in values.items():
        if name in DeployForm.base_fields:
            filled.values[name] = value


def _inference(text: str, filled: Filled) -> None:
    said, unknown = inference.from_azure_json(text)
    filled.unknown += [("inferenceconfig.json", key) for key in unknown]
    filled.notes += said.notes
    if said.entry_script:
        filled.values |= {"serving": ENTRY_SCRIPT, "entry_script": said.entry_script}
    if said.source_directory:
        filled.notes.append(f"sourceDirectory: upload the folder {said.source_directory} below.")
    _environment(said, filled)


def _environment(said: inference.InferenceConfig, filled: Filled) -> None:
    if said.environment_name:
        rows = Environment.objects.filter(name=said.environment_name)
        if said.environment_version.isdigit():
            rows = rows.filter(version=int(said.environment_version))
        found = rows.order_by("-version").first()
        if found is not None:
            filled.values["environment"] = str(found)
            return
    defined = [
        name
        for name, value in (
            ("a conda definition", said.conda_yaml or said.conda_file),
            ("a base image", said.base_image),
            ("docker steps", said.docker_steps),
            ("variables", said.variables),
        )
        if value
    ]
    if said.environment_name or defined:
        what = f"the environment {said.environment_name}" if said.environment_name else "it"
        having = f" (with {', '.join(defined)})" if defined else ""
        filled.notes.append(
            f"environment: {what}{having} is not registered here; create it under Environments, "
            "then choose it below."
        )
