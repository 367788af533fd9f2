"""What people do, for tests that drive real processes from outside.

Makes tables, the cluster, a model and a built environment, says "ready", and then reads requests as
lines of JSON and answers each with a line "= <JSON>":

    {"do": "deploy", "name", "script", "bulk": MiB, "config": {...}}   deploy or update -> deployment's id
    {"do": "key", "name"}                                             -> the service's primary key

`script` is the entry script's text; `bulk` is incompressible data to put beside it, which makes each
step that touches files take its time. With the argument `light` the environment's scoring server is
`tests.e2e.light_server`, which costs a tenth of the real one to start and to ask.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from shutil import copy

import django


def prepare(light: bool) -> None:
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
    if light:
        build.location = str(lightened(Path(build.location), settings.HOME.root / "light"))
        build.save(update_fields=["location"])


def lightened(venv: Path, into: Path) -> Path:
    """An environment that is `venv` but for its scoring server."""
    (real,) = venv.glob("lib/python3*/site-packages")
    packages = into / real.relative_to(venv)
    server = packages / "azureml_inference_server_http" / "server"
    server.mkdir(parents=True)
    (server.parent / "__init__.py").touch()
    (server / "__init__.py").touch()
    copy(Path(__file__).with_name("light_server.py"), server / "entry.py")
    # its own site-packages come first, so the light server hides the one of the environment
    (packages / "venv.pth").write_text(f"{real}\n")
    (into / "bin").mkdir()
    (into / "bin" / "python").symlink_to((venv / "bin" / "python").resolve())
    copy(venv / "pyvenv.cfg", into / "pyvenv.cfg")
    (into / ".complete").touch()  # what marks a whole environment
    return into


def deploy(name: str, script: str, bulk: int, config: dict[str, object]) -> int:
    from deployments.clusters.models import Cluster
    from deployments.environments.models import Environment
    from deployments.registry.models import ModelVersion
    from deployments.services import changes, sources
    from deployments.services.models import Service

    files = [("score.py", _stream(script.encode()))]
    files += [(f"bulk/{n}.bin", _stream(os.urandom(2**20))) for n in range(bulk)]
    update = Service.objects.filter(name=name).exists()
    request = changes.DeployRequest(
        name=name,
        update=update,
        cluster=Cluster.objects.get(),
        model_versions=(ModelVersion.objects.get(),),
        source=sources.from_files(files),
        entry_script="score.py",
        environment=Environment.objects.get(),
        config=config or ({} if update else {"num_replicas": 1}),
    )
    return changes.deploy(None, request).pk


def _stream(data: bytes):  # type: ignore[no-untyped-def]
    from io import BytesIO

    return BytesIO(data)


def key(name: str) -> str:
    from deployments.services import keys
    from deployments.services.models import Service

    return keys.read(Service.objects.get(name=name))[0]


if __name__ == "__main__":
    django.setup()
    prepare(light="light" in sys.argv)
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        answer = {"deploy": deploy, "key": key}[asked.pop("do")](**asked)
        print("=", json.dumps(answer), flush=True)
