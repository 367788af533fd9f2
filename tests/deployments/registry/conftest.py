"""A store of its own for each test, and files to put into it."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.files.storage import default_storage

from deployments.clusters.models import Cluster, Sku
from deployments.environments.models import Environment
from deployments.registry.versions import NewFile
from deployments.services.models import Revision, Service


@pytest.fixture
def store(tmp_path: Path, settings) -> Path:
    """The default storage in a folder of this test."""
    folder = tmp_path / "store"
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": folder},
        },
    }
    assert default_storage.path("x") == str(folder / "x")
    return folder


@pytest.fixture
def remote(settings) -> None:
    """A default storage without local paths, as S3 is."""
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {"BACKEND": "tests.deployments.registry.remote.RemoteStorage"},
    }


@pytest.fixture
def new_file(tmp_path: Path) -> Callable[..., NewFile]:
    """`new_file("model.pkl", b"...")`: a file on disk, ready to register."""
    made = 0

    def make(path: str, data: bytes = b"weights") -> NewFile:
        nonlocal made
        made += 1
        source = tmp_path / f"upload-{made}"
        source.write_bytes(data)
        return NewFile(path, source, hashlib.sha256(data).hexdigest(), len(data))

    return make


@pytest.fixture
def a_revision(db):
    """Revision 1 of the service `live`, which is not deployed yet."""
    sku = Sku.objects.get_or_create(name="this machine", defaults={"family": "CPU"})[0]
    cluster = Cluster.objects.create(name="local", sku=sku, router_url="http://127.0.0.1:1")
    service = Service.objects.create(name="live", cluster=cluster)
    environment = Environment.objects.create(name="env", hash="0" * 64)
    return Revision.objects.create(service=service, number=1, environment=environment)
