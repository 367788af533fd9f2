"""One API server, in plain JSON: what is asked for comes back as dicts, what goes wrong as our errors.

No classes for objects: there are too many of them to make, and too many versions of each. Every call has a
deadline. Tokens and keys are in no error and no log. The package `kubernetes` is loaded only to run a
kubeconfig's program, where an administrator lets one run.
"""

import contextlib
import json
import logging
import re
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlencode

import urllib3
from urllib3.exceptions import HTTPError, MaxRetryError, NewConnectionError, ProtocolError
from urllib3.response import BaseHTTPResponse

from deployments.errors import Conflict, NotFound, PermanentError, TemporaryError, Unavailable
from deployments.kube.parsing import parsed
from deployments.types import KubeSpec

log = logging.getLogger(__name__)

Object = dict[str, Any]
MANAGER = "slipway"
UNACCESSIBLE = "KubernetesUnaccessible"
_KINDS = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",  # which JSON is
}
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_FOR = 60.0  # seconds for which a token that may be renewed is taken for good
_KNOWN_FOR = 60.0  # and what discovery said
_PAGE = 500
_LONGEST_LINE = 64 * 1024
_STALE = (ProtocolError, ConnectionError)


class Expired(TemporaryError):
    """What was to be gone on from is too old; list anew."""


@dataclass(frozen=True, slots=True)
class Listing:
    """`version` is what a watch goes on from."""

    items: list[Any]
    version: str


@dataclass(frozen=True, slots=True)
class Event:
    """`kind` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    kind: str
    object: Object


class Kube:
    """Thread-safe; connections are kept. `seconds` is a call's deadline where none is given."""

    def __init__(self, spec: KubeSpec, *, seconds: float = 10.0) -> None:
        self.spec = spec
        self.seconds = seconds
        self._credentials = _credentials_of(spec)
        self._pool = self._make_pool()
        self._known: dict[str, tuple[float, frozenset[str]]] = {}
        self._version: tuple[float, tuple[int, int]] | None = None

    def close(self) -> None:
        self._pool.clear()

    # ---- objects --------------------------------------------------------------------------------

    def get(self, path: str, **query: str) -> Object:
        return self._json("GET", path, query=query)

    def items(
        self,
        path: str,
        *,
        labels: str = "",
        fields: str = "",
        newest: bool = True,
        keep: Callable[[Object], Any] | None = None,
    ) -> Listing:
        """All of a collection, a page at a time. `newest=False`: as the server's cache has it, in one.
        `keep` makes of each what is kept of it, None for nothing: no more than a page is there whole."""
        query = {"labelSelector": labels, "fieldSelector": fields}
        if not newest:
            return _listing(self._json("GET", path, query={**query, "resourceVersion": "0"}), keep)
        found, following = list[Any](), ""
        while True:
            turned = {**query, "limit": str(_PAGE), "continue": following}
            try:
                page = self._json("GET", path, query=turned)
            except Expired:  # it took too long to turn the pages: all at once
                return _listing(self._json("GET", path, query=query), keep)
            listing = _listing(page, keep)
            found += listing.items
            following = page.get("metadata", {}).get("continue", "")
            if not following:
                return Listing(found, listing.version)

    def create(self, path: str, body: Object) -> Object:
        """`path` is the collection's. Raises Conflict where it is there already."""
        return self._json("POST", path, query={"fieldManager": MANAGER}, body=body)

    def apply(self, path: str, body: Object) -> Object:
        """Make an object have these fields, and leave all others alone (server-side apply). `path` is its
        own. Where the server does not know that: made, or merged into what is there."""
        query = {"fieldManager": MANAGER, "force": "true"}
        try:
            return self._json("PATCH", path, query=query, body=body, kind=_KINDS["apply"])
        except PermanentError as error:
            if error.code != "UnsupportedMediaType":
                raise
        try:
            return self.patch(path, body)
        except NotFound:
            return self.create(path.rpartition("/")[0], body)

    def patch(
        self, path: str, body: object, kind: Literal["merge", "strategic", "json"] = "merge"
    ) -> Object:
        query = {"fieldManager": MANAGER}
        return self._json("PATCH", path, query=query, body=body, kind=_KINDS[kind])

    def delete(
        self,
        path: str,
        propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
        *,
        grace: int | None = None,
    ) -> None:
        """Not an error when it is gone. `grace`: seconds a pod gets to end, in place of its own."""
        body: Object = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "propagationPolicy": propagation,
        }
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        with contextlib.suppress(NotFound):
            self._json("DELETE", path, body=body)

    def watch(
        self,
        path: str,
        version: str,
        seconds: float,
        *,
        labels: str = "",
        fields: str = "",
        opened: Callable[[BaseHTTPResponse], None] | None = None,
    ) -> Iterator[Event]:
        """What changes after `version`, until the server ends it after `seconds`. Raises Expired when that
        is too long ago. `opened` is given the answer once it begins; `shutdown()` of it ends the watch."""
        answer = self._ask(
            "GET",
            path,
            query={
                "watch": "true",
                "allowWatchBookmarks": "true",
                "resourceVersion": version,
                "timeoutSeconds": str(int(seconds)),
                "labelSelector": labels,
                "fieldSelector": fields,
            },
            read=seconds + self.seconds,
            stream=True,
        )
        try:
            if opened is not None:
                opened(answer)
            for line in _lines(answer, path):
                event = json.loads(line)
                found = event["object"]
                if event["type"] == "ERROR":
                    if found.get("code") in (410, 504):
                        raise Expired(f"{path}: {found.get('message', 'too old')}", delay=0.0)
                    raise _error("watch", path, int(found.get("code", 500)), found, {})
                yield Event(event["type"], found)
        except ValueError as error:
            raise Unavailable(
                f"{self.spec.server}{path} answered what is no JSON: {error}."
            ) from error
        finally:
            # what is half read cannot be used again
            answer.close()

    # ---- pods -----------------------------------------------------------------------------------

    def log(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        previous: bool = False,
        since: str = "",
        tail: int | None = None,
        follow: float = 0.0,
    ) -> Iterator[str]:
        """A container's lines, each with its time before it ("2026-11-22T23:00:00.123456789Z text").

        `since` is such a time, cut to its second by the server. `follow`: for so many seconds without a
        word. Raises NotFound, and Conflict while it has not started (or has no previous run)."""
        query = {
            "container": container,
            "timestamps": "true",
            "previous": "true" if previous else "",
            "sinceTime": since,
            "tailLines": "" if tail is None else str(tail),
            "follow": "true" if follow else "",
        }
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        try:
            answer = self._ask("GET", path, query=query, read=follow or None, stream=True)
        except PermanentError as error:
            if error.code == "BadRequest":
                raise Conflict(error.message, code="NotStarted") from error
            raise
        try:
            for line in _lines(answer, path):
                yield line.decode(errors="replace")
        finally:
            answer.close()

    def proxy(
        self,
        namespace: str,
        target: str,
        port: int,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        seconds: float | None = None,
    ) -> bytes:
        """A request to a pod through the API server. `target` is a pod's name, or "services/<name>".
        Raises by the status as all calls do: 5xx of the pod is Unavailable too."""
        kind, _, name = target.rpartition("/")
        where = f"/api/v1/namespaces/{namespace}/{kind or 'pods'}/{name}:{port}/proxy"
        path, _, asked = path.partition("?")
        answer = self._ask(
            method, f"{where}{path}", query=asked, raw=body, read=seconds or self.seconds
        )
        return answer.data

    # ---- what the server is -----------------------------------------------------------------------

    def version(self) -> tuple[int, int]:
        """Such as (1, 20). Of a server that does not say, by the oldest that has what it has."""
        known = self._version
        if known is None or time.monotonic() - known[0] > _KNOWN_FOR:
            said = self.get("/version")
            found = _version(said) or (1, self._by_what_it_has())
            self._version = known = (time.monotonic(), found)
        return known[1]

    def has(self, group_version: str, resource: str) -> bool:
        """Whether it serves, say, "policy/v1", "poddisruptionbudgets"."""
        known = self._known.get(group_version)
        if known is None or time.monotonic() - known[0] > _KNOWN_FOR:
            try:
                base = "/apis/" if "/" in group_version else "/api/"
                found = self.get(base + group_version)
                names = frozenset(item["name"] for item in found.get("resources", ()))
            except NotFound:
                names = frozenset()
            self._known[group_version] = known = (time.monotonic(), names)
        return resource in known[1]

    def _by_what_it_has(self) -> int:
        for minor, group_version, resource in (
            (23, "autoscaling/v2", "horizontalpodautoscalers"),
            (21, "policy/v1", "poddisruptionbudgets"),
        ):
            if self.has(group_version, resource):
                return minor
        return 20

    # ---- the wire -----------------------------------------------------------------------------------

    def _json(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | str = "",
        body: object = None,
        kind: str = "application/json",
    ) -> Object:
        raw = None if body is None else json.dumps(body).encode()
        answer = self._ask(method, path, query=query, raw=raw, kind=kind)
        try:
            found = parsed(answer.data)
        except ValueError as error:
            raise Unavailable(f"{self.spec.server}{path} answered what is no JSON.") from error
        if not isinstance(found, dict):
            raise Unavailable(f"{self.spec.server}{path} answered what is no object.")
        return found

    def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | str = "",
        raw: bytes | None = None,
        kind: str = "application/json",
        read: float | None = None,
        stream: bool = False,
    ) -> BaseHTTPResponse:
        asked = (
            query if isinstance(query, str) else urlencode({k: v for k, v in query.items() if v})
        )
        url = (
            self.spec.server + quote(path, safe="/:@!$&'()*+,;=~%") + (f"?{asked}" if asked else "")
        )
        headers = {"Accept": "application/json, */*", **self._credentials()}
        if raw is not None:
            headers["Content-Type"] = kind
        timeout = urllib3.Timeout(connect=self.seconds, read=read or self.seconds)
        for attempt in (1, 2):
            try:
                answer = self._pool.request(
                    method,
                    url,
                    body=raw,
                    headers=headers,
                    timeout=timeout,
                    retries=False,
                    redirect=False,
                    preload_content=not stream,
                )
                break
            except _STALE as error:
                # a connection that was kept had been closed; all but a POST may be said twice
                if attempt == 2 or method == "POST":
                    raise self._unreachable(error) from error
            except HTTPError as error:
                raise self._unreachable(error) from error
        if answer.status >= 300:
            try:
                data = answer.data
            except HTTPError:
                data = b""
            raise _error(method, path, answer.status, _status(data), answer.headers)
        return answer

    def _unreachable(self, error: BaseException) -> Unavailable:
        why = error.reason if isinstance(error, MaxRetryError) and error.reason else error
        words = re.sub(r"^<[^>]*>:\s*", "", str(why)) or type(why).__name__
        what = "cannot be reached" if isinstance(why, NewConnectionError) else "did not answer"
        return Unavailable(f"The API server {self.spec.server} {what}: {words}.", code=UNACCESSIBLE)

    def _make_pool(self) -> urllib3.PoolManager:
        ca = self.spec.ca
        if self.spec.in_cluster:
            try:
                ca = (_ACCOUNT / "ca.crt").read_text()
            except OSError as error:
                raise Unavailable(f"This pod has no service account: {error}.") from error
        try:
            context = ssl.create_default_context(cadata=ca or None)
            if self.spec.cert:
                _load_certificate(context, self.spec.cert, self.spec.key)
        except (ssl.SSLError, ValueError, OSError) as error:
            raise PermanentError(
                f"The certificates for {self.spec.server} cannot be used: {error}. Attach the cluster "
                "again with a kubeconfig that works.",
                code=UNACCESSIBLE,
            ) from error
        # clusters' own authorities seldom say what their keys are for
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return urllib3.PoolManager(
            num_pools=2,
            maxsize=16,
            ssl_context=context,
            server_hostname=self.spec.tls_server_name or None,
        )


def _credentials_of(spec: KubeSpec) -> Callable[[], dict[str, str]]:
    """Makes the headers that say who asks."""
    if spec.in_cluster:
        return _Renewed(lambda: (_ACCOUNT / "token").read_text().strip())
    if spec.program:
        return _Renewed(lambda: _token_of_program(spec))
    fixed = {"Authorization": f"Bearer {spec.token}"} if spec.token else {}
    return lambda: fixed


class _Renewed:
    """A token that is asked for anew each minute: pods' tokens and programs' run out."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._at, self._headers = float("-inf"), dict[str, str]()
        self._lock = threading.Lock()

    def __call__(self) -> dict[str, str]:
        with self._lock:
            if time.monotonic() - self._at > _TOKEN_FOR:
                try:
                    self._headers = {"Authorization": f"Bearer {self._read()}"}
                except OSError as error:
                    raise Unavailable(f"The API server's token cannot be read: {error}.") from error
                self._at = time.monotonic()
            return self._headers


def _token_of_program(spec: KubeSpec) -> str:
    from kubernetes.config.config_exception import ConfigException
    from kubernetes.config.exec_provider import ExecProvider
    from kubernetes.config.kube_config import ConfigNode

    try:
        node = ConfigNode("exec", json.loads(spec.program))  # type: ignore[no-untyped-call]
        provider = ExecProvider(node, None)  # type: ignore[no-untyped-call]
        token = provider.run().get("token", "")  # type: ignore[no-untyped-call]
    except (ConfigException, OSError, ValueError) as error:
        raise Unavailable(
            f"The kubeconfig's program gave no credentials for {spec.server}: {error}",
            code=UNACCESSIBLE,
        ) from error
    return str(token)


def _load_certificate(context: ssl.SSLContext, cert: str, key: str) -> None:
    """Python takes them from files only: one of this user's alone, for as long as that takes."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(f"{cert}\n{key}\n")
        file.flush()
        context.load_cert_chain(file.name)


def _lines(answer: BaseHTTPResponse, path: str) -> Iterator[bytes]:
    rest = b""
    try:
        for chunk in answer.stream(_LONGEST_LINE):
            *whole, rest = (rest + chunk).split(b"\n")
            yield from (line for line in whole if line)
    except HTTPError as error:
        raise Unavailable(f"{path} broke off: {error}.") from error
    if rest:
        yield rest


def _listing(page: Object, keep: Callable[[Object], Any] | None = None) -> Listing:
    items = page.get("items") or []
    if keep is not None:
        items = [kept for item in items if (kept := keep(item)) is not None]
    # a list's items come without what each alone would say of itself; the list says it for them
    return Listing(items, page.get("metadata", {}).get("resourceVersion", ""))


def _status(data: bytes) -> Object:
    try:
        found = json.loads(data)
    except ValueError:
        return {"message": data[:500].decode(errors="replace").strip()}
    return found if isinstance(found, dict) else {}


def _error(
    method: str, path: str, status: int, said: Object, headers: Mapping[str, str]
) -> PermanentError | TemporaryError:
    words = str(said.get("message") or said.get("reason") or f"status {status}")
    reason = str(said.get("reason") or "")
    if status == 404:
        return NotFound(words, code=reason)
    if status == 409:
        return Conflict(words, code=reason)
    if status == 410:
        return Expired(words, delay=0.0)
    if status in (401, 403):
        if "exceeded quota" in words:
            return PermanentError(words, code="QuotaExceeded")
        verb, resource, namespace = _asked_for(method, path)
        where = f" in namespace {namespace}" if namespace else ""
        if status == 401:
            what = "does not know our credentials. Attach the cluster again with new ones"
        else:
            what = (
                f"does not let us {verb} {resource}{where}. Give Slipway's account that permission"
            )
        return PermanentError(f"The API server {what}: {words}", code=UNACCESSIBLE, evidence=words)
    if status == 429 or status >= 500:
        after = headers.get("Retry-After", "")
        delay = float(after) if after.isdecimal() else 5.0
        return Unavailable(f"The API server answers {status} to {path}: {words}", delay=delay)
    code = "UnsupportedMediaType" if status == 415 else reason or "BadRequest"
    return PermanentError(f"The API server refuses it: {words}", code=code, evidence=words)


_PATH = re.compile(
    r"/(?:api|apis/[^/]+)/[^/]+(?:/namespaces/(?P<ns>[^/]+)(?=/))?/(?P<what>[^/]+)(?:/(?P<name>[^/]+))?"
    r"(?:/(?P<sub>[^/]+))?"
)
_VERBS = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete", "watch": "watch"}


def _asked_for(method: str, path: str) -> tuple[str, str, str]:
    """The verb, the resource and the namespace of a request, as a role would name them."""
    found = _PATH.match(path)
    if found is None:
        return "get", path, ""
    verb = _VERBS.get(method) or ("get" if found["name"] else "list")
    resource = f"{found['what']}/{found['sub']}" if found["sub"] else found["what"]
    return verb, resource, found["ns"] or ""


def _version(said: Object) -> tuple[int, int] | None:
    text = f"{said.get('major', '')}.{said.get('minor', '')}"
    for given in (text, str(said.get("gitVersion", "")).removeprefix("v")):
        found = re.match(r"([1-9]\d*)\.(\d+)", given)
        if found:
            return int(found[1]), int(found[2])
    return None
