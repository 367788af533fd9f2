"""What people do, for tests that drive real processes from outside.

Makes tables, the cluster, a model and a built environment, says "ready", and then reads requests as
lines of JSON `{"name": ..., "script": ..., "bulk": MiB}`, deploys or updates, and answers each with the
deployment's id. `script` is the entry script's text; `bulk` is incompressible data to put beside it,
which makes each step that touches files take its time.
"""

import json
import os
import subprocess
import sys

import django


def prepare() -> None:
    from django.conf import settings
    from django.core.management import call_command

    from deployments.clusters.catalogue import THIS_MACHINE, ensure_skus
    from deployments.clusters.changes import attach
    from deployments.clusters.models import Sku
    from deployments.environments.changes import create_environment
    from deployments.environments.venvs import ensure_built
    from deployments.registry.blobs import digest
    from deployments.registry.versions import NewFile, register_version

    call_command("migrate", run_syncdb=True, verbosity=0)
    ensure_skus()
    attach(None, name="local", sku=Sku.objects.get(name=THIS_MACHINE), router_url="http://none")
    path = settings.HOME.uploads / "model.txt"
    path.write_text("a model")
    register_version(
        None,
        name="words",
        files=[NewFile("model.txt", path, *digest(path))],
        framework="Custom",
        framework_version="",
    )
    environment = create_environment(None, name="bare", pip_requirements="six\n")
    build = ensure_built(environment, log=lambda line: None)
    # the first import compiles every module; no test should have to wait for that
    warm = "import gunicorn.app.wsgiapp, azureml_inference_server_http.server.create_app"
    subprocess.run([f"{build.location}/bin/python", "-c", warm], timeout=120, capture_output=True)


def deploy(name: str, script: str, bulk: int) -> int:
    from deployments.clusters.models import Cluster
    from deployments.environments.models import Environment
    from deployments.registry.models import ModelVersion
    from deployments.services import changes, sources
    from deployments.services.models import Service

    files = [("score.py", _stream(script.encode()))]
    files += [(f"bulk/{n}.bin", _stream(os.urandom(2**20))) for n in range(bulk)]
    request = changes.DeployRequest(
        name=name,
        update=Service.objects.filter(name=name).exists(),
        cluster=Cluster.objects.get(),
        model_versions=(ModelVersion.objects.get(),),
        source=sources.from_files(files),
        entry_script="score.py",
        environment=Environment.objects.get(),
        config={"num_replicas": 1},
    )
    return changes.deploy(None, request).pk


def _stream(data: bytes):  # type: ignore[no-untyped-def]
    from io import BytesIO

    return BytesIO(data)


if __name__ == "__main__":
    django.setup()
    prepare()
    print("ready", flush=True)
    for line in sys.stdin:
        print(deploy(**json.loads(line)), flush=True)
