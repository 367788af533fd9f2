"""Read files of an image without running anything of it.

A container is made of the image and never started; the Engine sends its file system as one stream, of
which only what is asked for is kept. The container is removed again, and found by its label when a killed
process could not.
"""

import contextlib
import io
import tarfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import docker

from deployments.engine.client import told
from deployments.errors import TemporaryError

LABEL = "slipway.reads"  # of the containers that are made only to be read
_CHUNK = 2**20


def read(
    client: docker.DockerClient,
    image: str,
    wanted: Callable[[str], bool],
    *,
    most_bytes: int,
    deadline: float = 300.0,
) -> Iterator[tuple[str, bytes]]:
    """(path relative to the root, content) of each plain file that is wanted and at most `most_bytes`
    long; longer ones are cut. Raises SlipwayError; TemporaryError after `deadline` seconds."""
    until = time.monotonic() + deadline
    with told(f"Reading the image {image}"):
        made = client.api.create_container(
            image, command=["/never-started"], network_disabled=True, labels={LABEL: "true"}
        )
        try:
            chunks = client.api.export(made["Id"], chunk_size=_CHUNK)
            stream: Any = _Stream(chunks, until, image)
            with tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK) as archive:
                for entry in archive:
                    name = entry.name.removeprefix("./").lstrip("/")
                    if entry.isreg() and wanted(name):
                        file = archive.extractfile(entry)
                        if file is not None:
                            yield name, file.read(most_bytes)
        finally:
            with contextlib.suppress(docker.errors.APIError):
                client.api.remove_container(made["Id"], force=True, v=True)


def remove_left_over(client: docker.DockerClient, *, before: float) -> int:
    """Remove what readers left that were killed: containers made before this time (epoch seconds).

    A reader at work needs its own, so let that be a while ago. Returns how many went.
    """
    with told("Removing containers that were only read"):
        found = client.api.containers(all=True, filters={"label": LABEL})
        left = [item["Id"] for item in found if item["Created"] < before]
        for container in left:
            client.api.remove_container(container, force=True, v=True)
    return len(left)


class _Stream(io.RawIOBase):
    """The Engine's chunks as a file, with an end to one's patience."""

    def __init__(self, chunks: Iterator[bytes], until: float, image: str) -> None:
        self._chunks, self._until, self._image = chunks, until, image
        self._rest = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self._rest:
            if time.monotonic() > self._until:
                raise TemporaryError(f"The Engine took too long to send the image {self._image}.")
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = chunk
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken
