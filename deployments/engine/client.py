"""Reach a Docker Engine, and say in our own errors what it says.

Every call has a deadline. An Engine that cannot be reached is `Unavailable` (temporary); what it refuses is
permanent and carries its own words. A key is on disk, readable by its owner alone, only while it is read.
"""

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import requests
import requests.adapters
import urllib3
from docker.errors import APIError, DockerException
from docker.errors import NotFound as EngineNotFound
from docker.tls import TLSConfig

from deployments.errors import Conflict, NotFound, PermanentError, TemporaryError, Unavailable
from deployments.types import EngineSpec

DEADLINE = 10.0  # seconds of one call; builds, pulls and followed logs say their own
_OLDEST_API = "1.40"  # Docker 19.03: device requests


def connect(
    spec: EngineSpec, *, deadline: float = DEADLINE, connections: int = 10
) -> docker.DockerClient:
    """A client of this Engine, which keeps up to `connections` open. The caller closes it.
    Raises Unavailable, PermanentError."""
    with told(f"The Docker Engine at {spec.url}"):
        client = docker.DockerClient(
            base_url=spec.url,
            version="auto",
            timeout=deadline,
            tls=_tls(spec) or False,
            max_pool_size=connections,
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


def _tls(spec: EngineSpec) -> TLSConfig | None:
    """The library takes files, and reads them for each connection; a context is made of them once."""
    if not spec.ca and not spec.cert:
        return None
    context = ssl.create_default_context(cadata=spec.ca or None)
    if spec.cert and spec.key:
        with tempfile.TemporaryDirectory(prefix="engine-") as name:  # mode 700
            path = Path(name) / "pair.pem"
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                file.write(f"{spec.cert.strip()}\n{spec.key.strip()}\n")
            context.load_cert_chain(path)
    return _Tls(context)


class _Tls(TLSConfig):  # type: ignore[misc]
    """Has every connection of a client made with this context, which trusts what it was given alone."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def configure_client(self, client: Any) -> None:
        client.mount("https://", _Adapter(self._context))


class _Adapter(requests.adapters.HTTPAdapter):
    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """The context verifies; here the library would add the public authorities to it."""
        conn.cert_reqs = "CERT_REQUIRED"

    def build_connection_pool_key_attributes(
        self, request: Any, verify: Any, cert: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {"ssl_context": self._context, "cert_reqs": pool.get("cert_reqs")}
