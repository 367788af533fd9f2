"""A local run of a Docker cluster on a real Engine: `argv[1]` is an image that holds the scoring server."""

import os
import signal
import sys
import time

import django

from tests.deployments.localruns.scenario import HELPER, SCRIPT, ask, wait


def main(image: str) -> None:
    from django.conf import settings
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.utils import timezone

    from deployments.clusters.models import Cluster, Sku
    from deployments.engine.containers import Engine
    from deployments.environments.changes import create_environment
    from deployments.environments.models import BuildState
    from deployments.errors import NotFound
    from deployments.images.models import ImageBuild
    from deployments.localruns import changes
    from deployments.localruns.models import LocalRun
    from deployments.services import sources
    from deployments.services.config import DeploymentConfig
    from deployments.types import EngineSpec

    url = "unix:///var/run/docker.sock"
    call_command("migrate", run_syncdb=True, verbosity=0)
    sku = Sku.objects.create(name="this", family="CPU")
    cluster = Cluster.objects.create(
        name="boxes", kind="docker", sku=sku, router_url="http://none", engine_url=url
    )
    environment = create_environment(None, name="bare", pip_requirements="six\n")
    ImageBuild.objects.create(
        hash=environment.hash, state=BuildState.READY, reference=image, sbom={"components": []}
    )
    person = get_user_model().objects.create(username="dan", role="deployer")
    engine = Engine(EngineSpec(url))

    def begin() -> LocalRun:
        return changes.start(
            person,
            name="words",
            service="",
            cluster=cluster,
            environment=environment,
            source=sources.from_text({"score.py": SCRIPT, "helper.py": HELPER}),
            entry_script="score.py",
            model_versions=(),
            config=DeploymentConfig(),
            form={},
        )

    def row(run: LocalRun) -> LocalRun:
        found = LocalRun.objects.get(pk=run.pk)
        assert found.state != "failed" or found.cause_code == "RunnerLost", found.cause
        return found

    def there(run: LocalRun) -> bool:
        try:
            engine.address(changes.container_name(run.pk))
        except NotFound:
            return False
        return True

    run = begin()
    wait("the run", lambda: row(run).state == "running")
    socket = settings.HOME.local_run(run.pk) / "listen.sock"
    assert ask(socket) == (200, '"hello one"'), ask(socket)
    began = time.monotonic()
    edit = changes.save(run, "helper.py", HELPER.replace("one", "two"))
    wait("the edit", lambda: row(run).loaded_edit == edit)
    print(f"loaded in {time.monotonic() - began:.2f} s")
    assert ask(socket) == (200, '"hello two"'), ask(socket)
    edit = changes.save(run, "score.py", "import nothere\n")
    wait("the broken edit", lambda: row(run).loaded_edit == edit)
    assert "nothere" in row(run).load_error
    changes.stop(row(run))
    wait("the stop", lambda: row(run).state == "stopped")
    assert not there(run)

    run = begin()
    wait("the second run", lambda: row(run).state == "running")
    os.kill(int(row(run).claimed_by.split(":")[1]), signal.SIGKILL)

    def settled() -> bool:
        changes.settle(timezone.now())
        return row(run).state == "failed"

    wait("the row's end", settled)
    assert not there(run)
    engine.close()


if __name__ == "__main__":
    django.setup()
    main(sys.argv[1])
