"""A store of its own, and models in it."""

from pathlib import Path

import pytest

from deployments.clusters.models import Cluster, Sku
from deployments.environments.models import Environment
from deployments.registry.versions import register_files, register_version
from deployments.services.models import Revision, RevisionModel, Service
from tests.serving import serve


@pytest.fixture(autouse=True)
def store(tmp_path: Path, settings) -> Path:
    """The default storage and the uploads folder, of this test."""
    folder = tmp_path / "store"
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": folder},
        },
    }
    settings.FILE_UPLOAD_TEMP_DIR = tmp_path / "uploads"
    settings.FILE_UPLOAD_TEMP_DIR.mkdir()
    return folder


@pytest.fixture
def register(tmp_path, db):
    """`register("name", {"path": b"data"}, **rest)`: a version, without a form."""

    def make(name="diabetes", files=None, actor=None, **rest):
        paths = {}
        for number, (path, data) in enumerate((files or {"model.pkl": b"weights"}).items()):
            paths[path] = tmp_path / f"new-{number}"
            paths[path].write_bytes(data)
        return register_version(actor, name=name, files=register_files(paths), **rest)

    return make


@pytest.fixture
def deployed_in(db):
    """`deployed_in(version, "service")`: the version in the service's current revision."""

    def make(version, name):
        sku, _ = Sku.objects.get_or_create(name="this machine", family="CPU")
        cluster, _ = Cluster.objects.get_or_create(
            name="local", defaults={"sku": sku, "router_url": "http://127.0.0.1:1"}
        )
        environment, _ = Environment.objects.get_or_create(name="env", hash="0" * 64)
        service = Service.objects.create(name=name, cluster=cluster)
        revision = Revision.objects.create(service=service, number=1, environment=environment)
        RevisionModel.objects.create(revision=revision, model_version=version, position=0)
        serve(service, revision)
        return service

    return make
