"""A Docker Engine, a base image and registries of one's own, for the tests behind the marker `docker`."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from django.conf import settings

from deployments.environments.changes import create_environment
from deployments.environments.models import Environment
from deployments.images import attempt, registries
from deployments.images.models import Registry
from tests.deployments.images.registry_server import RegistryServer
from tests.ports import free_port

BASE = os.environ.get("SLIPWAY_TEST_BASE_IMAGE", "127.0.0.1:5000/base/python:3.11")
ENGINE = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
CA = "/etc/ssl/certs/ca-certificates.crt"


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Other settings: `env(build_timeout=10)`."""

    def change(**values: Any) -> None:
        monkeypatch.setattr(settings, "ENV", dataclasses.replace(settings.ENV, **values))

    return change


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=ENGINE, timeout=60)
    try:
        client.ping()
    except docker.errors.DockerException as error:
        pytest.fail(f"These tests need a Docker Engine ({ENGINE}): {error}")
    client.images.get(BASE)
    yield client
    client.close()


@pytest.fixture
def builds(
    engine: docker.DockerClient, env: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings of builds as they work on this machine; what they cache is the tests' own."""
    env(
        docker_host=ENGINE,
        base_image=BASE,
        build_network="host",
        build_ca_bundle=CA if Path(CA).exists() else "",
        build_timeout=150,
    )
    monkeypatch.setattr(attempt, "CACHE_VOLUME", "slipway-tests-build-cache")


@pytest.fixture
def start_registry(tmp_path: Path) -> Iterator[Callable[..., RegistryServer]]:
    """Starts registries; `start_registry(password=True)`. Each is stopped at the end."""
    started: list[RegistryServer] = []

    def start(**values: Any) -> RegistryServer:
        server = RegistryServer(tmp_path / f"registry-{len(started)}", free_port(), **values)
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def add_registry(db: None) -> Callable[..., Registry]:
    def add(server: RegistryServer, role: str = "workspace", **values: Any) -> Registry:
        given = {"name": role, "repository": "tests", "plain_http": True, "username": ""}
        return registries.add(None, role=role, address=server.address, **{**given, **values})

    return add


@pytest.fixture
def environment(db: None) -> Environment:
    return create_environment(None, name="small", pip_requirements="six==1.17.0")


@pytest.fixture
def tidy(engine: docker.DockerClient) -> Iterator[Callable[[str], None]]:
    """Images of these hashes go at the end of the test, with whatever a build left."""
    hashes: list[str] = []
    yield hashes.append
    for hash_ in hashes:
        attempt.clear(engine, hash_)
        for image in engine.images.list(filters={"label": f"slipway.environment={hash_}"}):
            engine.images.remove(image.id, force=True)
