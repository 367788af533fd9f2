"""First values of the deployment form: for a model, or from a revision. Reads rows only."""

import re
from dataclasses import fields
from typing import Any

from deployments.clusters.models import Cluster
from deployments.errors import SlipwayError
from deployments.registry.models import ModelVersion
from deployments.services import containers, no_code, sources
from deployments.services.config import DEFAULTS
from deployments.services.models import Revision, Service
from deployments.services.specs import config_of
from deployments.types import ContainerSpec
from portal.deploy_plan import MADE_FOR
from portal.forms.deploy import AUTOSCALE, CONTAINER, EDITOR, ENTRY_SCRIPT, FIXED, KEPT, NO_CODE
from portal.forms.fields import split_version, versions_named
from portal.project_source import Kept
from portal.score_templates import SCIKIT_LEARN, for_framework


def suggested_name(model: str) -> str:
    """A free service name made of a model's name; empty when nothing of it can be used."""
    name = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")
    name = re.sub(r"^[^a-z]+", "", name)[:32].rstrip("-")
    if len(name) < 3 or Service.objects.filter(name=name).exists():
        return ""
    return name


def of_model(text: str) -> dict[str, Any]:
    """For `?model=name:version`; a version that does not exist is left out."""
    first = Cluster.objects.order_by("name").values_list("name", flat=True).first()
    initial: dict[str, Any] = {"models": [], "score_py": SCIKIT_LEARN, "cluster": first}
    pair = split_version(text)
    version = versions_named([pair]).get(pair) if pair else None
    if version is None:
        return initial
    served = version.framework in MADE_FOR
    return initial | {
        "models": [str(version)],
        "name": suggested_name(version.model.name),
        "serving": NO_CODE if served else ENTRY_SCRIPT,
        "score_py": for_framework(version.framework),
    }


def of_revision(revision: Revision | None, kept: Kept | None) -> dict[str, Any]:
    """For the next revision of a service: what this one has."""
    if revision is None:
        return of_model("")
    versions: list[ModelVersion] = [link.model_version for link in revision.model_links.all()]
    config = config_of(revision)
    values = config.to_values()
    for name, default in DEFAULTS.items():
        if values.get(name) is None:
            values[name] = default
    framework = versions[0].framework if versions else ""
    initial = values | {
        "models": [str(version) for version in versions],
        "serving": ENTRY_SCRIPT if revision.entry_script else NO_CODE,
        "entry_script": revision.entry_script or "score.py",
        "environment": _environment(revision),
        "replicas_mode": AUTOSCALE if config.autoscales else FIXED,
        "kept_source": kept.token if kept else "",
        "source_kind": KEPT if kept else EDITOR,
        "score_py": for_framework(framework),
    }
    if (container := containers.from_row(revision.container)) is not None:
        initial |= {"serving": CONTAINER, **container_values(container)}
    if kept is not None:
        try:
            initial["score_py"] = sources.read_text(kept.blob, revision.entry_script)
            initial["source_kind"] = EDITOR
        except SlipwayError:
            pass  # not text, or too large for the page: it is kept as it is
    return initial


def container_values(container: ContainerSpec) -> dict[str, Any]:
    """A brought image as the form's fields."""
    return {f"container_{item.name}": getattr(container, item.name) for item in fields(container)}


def _environment(revision: Revision) -> str:
    chosen = revision.environment
    return "" if chosen is None or no_code.made_here(chosen) else str(chosen)
