"""What people do to local runs: start, edit, keep, stop, take the source; and what is cleared away.

A run is only written down here; a runner (`deployments.localruns.runner`), spawned apart from whoever asked,
brings it about. Each function is one transaction and announces.
"""

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils import timezone

from deployments.agent import processes
from deployments.claims import known_dead
from deployments.clusters.models import Cluster
from deployments.environments import interpreters
from deployments.environments.definition import parse
from deployments.environments.mapping import process_plan
from deployments.environments.models import BuildState, Environment, EnvironmentBuild
from deployments.errors import Conflict, InvalidInput, SlipwayError
from deployments.localruns.models import ENDED, LIVE, LocalRun, LocalRunState
from deployments.registry.archives import safe_relative_path
from deployments.registry.models import Blob, ModelVersion
from deployments.services import no_code, sources
from deployments.services.config import DeploymentConfig
from deployments.signals import announce

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

log = logging.getLogger(__name__)

CHECKOUT = Path(__file__).resolve().parents[2]
NO_CODE_NAME = "score.py"
MOST_TEXT = 1 * 2**20  # characters of all edits together
_KEPT = timedelta(hours=24)  # the log of a run that ended
_SPAWN_PATIENCE = timedelta(seconds=30)
_STOP_SECONDS = 8.0


def start(
    actor: "AbstractBaseUser",
    *,
    name: str,
    service: str,
    cluster: Cluster,
    environment: Environment,
    source: Blob | None,
    entry_script: str,
    model_versions: tuple[ModelVersion, ...],
    config: DeploymentConfig,
    form: Mapping[str, Any],
) -> LocalRun:
    """Write a run down and spawn its runner. `source` None is no-code: its script is shown and may be edited.

    Raises Conflict when the person has as many as they may, InvalidInput where the cluster's kind cannot.
    """
    if cluster.kind == Cluster.Kind.KUBERNETES:
        raise InvalidInput(
            "A local run takes the environment of this machine or of a Docker Engine; choose a cluster "
            "of one of these kinds to try it.",
            field="cluster",
        )
    docker = cluster.kind == Cluster.Kind.DOCKER
    if not docker and (found := _unbuildable_here(environment)):
        raise InvalidInput(
            f"A local run takes a virtual environment of this machine, which {environment} cannot be. "
            f"{found}",
            field="environment",
        )
    if source is None:
        script = no_code.script_name(model_versions[0])
        text = (CHECKOUT / "deployments/runtime" / script).read_text(encoding="utf-8")
        source, entry_script = sources.from_text({NO_CODE_NAME: text}), NO_CODE_NAME
    settle(timezone.now())
    with transaction.atomic():
        # the person's row is the lock: two clicks at once count each other
        get_user_model()._default_manager.select_for_update().get(pk=actor.pk)
        live = list(LocalRun.objects.filter(owner_id=actor.pk, state__in=LIVE))
        if len(live) >= settings.ENV.local_runs:
            names = ", ".join(f"{run.name} (run {run.pk})" for run in live)
            raise Conflict(
                f"You have {len(live)} local runs, which is as many as one person may: {names}. Stop "
                "one first.",
                code="TooManyLocalRuns",
            )
        run = LocalRun.objects.create(
            owner_id=actor.pk,
            name=name,
            service=service,
            cluster=cluster,
            environment=environment,
            source=source,
            entry_script=entry_script,
            model_versions=[version.pk for version in model_versions],
            config=config.to_values(),
            form=dict(form),
            used_at=timezone.now(),
        )
        transaction.on_commit(lambda: spawn(run.pk))
    return run


def _unbuildable_here(environment: Environment) -> str:
    """Why a virtual environment cannot hold it; empty when it can, or stands already."""
    ready = EnvironmentBuild.objects.filter(hash=environment.hash, state=BuildState.READY)
    if ready.exists():
        return ""
    definition = parse(
        base_image=environment.base_image,
        docker_steps=environment.docker_steps,
        conda_yaml=environment.conda_yaml,
        pip_requirements=environment.pip_requirements,
    )
    found = process_plan(definition, tuple(interpreters.find())).problems
    return " ".join(problem.message for problem in found)


def spawn(pk: int) -> None:
    """Start the runner in a session of its own: it goes on when whoever asked ends."""
    out = settings.HOME.logs / "processes" / "local-runs.log"
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, str(CHECKOUT / "manage.py"), "run_local", str(pk)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=CHECKOUT,
            start_new_session=True,
        )
    threading.Thread(target=process.wait, name=f"local-run-{pk}", daemon=True).start()


def save(run: LocalRun, path: str, text: str) -> int:
    """Put an edited file into the run; its runner loads it. Returns the edit's number.

    Raises InvalidInput, or Conflict when the run has ended.
    """
    safe = safe_relative_path(path)
    text = text.replace("\r\n", "\n")
    with transaction.atomic():
        locked = _live(run)
        edits = {**locked.edits, safe: text}
        if sum(map(len, edits.values())) > MOST_TEXT:
            raise InvalidInput("The edited files are larger than 1 MiB together.", field="text")
        locked.edits, locked.edit, locked.used_at = edits, locked.edit + 1, timezone.now()
        locked.save(update_fields=["edits", "edit", "used_at"])
    announce("local", run.pk)
    return locked.edit


def touch(run: LocalRun) -> None:
    """A person uses it: the idle time begins anew."""
    LocalRun.objects.filter(pk=run.pk, state__in=LIVE).update(used_at=timezone.now())


def stop(run: LocalRun) -> None:
    """Ask it to end. Asking twice, or when it has ended, is not an error."""
    if LocalRun.objects.filter(pk=run.pk, state__in=LIVE).update(stop_asked=True):
        announce("local", run.pk)
    settle(timezone.now())


def edited_source(run: LocalRun) -> Blob:
    """The project folder as it runs now, stored."""
    return sources.with_text(run.source, run.edits) if run.edits else run.source


def claim(pk: int, name: str) -> LocalRun | None:
    """For the runner: the row, or None when it is another's, was stopped, or is gone."""
    mine = LocalRun.objects.filter(
        pk=pk, state=LocalRunState.QUEUED, claimed_by="", stop_asked=False
    )
    if not mine.update(state=LocalRunState.PREPARING, claimed_by=name):
        return None
    announce("local", pk)
    return LocalRun.objects.select_related("environment", "source", "cluster").get(pk=pk)


def settle(now: datetime) -> int:
    """End the rows whose runner is gone, and remove what ended long ago. Returns how many changed."""
    changed = 0
    for run in LocalRun.objects.filter(state__in=LIVE).select_related("cluster"):
        waiting = run.state == LocalRunState.QUEUED and not run.claimed_by
        if waiting and run.stop_asked:
            changed += finish(run.pk, LocalRunState.STOPPED)
        elif waiting and run.created_at < now - _SPAWN_PATIENCE:
            cause = "Its runner did not start; see logs/processes/local-runs.log. Run it again."
            changed += finish(run.pk, LocalRunState.FAILED, code="RunnerLost", cause=cause)
        elif run.claimed_by and known_dead(run.claimed_by):
            processes.kill_all_of(settings.HOME.local_run(run.pk))
            _remove_container(run)
            state = LocalRunState.STOPPED if run.stop_asked else LocalRunState.FAILED
            cause = "" if run.stop_asked else "Its runner was ended from outside. Run it again."
            changed += finish(run.pk, state, code="RunnerLost" if cause else "", cause=cause)
    for run in LocalRun.objects.filter(state__in=ENDED, finished_at__lt=now - _KEPT):
        settings.HOME.local_log(run.pk).unlink(missing_ok=True)
        run.delete()
        changed += 1
    return changed


def container_name(pk: int) -> str:
    return f"slipway-local-run-{pk}"


def _remove_container(run: LocalRun) -> None:
    """What a killed runner left on an Engine. One that cannot be reached now ends it by itself: the
    container looks for the runner's sign of life."""
    if run.cluster.kind != Cluster.Kind.DOCKER:
        return
    from deployments.engine.containers import Engine
    from deployments.images.engines import place_of

    try:
        engine = Engine(place_of(run.cluster).engine)
        try:
            engine.remove(container_name(run.pk))
        finally:
            engine.close()
    except SlipwayError as error:
        log.warning("the container of local run %s is left: %s", run.pk, error.message)


def finish(pk: int, state: LocalRunState, *, code: str = "", cause: str = "") -> bool:
    """The row's end, once; its folder goes first, so that no end leaves it behind."""
    shutil.rmtree(settings.HOME.local_run(pk), ignore_errors=True)
    won = LocalRun.objects.filter(pk=pk, state__in=LIVE).update(
        state=state, cause_code=code, cause=cause, finished_at=timezone.now()
    )
    announce("local", pk)
    return won == 1


def stop_all() -> int:
    """For `manage.py down`: end every runner of this machine, and wait for it. Returns how many."""
    runs = list(LocalRun.objects.filter(state__in=LIVE).only("pk", "claimed_by"))
    LocalRun.objects.filter(state__in=LIVE).update(stop_asked=True)
    runners = [runner for run in runs if (runner := _runner(run.claimed_by)) is not None]
    for runner in runners:
        runner.send_signal(signal.SIGTERM)
    _, left = psutil.wait_procs(runners, timeout=_STOP_SECONDS)
    for runner in left:
        runner.kill()
    psutil.wait_procs(left, timeout=2)
    settle(timezone.now())
    return len(runs)


def _runner(claimed_by: str) -> psutil.Process | None:
    """The runner's process, when it is on this machine and still the same one."""
    pid = claimed_by.split(":")[1] if claimed_by.count(":") >= 2 else ""
    if not pid.isdigit() or known_dead(claimed_by) or int(pid) == os.getpid():
        return None
    try:
        found = psutil.Process(int(pid))
        return found if "run_local" in found.cmdline() else None
    except psutil.Error:
        return None


def _live(run: LocalRun) -> LocalRun:
    locked = LocalRun.objects.select_for_update().get(pk=run.pk)
    if locked.ended or locked.stop_asked:
        raise Conflict("This local run has ended; run it again from its form.", code="Ended")
    return locked
