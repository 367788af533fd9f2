"""Reach a Docker Engine, and say in our own errors what it says.

Every call has a deadline. An Engine that cannot be reached is `Unavailable` (temporary); what it refuses is
permanent and carries its own words. A key on disk is readable by its owner alone and gone with the client.
"""

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException
from docker.errors import NotFound as EngineNotFound
from docker.tls import TLSConfig

from deployments.errors import Conflict, NotFound, PermanentError, TemporaryError, Unavailable
from deployments.types import EngineSpec

DEADLINE = 10.0  # seconds of one call; builds, pulls and followed logs say their own
_OLDEST_API = "1.40"  # Docker 19.03: device requests


def connect(spec: EngineSpec, *, deadline: float = DEADLINE) -> docker.DockerClient:
    """A client of this Engine. The caller closes it. Raises Unavailable, PermanentError."""
    with _pem_files(spec) as tls, told(f"The Docker Engine at {spec.url}"):
        client = docker.DockerClient(
            base_url=spec.url, version="auto", timeout=deadline, tls=tls or False
        )
        version = client.api.api_version
    if tuple(map(int, version.split("."))) < tuple(map(int, _OLDEST_API.split("."))):
        client.close()
        raise PermanentError(
            f"The Docker Engine at {spec.url} speaks API {version}; Slipway needs {_OLDEST_API} "
            "(Docker 19.03) or newer. Upgrade it."
        )
    return client


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Turn what the client library raises into our errors; `what` begins their messages."""
    try:
        yield
    except EngineNotFound as error:
        raise NotFound(f"{what}: {_words(error)}", evidence=str(error)) from error
    except APIError as error:
        if error.status_code == 409:
            raise Conflict(f"{what}: {_words(error)}", evidence=str(error)) from error
        if error.is_server_error():
            raise TemporaryError(f"{what}: {_words(error)}", evidence=str(error)) from error
        raise PermanentError(f"{what}: {_words(error)}", evidence=str(error)) from error
    except (
        DockerException,
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
        ssl.SSLError,
        OSError,
    ) as error:
        raise Unavailable(
            f"{what} cannot be reached: {error}. Check that it runs and that its address is right.",
            evidence=repr(error),
        ) from error


def _words(error: APIError) -> str:
    text = str(error.explanation or error).strip()
    return text if text.endswith(".") else f"{text}."


@contextlib.contextmanager
def _pem_files(spec: EngineSpec) -> Iterator[TLSConfig | None]:
    """The library takes files only, and reads them while it connects for the first time."""
    if not spec.ca and not spec.cert:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="engine-") as name:  # mode 700
        paths = {}
        for part in ("ca", "cert", "key"):
            if text := getattr(spec, part):
                path = Path(name) / f"{part}.pem"
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                    file.write(text)
                paths[part] = str(path)
        pair = (paths["cert"], paths["key"]) if "cert" in paths and "key" in paths else None
        yield TLSConfig(client_cert=pair, ca_cert=paths.get("ca"), verify="ca" in paths)
