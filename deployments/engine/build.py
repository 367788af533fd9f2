"""Builder containers: one script, fed through standard input, in a container that keeps nothing of it.

The script, and all secrets in it, are on a tmpfs: neither the container's configuration nor its file system
holds them. Each is labelled with the hash it builds, so that what a killed worker left is found.
"""

import contextlib
import socket
from collections.abc import Callable
from typing import Any

import docker

from deployments.engine.client import told
from deployments.engine.streaming import Call
from deployments.errors import Unavailable

LABEL = "slipway.build"  # of builder containers and what they leave: the hash
_SCRIPT = "run.sh"
_TMPFS = "size=512m,mode=700,exec"
_CHUNK = 64 * 1024


def create(
    client: docker.DockerClient,
    image: str,
    script: bytes,
    *,
    label: str,
    folder: str,
    cache: str,
    cache_at: str,
    network: str,
) -> str:
    """Make, but do not start, a container that runs `script`. `folder` is its tmpfs, `cache` the volume."""
    with told("Making the builder container"):
        api = client.api
        kept = f"{folder}/{_SCRIPT}"
        reader = f"umask 077; head -c {len(script)} >{kept} && exec sh {kept} </dev/null"
        made = api.create_container(
            image,
            entrypoint=["/bin/sh", "-c"],
            command=[reader],
            user="0:0",
            working_dir="/",
            stdin_open=True,
            labels={LABEL: label},
            use_config_proxy=False,
            healthcheck={"test": ["NONE"]},
            host_config=api.create_host_config(
                network_mode=network or None,
                tmpfs={folder: _TMPFS},
                binds={cache: {"bind": cache_at, "mode": "rw"}},
                log_config={"type": "json-file", "config": {"max-size": "64m", "max-file": "2"}},
            ),
        )
        return str(made["Id"])


def run(client: docker.DockerClient, container: str, script: bytes) -> "Call[int]":
    """Start it and feed it its script; events are lines of output, the result is its exit code."""
    return Call(lambda put: _run(client, container, script, put), lambda: _kill(client, container))


def _run(
    client: docker.DockerClient, container: str, script: bytes, put: Callable[[Any], None]
) -> int:
    api = client.api
    with told("The builder container"):
        attached = api.attach_socket(container, params={"stdin": 1, "stream": 1})
        raw: socket.socket = getattr(attached, "_sock", attached)
        try:
            api.start(container)
            try:
                raw.sendall(script)
            except OSError as error:
                raise Unavailable(f"The builder container took no script: {error}.") from error
        finally:
            for side in (attached, raw):  # the first is a view of the second
                with contextlib.suppress(OSError):
                    side.close()
        rest = b""
        for chunk in api.logs(container, stream=True, follow=True, stdout=True, stderr=True):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                put(_text(line))
        if rest:
            put(_text(rest))
        return int(api.wait(container)["StatusCode"])


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r").rsplit("\r", 1)[-1]


def _kill(client: docker.DockerClient, container: str) -> None:
    with contextlib.suppress(docker.errors.APIError, OSError):
        client.api.kill(container)


def remove(client: docker.DockerClient, container: str) -> None:
    """Stop it if it runs, and remove it with its own volumes; nothing when it is gone."""
    with told("Removing the builder container"), contextlib.suppress(docker.errors.NotFound):
        client.api.remove_container(container, force=True, v=True)


def left_over(client: docker.DockerClient, label: str = "") -> list[tuple[str, str]]:
    """(container, hash) of builder containers; of one hash where `label` is given."""
    with told("The Engine's builder containers"):
        wanted = f"{LABEL}={label}" if label else LABEL
        found = client.api.containers(all=True, filters={"label": wanted})
    return [(item["Id"], item["Labels"][LABEL]) for item in found]
