"""Long calls of an Engine: run in a thread, followed from outside, given up in time.

The thread blocks on the Engine; the caller gets what came, shows a sign of life twice a second, and may
stop it at any moment: the connection is shut, and the Engine takes that as the end of a build, a pull or a
push. Knows no rows.
"""

import base64
import contextlib
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import docker
import requests

from deployments.engine.client import told
from deployments.errors import NotFound, PermanentError, TemporaryError

_TICK = 0.5  # seconds between two beats, at most
_AT_ONCE = 500  # events handed over together, at most
T = TypeVar("T")
Events = Callable[[list[Any]], None]


class TimedOut(Exception):
    """The deadline passed; the call was given up."""


class EngineSaid(Exception):
    """The Engine ended a build, a pull or a push with this error. `code` is a command's exit code."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class Call(Generic[T]):
    """Something that blocks. `work(put)` runs in a thread and puts events; `stop` makes it end."""

    def __init__(
        self, work: Callable[[Callable[[Any], None]], T], stop: Callable[[], None] = lambda: None
    ) -> None:
        self._work = work
        self._stop = stop

    def follow(
        self, *, on_events: Events, beat: Callable[[], None], deadline: float, grace: float = 10.0
    ) -> T:
        """Its result. `deadline` is on the monotonic clock; what `beat` or `on_events` raise passes through.

        Raises TimedOut, and whatever the work raised.
        """
        waiting: queue.Queue[Any] = queue.Queue(maxsize=10_000)
        ended = threading.Event()
        outcome: list[Any] = []

        def run() -> None:
            try:
                outcome.append((True, self._work(waiting.put)))
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                outcome.append((False, error))
            finally:
                ended.set()

        thread = threading.Thread(target=run, name="engine", daemon=True)
        thread.start()
        try:
            while True:
                beat()
                if events := _take(waiting):
                    on_events(events)
                elif ended.is_set():
                    break
                if time.monotonic() > deadline:
                    raise TimedOut
        finally:
            if not ended.is_set():
                self._stop()
                until = time.monotonic() + grace
                while not ended.wait(0.05) and time.monotonic() < until:
                    with contextlib.suppress(queue.Empty):
                        waiting.get_nowait()  # it may be held up by a full queue
        worked, result = outcome[0]
        if worked:
            return result
        raise result


def _take(waiting: "queue.Queue[Any]") -> list[Any]:
    """What came, after at most a tick."""
    events = []
    with contextlib.suppress(queue.Empty):
        events.append(waiting.get(timeout=_TICK))
        while len(events) < _AT_ONCE:
            events.append(waiting.get_nowait())
    return events


class EventStream:
    """A POST whose answer is one JSON object after another: build, pull, push."""

    def __init__(
        self,
        client: docker.DockerClient,
        path: str,
        *,
        params: Mapping[str, Any],
        what: str,
        auth: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> None:
        self._client = client
        self._path = path
        self._params = params
        self._what = what
        self._body = body
        self._headers = {"X-Registry-Auth": auth_header(auth)}
        if body is not None:
            self._headers = {"Content-Type": "application/x-tar"}
        self._response: requests.Response | None = None
        self._stopped = False

    def call(self) -> "Call[None]":
        return Call(self._run, self._stop)

    def _run(self, put: Callable[[Any], None]) -> None:
        """Raises EngineSaid for an error in the stream, SlipwayError for what the call itself came to."""
        api = self._client.api
        with told(self._what):
            response = api.post(
                f"{api.base_url}/v{api.api_version}{self._path}",
                params=dict(self._params),
                headers=self._headers,
                data=self._body,
                stream=True,
            )
            self._response = response
            with response:
                if self._stopped:
                    return
                if response.status_code >= 400:
                    raise _refused(response, self._what)
                for event in _objects(response.iter_content(chunk_size=None)):
                    if error := event.get("errorDetail") or event.get("error"):
                        raise _error(error)
                    put(event)

    def _stop(self) -> None:
        self._stopped = True
        response = self._response
        if response is None:
            return
        # reading ends at once; closing makes the Engine give up
        with contextlib.suppress(OSError, ValueError, AttributeError):
            response.raw.shutdown()
        connection = getattr(response.raw, "connection", None)
        with contextlib.suppress(OSError, AttributeError):
            connection.sock.shutdown(2)  # type: ignore[union-attr]


def auth_header(auth: Mapping[str, str] | None) -> str:
    """The header the Engine takes a registry's credentials in; an empty object is none."""
    return base64.urlsafe_b64encode(json.dumps(dict(auth or {})).encode()).decode()


def _error(error: Any) -> EngineSaid:
    if isinstance(error, dict):
        code = error.get("code")
        return EngineSaid(
            str(error.get("message", "")).strip(), code if isinstance(code, int) else None
        )
    return EngineSaid(str(error).strip())


def _refused(response: requests.Response, what: str) -> Exception:
    try:
        said = str(response.json().get("message", "")).strip()
    except (ValueError, AttributeError):
        said = response.reason or f"code {response.status_code}"
    if response.status_code == 404:
        return NotFound(f"{what}: {said}", evidence=said)
    if response.status_code >= 500:
        # the Engine passes a registry's refusal on as its own failure
        return EngineSaid(said)
    if response.status_code == 429:
        return TemporaryError(f"{what}: {said}", evidence=said, delay=30)
    return PermanentError(f"{what}: {said}", evidence=said)


def _objects(chunks: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield json.loads(line)
    if rest.strip():
        yield json.loads(rest)
