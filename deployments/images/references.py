"""Image references: taken apart, put together, and which registry's credentials belong to one.

PURE. `[host[:port]/]path[:tag][@digest]`, with Docker's rule of when the first part is a host.
"""

from dataclasses import dataclass

DOCKER_HUB = "docker.io"


@dataclass(frozen=True, slots=True)
class Reference:
    """`host` is `docker.io` where none is written; `tag` and `digest` are empty where none is."""

    host: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Host and path, as the Engine takes them; Docker Hub's are written short."""
        return self.path if self.host == DOCKER_HUB else f"{self.host}/{self.path}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """The parts of a reference as a person writes it."""
    rest, _, digest = text.strip().partition("@")
    first, slash, path = rest.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        first, path = DOCKER_HUB, rest
    last = path.rfind("/") + 1
    name, _, tag = path[last:].partition(":")
    return Reference(first, path[:last] + name, tag, digest)


def image_path(repository: str) -> str:
    """The repository that environments' images are in, under what a registry's row says."""
    return f"{repository.strip('/')}/env" if repository.strip("/") else "env"
