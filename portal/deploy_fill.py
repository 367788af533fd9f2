"""Azure's files as values of the deployment form, with what could not be taken over named.

Reads environments; changes nothing. Keys in a file are taken over, and never put into a page in clear.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.utils.datastructures import MultiValueDict

from deployments.environments.models import Environment
from deployments.errors import InvalidInput
from deployments.services import config, inference, keys
from portal import brought
from portal.deploy_initial import container_values
from portal.forms.deploy import (
    AUTOSCALE,
    BROUGHT,
    CONTAINER,
    ENTRY_SCRIPT,
    FIXED,
    UPLOAD,
    DeployForm,
    takes_namespace,
)

_LARGEST = 256 * 1024  # bytes of one of these files
_FILES = {
    "inferenceconfig": "inferenceconfig.json",
    "condafile": "the conda file",
    "deploymentconfig": "deploymentconfig.json",
}
_NO_NAMESPACE = "namespace: no Kubernetes cluster is attached, and the others have no namespaces."
_NOT_COLLECTED = (
    "dataCollection.storageEnabled: kept, but this version of Slipway collects no model data."
)


@dataclass(slots=True)
class Filled:
    """Values for the form; keys nobody knows, by file; remarks; files that could not be read."""

    values: dict[str, Any] = field(default_factory=dict)
    unknown: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


def read_files(files: MultiValueDict[str, Any], user: AbstractBaseUser) -> Filled:
    """What `inferenceconfig`, the `condafile` it names and `deploymentconfig` of this upload say.

    Any of them may be missing. Keys are kept for `user`.
    """
    filled = Filled()
    texts: dict[str, str] = {}
    for name, shown in _FILES.items():
        if files.get(name) is None:
            continue
        try:
            texts[name] = _text(files[name], shown)
        except InvalidInput as error:
            filled.problems.append(error.message)
    try:
        if "inferenceconfig" in texts or "condafile" in texts:
            _inference(texts.get("inferenceconfig", "{}"), texts.get("condafile", ""), filled)
            filled.files += [
                _FILES[name] for name in ("inferenceconfig", "condafile") if name in texts
            ]
    except InvalidInput as error:
        filled.problems.append(error.message)
    try:
        if "deploymentconfig" in texts:
            _deployment(texts["deploymentconfig"], filled, user)
            filled.files.append(_FILES["deploymentconfig"])
    except InvalidInput as error:
        filled.problems.append(error.message)
    if not filled.files and not filled.problems:
        filled.problems.append("Choose an inferenceconfig.json, a deploymentconfig.json, or both.")
    return filled


def _text(file: Any, shown: str) -> str:
    if file.size > _LARGEST:
        raise InvalidInput(f"{shown} is larger than 256 KiB; this is another file.")
    try:
        return str(file.read().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{shown} is not text in UTF-8.") from error


def _deployment(text: str, filled: Filled, user: AbstractBaseUser) -> None:
    values, unknown = config.from_azure_json(text)
    filled.unknown += [("deploymentconfig.json", key) for key in unknown]
    _keys(values.pop("primary_key", None), values.pop("secondary_key", None), filled, user)
    filled.notes += _rules_broken(values)
    if values.get("namespace") and not takes_namespace(None):
        del values["namespace"]
        filled.notes.append(_NO_NAMESPACE)
    if values.get("collect_model_data"):
        filled.notes.append(_NOT_COLLECTED)
    enabled = values.pop("autoscale_enabled", None)
    if enabled is False or (enabled is None and values.get("num_replicas") is not None):
        filled.values["replicas_mode"] = FIXED
    elif enabled is not None or any(name.startswith("autoscale_") for name in values):
        filled.values["replicas_mode"] = AUTOSCALE
    for name, value in values.items():
        if name in DeployForm.base_fields:
            filled.values[name] = value


def _keys(primary: Any, secondary: Any, filled: Filled, user: AbstractBaseUser) -> None:
    """A migrating service keeps its keys, so that none of its clients has to change."""
    if not primary and not secondary:
        return
    pair = (str(primary or keys.generate()), str(secondary or keys.generate()))
    if found := keys.check_given(*pair):
        filled.notes.append(f"keys: not taken over, new ones are made. {found[0].message}")
        return
    filled.values["brought_keys"] = brought.keys_token(user, *pair)


def _rules_broken(values: dict[str, Any]) -> list[str]:
    """Azure's rules about numbers of replicas, which the form cannot break and so cannot show."""
    try:
        found = config.problems(config.from_values(values))
    except InvalidInput:
        return []  # a value of the wrong type: it is said beside its field
    return [
        problem.message
        for problem in found
        if problem.field == "num_replicas" or problem.field.startswith("autoscale_")
    ]


def _inference(text: str, conda_text: str, filled: Filled) -> None:
    said, unknown = inference.from_azure_json(text)
    filled.unknown += [("inferenceconfig.json", key) for key in unknown]
    filled.notes += said.notes
    if said.container is not None:
        filled.values |= {"serving": CONTAINER, **container_values(said.container)}
        if said.variables:
            filled.notes.append(
                "environment.environmentVariables: a brought image has its own; set them in the image."
            )
        return
    if said.entry_script:
        filled.values |= {"serving": ENTRY_SCRIPT, "entry_script": said.entry_script}
    if said.source_directory:
        filled.values["source_kind"] = UPLOAD
        filled.notes.append(f"sourceDirectory: upload the folder {said.source_directory} below.")
    if conda_text and not said.conda_yaml:
        said = replace(said, conda_yaml=conda_text, conda_file="")
    _environment(said, filled)


def _environment(said: inference.InferenceConfig, filled: Filled) -> None:
    """Choose the environment the file means; where it is not registered, bring it along."""
    if said.conda_file and not said.conda_yaml:
        filled.notes.append(
            f"environment: choose the conda file {said.conda_file} as well and fill in again, or "
            "choose an environment below."
        )
        return
    defined = brought.environment_of(said)
    if defined is not None:
        brought.check(defined)
        same = brought.registered(defined)
        if same is not None:
            filled.values["environment"] = str(same)
        else:
            filled.values |= {
                "environment": BROUGHT,
                "brought_environment": brought.environment_text(defined),
            }
    elif said.environment_name:
        rows = Environment.objects.filter(name=said.environment_name)
        if said.environment_version.isdigit():
            rows = rows.filter(version=int(said.environment_version))
        found = rows.order_by("-version").first()
        if found is not None:
            filled.values["environment"] = str(found)
            return
        version = f", version {said.environment_version}" if said.environment_version else ""
        filled.notes.append(
            f"environment: {said.environment_name}{version} is not registered here, and the file does "
            "not say what is in it; create it under Environments, then choose it below."
        )
