"""Images that nodes of the tests' cluster pull: pushed to the registry of SLIPWAY_TEST_REGISTRY."""

import functools
import hashlib
import io
import os
import subprocess
import tarfile

from django.conf import settings

from tests.docker.engines import BASE, ENGINE, OWN_IMAGE, docker, ensure_image

REGISTRY = os.environ.get("SLIPWAY_TEST_REGISTRY", "127.0.0.1:5000")
_CRASHING = f"""\
FROM {BASE}
USER app
CMD ["python", "-c", "import sys; print('reading the table'); sys.exit('the table is empty')"]
"""
# As much of the router's image as `fetch` and `front` need; no packages.
_POD = f"""\
FROM {BASE}
COPY deployments /opt/slipway/app/deployments
ENV PYTHONPATH=/opt/slipway/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /opt/slipway/app
USER 1000:1000
"""


@functools.cache
def own() -> str:
    """A person's own: on port 8000, POST /predict, GET /alive and /ready."""
    ensure_image(OWN_IMAGE)
    tag = f"{REGISTRY}/slipway-tests/own:2"
    # its Python ends by that signal, and as PID 1 by no other
    docker("build", "-q", "-t", tag, "-", given=f"FROM {OWN_IMAGE}\nSTOPSIGNAL SIGINT\n")
    return _pushed(tag, tag)


@functools.cache
def crashing() -> str:
    """One that ends as soon as it is started, saying that the table is empty."""
    tag = f"{REGISTRY}/slipway-tests/crashing:1"
    docker("build", "-q", "-t", tag, "-", given=_CRASHING)
    return _pushed(tag, tag)


@functools.cache
def pod() -> str:
    """What fetches files, and stands before a person's own image."""
    files = sorted((settings.CHECKOUT / "deployments").rglob("*.py"))
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        _add(archive, "Dockerfile", _POD.encode())
        for file in files:
            _add(archive, str(file.relative_to(settings.CHECKOUT)), file.read_bytes())
    digest = hashlib.sha256(context.getvalue()).hexdigest()[:12]
    tag = f"{REGISTRY}/slipway-tests/pod:{digest}"
    if not docker("images", "-q", tag):
        subprocess.run(
            ["docker", "-H", ENGINE, "build", "-q", "-t", tag, "-"],
            input=context.getvalue(),
            check=True,
            capture_output=True,
            timeout=120,
            env={**os.environ, "DOCKER_BUILDKIT": "0"},
        )
    return _pushed(tag, tag)


def _pushed(local: str, remote: str) -> str:
    if local != remote:
        docker("tag", local, remote)
    docker("push", "-q", remote)
    return remote


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    entry.mode = 0o644
    archive.addfile(entry, io.BytesIO(data))
