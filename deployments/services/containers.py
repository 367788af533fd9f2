"""A person's own image: what may be said of it, in the form, in Azure's JSON and in a revision's row.

PURE. Nothing of such a service is zipped, hashed or built here; its container serves by itself.
"""

import re
from collections.abc import Mapping
from typing import Any

from deployments.codec import from_json, to_json
from deployments.errors import InvalidInput
from deployments.types import ClusterKind, ContainerSpec, EngineSpec

# The kinds of clusters that start containers.
KINDS = frozenset({ClusterKind.DOCKER.value, ClusterKind.KUBERNETES.value})

DEFAULT_PORT = 5001
_ROUTES = {
    "scoring_path": "scoringRoute",
    "liveness_path": "livenessRoute",
    "readiness_path": "readinessRoute",
}
LABELS = {
    "scoring_path": "Scoring path",
    "liveness_path": "Liveness path",
    "readiness_path": "Readiness path",
}
# What may stand in an HAProxy rule as it is: no spaces, quotes, per cent signs or query strings.
_PATH = re.compile(r"^/[A-Za-z0-9._~/:@-]{0,200}$")
# [host[:port]/]name[:tag][@digest]; a host has a dot or a port, or is localhost
_IMAGE = re.compile(
    r"^(?:(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|localhost|[A-Za-z0-9.-]+(?=:[0-9]))(?::[0-9]{1,5})?/)?"
    r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
    r"(?:@sha256:[0-9a-f]{64})?$"
)


def problems(container: ContainerSpec) -> list[InvalidInput]:
    """What is wrong with it, each with the form's field (`container_` before the name)."""
    found = []
    if not _IMAGE.match(container.image) or len(container.image) > 400:
        found.append(
            InvalidInput(
                f"{container.image!r} is no image's reference; write it as docker pull takes it, such "
                "as registry.example.com/team/scorer:1.4 or with @sha256: and its digest.",
                field="container_image",
            )
        )
    if not 1 <= container.port <= 65535:
        found.append(InvalidInput("A port is 1 to 65535.", field="container_port"))
    for name, label in LABELS.items():
        path = getattr(container, name)
        if not _PATH.match(path) or "//" in path or "/../" in f"{path}/":
            found.append(
                InvalidInput(
                    f"{label} is {path!r}; write a path such as /score, of letters, digits and "
                    ". _ ~ / : @ -",
                    field=f"container_{name}",
                )
            )
    return found


def cluster_problems(kind: str, name: str, engine_url: str = "") -> list[InvalidInput]:
    """Why a cluster of this kind cannot run somebody's image; empty where it can. `engine_url` is a Docker
    cluster's."""
    if kind in KINDS and engine_url and not EngineSpec(engine_url).local:
        return [
            InvalidInput(
                f"{name}’s Engine is on another machine: an image of your own asks for no key, so anybody "
                "on the network between could reach it past the router. Choose a cluster whose Engine "
                "is on this machine.",
                field="cluster",
            )
        ]
    if kind in KINDS:
        return []
    return [
        InvalidInput(
            f"{name} runs processes of this machine and no containers; choose a Docker cluster to bring "
            "an image.",
            field="cluster",
        )
    ]


def to_row(container: ContainerSpec | None) -> dict[str, Any] | None:
    """What a revision keeps."""
    found: dict[str, Any] | None = to_json(container) if container is not None else None
    return found


def from_row(raw: Mapping[str, Any] | None) -> ContainerSpec | None:
    return from_json(ContainerSpec, dict(raw)) if raw else None


def to_azure(container: ContainerSpec) -> dict[str, Any]:
    """As Azure's environments say it: an image, and three routes with a path and a port."""
    return {
        "image": container.image,
        "inferenceConfig": {
            azure: {"path": getattr(container, name), "port": container.port}
            for name, azure in _ROUTES.items()
        },
    }


def from_azure(image: str, routes: Any, path: str) -> ContainerSpec:
    """`inferenceConfig` (or `inferenceContainerProperties`, its older name) of an Azure environment.

    `path` is where it stands, for the message. Raises InvalidInput: one port serves all three routes.
    """
    if not isinstance(routes, Mapping):
        raise InvalidInput(f"{path} must be a JSON object.", field="inferenceconfig")
    values: dict[str, Any] = {}
    ports = set()
    for name, azure in _ROUTES.items():
        route = routes.get(azure)
        if route is None:
            continue
        if not isinstance(route, Mapping) or not isinstance(route.get("path", ""), str):
            raise InvalidInput(f'{path}.{azure} is {{"path", "port"}}.', field="inferenceconfig")
        if route.get("path"):
            values[name] = route["path"]
        if route.get("port") is not None:
            port = route["port"]
            if isinstance(port, bool) or not str(port).isdigit():
                raise InvalidInput(f"{path}.{azure}.port is no port.", field="inferenceconfig")
            ports.add(int(port))
    if len(ports) > 1:
        raise InvalidInput(
            f"{path} names the ports {', '.join(map(str, sorted(ports)))}; one port serves all routes "
            "here.",
            field="inferenceconfig",
        )
    return ContainerSpec(image=image, port=ports.pop() if ports else DEFAULT_PORT, **values)
