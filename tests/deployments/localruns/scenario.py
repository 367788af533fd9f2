"""One local run from its start to its end, with a real runner and a real gunicorn.

Run as a program in a SLIPWAY_HOME of its own; `argv[1]` is an environment with gunicorn in it. Ends with 0
when everything came as it should.
"""

import contextlib
import http.client
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import django

SCRIPT = "import helper\ndef init(): ...\ndef run(data): return helper.words(data)\n"
HELPER = "def words(data): return data + ' one'\n"
_PATIENCE = 60.0


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("local", timeout=20)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(self.path))


def wait(what: str, test: Callable[[], object]) -> None:
    until = time.monotonic() + _PATIENCE
    while not test():
        if time.monotonic() > until:
            raise AssertionError(f"{what} did not come")
        time.sleep(0.05)


def ask(path: Path) -> tuple[int, str]:
    """One request to a run's socket: code and body."""
    connection = _Unix(path)
    connection.request("POST", "/score", b"hello")
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def main(venv: Path) -> None:
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.core.management import call_command

    from deployments import logstore
    from deployments.agent.processes import start_ticks
    from deployments.clusters.models import Cluster, Sku
    from deployments.environments.changes import create_environment
    from deployments.environments.models import BuildState, EnvironmentBuild
    from deployments.localruns import changes
    from deployments.localruns.models import LocalRun
    from deployments.registry.models import Model, ModelVersion
    from deployments.services import sources
    from deployments.services.config import DeploymentConfig
    from tests.e2e.world import lightened

    call_command("migrate", run_syncdb=True, verbosity=0)
    sku = Sku.objects.create(name="this", family="CPU")
    cluster = Cluster.objects.create(name="local", sku=sku, router_url="http://none")
    environment = create_environment(None, name="bare", pip_requirements="six\n")
    EnvironmentBuild.objects.create(
        hash=environment.hash,
        state=BuildState.READY,
        location=str(lightened(venv, settings.HOME.root / "light")),
    )
    person = get_user_model().objects.create(username="dan", role="deployer")
    model = Model.objects.create(name="words")
    version = ModelVersion.objects.create(
        model=model, version=1, framework="Custom", content_hash="0" * 64, size=0, file_count=0
    )

    def begin() -> LocalRun:
        return changes.start(
            person,
            name="words",
            service="",
            cluster=cluster,
            environment=environment,
            source=sources.from_text({"score.py": SCRIPT, "helper.py": HELPER}),
            entry_script="score.py",
            model_versions=(version,),
            config=DeploymentConfig(),
            form={},
        )

    def row(run: LocalRun) -> LocalRun:
        return LocalRun.objects.get(pk=run.pk)

    def score(run: LocalRun) -> tuple[int, str]:
        return ask(settings.HOME.local_run(run.pk) / "listen.sock")

    def child(run: LocalRun) -> int:
        import json

        told = json.loads((settings.HOME.local_run(run.pk) / "shim.json").read_text())
        return told["child"]["pid"]

    run = begin()
    wait("the run", lambda: row(run).state == "running")
    assert score(run) == (200, "hello one"), score(run)
    process = child(run)

    # an edit of a file beside the script answers anew, in the same process
    edit = changes.save(run, "helper.py", HELPER.replace("one", "two"))
    wait("the edit", lambda: row(run).loaded_edit == edit)
    assert score(run) == (200, "hello two"), score(run)
    assert child(run) == process

    # what does not load says so, and the next edit mends it
    edit = changes.save(run, "score.py", "import nothere\n")
    wait("the broken edit", lambda: row(run).loaded_edit == edit)
    broken = row(run)
    assert broken.state == "broken", broken.state
    assert "No module named 'nothere'" in broken.load_error
    assert "score.py" in broken.load_error
    status, text = score(run)
    assert status == 500 and "nothere" in text, (status, text)
    edit = changes.save(run, "score.py", SCRIPT)
    wait("the mended edit", lambda: row(run).loaded_edit == edit and row(run).state == "running")
    assert score(run) == (200, "hello two"), score(run)

    # a script that ends the process is started anew by the next edit
    edit = changes.save(
        run, "score.py", "import os\ndef init(): ...\ndef run(data): os.kill(os.getppid(), 9)\n"
    )
    wait("the deadly edit", lambda: row(run).loaded_edit == edit)
    with contextlib.suppress(OSError, http.client.HTTPException):
        score(run)
    wait("the end of the process", lambda: row(run).state == "broken")
    assert "ended" in row(run).cause, row(run).cause
    edit = changes.save(run, "score.py", SCRIPT)
    wait("the new process", lambda: row(run).loaded_edit == edit and row(run).state == "running")
    assert score(run) == (200, "hello two"), score(run)
    source = changes.edited_source(row(run))
    assert "two" in sources.read_text(source, "helper.py")

    # asked to stop, it leaves nothing but its log
    process = child(run)
    changes.stop(row(run))
    wait("the stop", lambda: row(run).state == "stopped")
    wait("the end of its process", lambda: start_ticks(process) is None)
    assert not settings.HOME.local_run(run.pk).exists()
    said = " ".join(entry.text for entry in logstore.read(settings.HOME.local_log(run.pk))[0])
    assert "score.py is loaded" in said, said
    assert not list(settings.HOME.clusters.iterdir())

    # a runner that is killed takes its process with it, and the row is ended
    run = begin()
    wait("the second run", lambda: row(run).state == "running")
    process = child(run)
    os.kill(int(row(run).claimed_by.split(":")[1]), signal.SIGKILL)
    wait("the end of the second process", lambda: start_ticks(process) is None)

    def settled() -> bool:
        from django.utils import timezone

        changes.settle(timezone.now())
        return row(run).state == "failed"

    wait("the row's end", settled)
    assert "ended from outside" in row(run).cause
    assert not settings.HOME.local_run(run.pk).exists()

    # and `manage.py down` ends what runs
    run = begin()
    wait("the third run", lambda: row(run).state in ("starting", "running"))
    assert changes.stop_all() == 1
    assert row(run).state == "stopped", (row(run).state, row(run).cause)


if __name__ == "__main__":
    django.setup()
    main(Path(sys.argv[1]))
