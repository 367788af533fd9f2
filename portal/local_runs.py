"""Local runs as pages show them: whose they are, their files, the form they came from. Reads rows only."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.http import Http404

from deployments.errors import SlipwayError
from deployments.localruns.models import LIVE, LocalRun
from deployments.registry.models import ModelVersion
from deployments.services import sources
from portal.access import allows
from portal.forms.deploy import EDITOR, ENTRY_SCRIPT, KEPT
from portal.json_text import pretty_text
from portal.models import Role, User
from portal.project_source import Kept
from portal.samples import EXAMPLE

# Of the deployment form: what is never kept with a run (keys), and what is made anew (the source).
_NOT_KEPT = frozenset(
    {
        "csrfmiddlewaretoken",
        "brought_keys",
        "service",
        "archive",
        "folder",
        "folder_paths",
        "kept_source",
        "score_py",
        "inferenceconfig",
        "condafile",
        "deploymentconfig",
    }
)


def visible_to(user: User) -> QuerySet[LocalRun]:
    """A person's own runs; an administrator's are all."""
    runs = LocalRun.objects.select_related("owner", "cluster", "environment", "source")
    return runs if allows(user, Role.ADMINISTRATOR) else runs.filter(owner=user)


def get_run(user: User, pk: int) -> LocalRun:
    """Raises Http404, also for another person's."""
    found = visible_to(user).filter(pk=pk).first()
    if found is None:
        raise Http404(f"You have no local run {pk}; it may have ended a day ago.")
    return found


def live_of(user: User) -> list[LocalRun]:
    return list(LocalRun.objects.filter(owner=user, state__in=LIVE))


def may_read_log(user: object, source: str) -> bool:
    """Logs are every viewer's, but for a local run's: what a person tries out is theirs."""
    kind, _, key = source.partition(":")
    if kind != "local":
        return allows(user, Role.VIEWER)
    if not isinstance(user, User) or not allows(user, Role.DEPLOYER) or not key.isdecimal():
        return False
    return visible_to(user).filter(pk=int(key)).exists()


def form_values(values: dict[str, Any]) -> dict[str, Any]:
    """What of a sent deployment form is kept with the run."""
    return {
        name: value
        for name, value in values.items()
        if name not in _NOT_KEPT and isinstance(value, (str, bool, list))
    }


def initial_of(run: LocalRun, kept: Kept) -> dict[str, Any]:
    """The deployment form's first values: what it had, with the run's source."""
    initial = dict(run.form) | {
        "serving": ENTRY_SCRIPT,
        "entry_script": run.entry_script,
        "kept_source": kept.token,
        "source_kind": KEPT,
        "environment": str(run.environment),
    }
    try:
        initial["score_py"] = sources.read_text(kept.blob, run.entry_script)
        initial["source_kind"] = EDITOR
    except SlipwayError:
        pass  # not text, or too large for the page: it is kept as it is
    return initial


@dataclass(frozen=True, slots=True)
class EditedFile:
    """A file as it stands in the run. `problem` says why a page cannot edit it."""

    path: str
    text: str = ""
    problem: str = ""


def file_of(run: LocalRun, path: str) -> EditedFile:
    """Raises Http404 for a file that is not in the project folder."""
    if path in run.edits:
        return EditedFile(path, run.edits[path])
    if path not in paths_of(run):
        raise Http404(f"{path[:200]} is not in the project folder.")
    try:
        return EditedFile(path, sources.read_text(run.source, path))
    except SlipwayError as error:
        return EditedFile(path, problem=error.message)


def paths_of(run: LocalRun) -> list[str]:
    """The project folder's files, the entry script first."""
    names = {path for path, _ in sources.listing(run.source)} | set(run.edits)
    return sorted(names, key=lambda path: (path != run.entry_script, path))


def sample_of(run: LocalRun) -> str:
    """The sample that was registered with its first model that has one."""
    texts = dict(
        ModelVersion.objects.filter(pk__in=run.model_versions)
        .exclude(sample_input="")
        .values_list("pk", "sample_input")
    )
    return pretty_text(next((texts[pk] for pk in run.model_versions if pk in texts), EXAMPLE))


def ends_at(run: LocalRun) -> datetime:
    """When it ends by itself unless somebody uses it."""
    return run.used_at + timedelta(seconds=settings.ENV.local_run_idle)
