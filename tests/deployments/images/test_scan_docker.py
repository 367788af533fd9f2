"""Listing what is in a real image, through a real Engine, without running anything of it."""

import dataclasses
import time
from datetime import datetime

import pytest
from django.conf import settings

from deployments.engine import files
from deployments.engine.client import connect
from deployments.errors import NotFound
from deployments.images import scan
from deployments.types import EngineSpec

BASE = "127.0.0.1:5000/base/python:3.11"

pytestmark = pytest.mark.docker


@pytest.fixture
def client():
    found = connect(EngineSpec("unix:///var/run/docker.sock"))
    yield found
    found.close()


def test_an_image_is_listed_and_no_container_is_left(client, monkeypatch) -> None:
    monkeypatch.setattr(settings, "ENV", dataclasses.replace(settings.ENV, scanner="none"))
    made: list[str] = []
    create = client.api.create_container

    def noted(*args: object, **kwargs: object) -> dict[str, str]:
        container: dict[str, str] = create(*args, **kwargs)
        made.append(container["Id"])
        return container

    monkeypatch.setattr(client.api, "create_container", noted)
    lines: list[str] = []
    found = scan.inspect(client, BASE, lines.append, subject="base")
    listing = found.listing
    assert listing is not None
    assert listing.system.id == "debian"
    kinds = {item.kind for item in listing.packages}
    assert "deb" in kinds
    names = {item.name for item in listing.packages}
    assert {"base-files", "libc6"} <= names
    assert all(item.source for item in listing.packages if item.kind == "deb")
    assert found.vulnerabilities is None
    assert made and not set(made) & _being_read(client)


def test_an_image_that_is_not_there_is_named(client) -> None:
    with pytest.raises(NotFound, match="nothere"):
        scan.inspect(client, "nothere:1", lambda line: None)


def test_what_a_killed_reader_left_is_removed_once_it_is_old(client) -> None:
    made = client.api.create_container(BASE, command=["/x"], labels={files.LABEL: "true"})["Id"]
    an_hour_ago = time.time() - 3600  # tests beside this one read, too
    files.remove_left_over(client, before=an_hour_ago)
    assert made in _being_read(client)
    created = client.api.inspect_container(made)["Created"]
    assert files.remove_left_over(client, before=datetime.fromisoformat(created).timestamp() + 1)
    assert made not in _being_read(client)


def _being_read(client) -> set[str]:
    found = client.api.containers(all=True, filters={"label": files.LABEL})
    return {item["Id"] for item in found}
