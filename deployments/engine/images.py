"""Images on an Engine: look, pull, push, build, remove. No rows and no decisions here.

Short calls answer or raise SlipwayError. Long ones are `EventStream`s, which the caller follows.
"""

import contextlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import docker
from docker.errors import NotFound as EngineNotFound

from deployments.engine.client import told
from deployments.engine.streaming import EventStream

# An Engine says this of a removal while another one takes away an image that this one has layers of.
_TAKEN, _REMOVALS = "unrecognized image ID", 3

Client = docker.DockerClient  # for the annotations of rooms that must not import docker


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """An image on the Engine. `digests` are the references by digest that it is known under."""

    id: str
    size: int  # bytes, with the layers it shares
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    labels: Mapping[str, str]


def inspect(client: docker.DockerClient, reference: str) -> ImageInfo | None:
    """The image, or None where the Engine has none of that name."""
    with told(f"The image {reference}"):
        try:
            found = client.api.inspect_image(reference)
        except EngineNotFound:
            return None
    return ImageInfo(
        id=found["Id"],
        size=found.get("Size", 0),
        tags=tuple(found.get("RepoTags") or ()),
        digests=tuple(found.get("RepoDigests") or ()),
        labels=(found.get("Config") or {}).get("Labels") or {},
    )


def labelled(client: docker.DockerClient, label: str) -> list[ImageInfo]:
    """All images with this label (`name` or `name=value`), intermediate ones left out."""
    with told("The Engine's images"):
        found = client.api.images(filters={"label": label})
    return [
        ImageInfo(
            id=item["Id"],
            size=item.get("Size", 0),
            tags=tuple(item.get("RepoTags") or ()),
            digests=tuple(item.get("RepoDigests") or ()),
            labels=item.get("Labels") or {},
        )
        for item in found
    ]


def tag(client: docker.DockerClient, image: str, repository: str, name: str) -> None:
    with told(f"Naming the image {repository}:{name}"):
        client.api.tag(image, repository, name, force=True)


def remove(client: docker.DockerClient, image: str, *, force: bool = False) -> bool:
    """Remove an image by id or name with the layers nothing else has. False: a container uses it.

    `force` takes away an image that has several names; never one that a container runs.
    """
    with told(f"Removing the image {image}"), contextlib.suppress(EngineNotFound):
        for left in reversed(range(_REMOVALS)):
            try:
                client.api.remove_image(image, force=force)
                break
            except docker.errors.APIError as error:
                if error.status_code == 409:
                    return False
                if not left or _TAKEN not in str(error):
                    raise
    return True


def containers_of(client: docker.DockerClient, image: str) -> int:
    """How many containers, also stopped ones, are made of this image."""
    with told("The Engine's containers"):
        return len(client.api.containers(all=True, filters={"ancestor": image}))


def pull(
    client: docker.DockerClient, name: str, reference: str, auth: Mapping[str, str] | None
) -> EventStream:
    """`reference` is a tag or a digest."""
    return EventStream(
        client,
        "/images/create",
        params={"fromImage": name, "tag": reference},
        what=f"Pulling {name}",
        auth=auth,
    )


def push(
    client: docker.DockerClient, name: str, reference: str, auth: Mapping[str, str] | None
) -> EventStream:
    return EventStream(
        client,
        f"/images/{name}/push",
        params={"tag": reference},
        what=f"Pushing {name}:{reference}",
        auth=auth,
    )


def build(
    client: docker.DockerClient,
    dockerfile: str,
    *,
    target: str = "",
    arguments: Mapping[str, str] | None = None,
    network: str = "",
    labels: Mapping[str, str] | None = None,
) -> EventStream:
    """A build whose context is the Dockerfile alone. Step containers are removed however it ends."""
    params: dict[str, Any] = {
        "rm": True,
        "forcerm": True,
        "version": "1",  # the classic builder: it is in every Engine, and needs no session
        "buildargs": json.dumps(dict(arguments or {})),
    }
    if target:
        params["target"] = target
    if network:
        params["networkmode"] = network
    if labels:
        params["labels"] = json.dumps(dict(labels))
    return EventStream(client, "/build", params=params, what="The build", body=_context(dockerfile))


def _context(dockerfile: str) -> bytes:
    data = dockerfile.encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def commit(client: docker.DockerClient, container: str, repository: str, name: str) -> str:
    """An image of a container's file system; its id. Blocks for as long as the Engine writes."""
    with told(f"Keeping what the builder {container[:12]} made"):
        return str(client.api.commit(container, repository=repository, tag=name, pause=False)["Id"])
