"""Asks a registry's HTTP API (OCI distribution): is a manifest there, and may we push?

Speaks Basic and Bearer (token server) sign-in. Connects only where `deployments.images.outbound` allows,
follows no redirect, reads at most 4 MiB of an answer, and every call has a deadline. Repeats of an answer
only what has the shape of a registry's error, so it cannot be used to read other services. Passwords and
tokens are in no message. Knows no rows.
"""

import base64
import hashlib
import json
import re
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode, urlsplit

import httpx

from deployments.errors import PermanentError, TemporaryError
from deployments.images import outbound
from deployments.images.outbound import Resolver, Target

UNREACHABLE, DENIED = "RegistryUnreachable", "RegistryDenied"
DEADLINE = 10.0  # seconds of one answer
_MOST = 4 * 2**20
_MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Access:
    """How a registry is reached. `trusted` are token servers' hosts that may be private."""

    address: str
    plain_http: bool = False
    username: str = ""
    password: str = field(default="", repr=False)
    trusted: frozenset[str] = frozenset()
    ca_bundle: str = ""  # path of a PEM file besides the system's


@dataclass(frozen=True, slots=True)
class Answer:
    """What a look-up found: the manifest's digest, None where there is no such manifest."""

    digest: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    headers: httpx.Headers
    body: bytes


def system_resolver(host: str) -> Sequence[str]:
    """All addresses of a host. Raises OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(item[4][0]).partition("%")[0] for item in found]


class RegistryApi:
    """One registry, for a few calls. Use it as a context manager."""

    def __init__(
        self,
        access: Access,
        *,
        transport: httpx.BaseTransport | None = None,
        resolve: Resolver = system_resolver,
        deadline: float = DEADLINE,
    ) -> None:
        self._access = access
        self._resolve = resolve
        self._deadline = deadline
        self._client = httpx.Client(
            transport=transport,
            verify=_trust(access.ca_bundle) if transport is None else True,
            timeout=deadline,
            follow_redirects=False,
            trust_env=False,
        )
        self._target: Target | None = None
        self._authorization = ""

    def __enter__(self) -> "RegistryApi":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def find(self, path: str, reference: str) -> Answer:
        """The digest of `path:reference` (a tag or a digest). Raises TemporaryError, PermanentError."""
        began = time.monotonic()
        where = f"/v2/{path}/manifests/{reference}"
        answer = self._ask("HEAD", where, scope=f"repository:{path}:pull")
        if answer.status == 404:
            return Answer(None, time.monotonic() - began)
        digest = answer.headers.get("docker-content-digest", "")
        if answer.status != 200 or not _DIGEST.match(digest):
            # a registry that answers HEAD without the digest, or with an error whose words we want
            answer = self._ask("GET", where, scope=f"repository:{path}:pull")
            if answer.status == 404:
                return Answer(None, time.monotonic() - began)
            self._expect(answer, (200,), f"the manifest of {path}:{reference[:19]}")
            digest = f"sha256:{hashlib.sha256(answer.body).hexdigest()}"
        return Answer(digest, time.monotonic() - began)

    def test(self, push_to: str = "") -> str:
        """Sign in, and with `push_to` (a path) begin an upload and take it back. Returns what was seen."""
        answer = self._ask(
            "GET", "/v2/", scope=f"repository:{push_to}:pull,push" if push_to else ""
        )
        self._expect(answer, (200,), "its API")
        if "docker-distribution-api-version" not in answer.headers and answer.body.strip() not in (
            b"",
            b"{}",
        ):
            raise PermanentError(
                f"{self._access.address} answers, but not as a registry does. Check host and port.",
                code=UNREACHABLE,
            )
        who = f"as {self._access.username}" if self._access.username else "without signing in"
        if not push_to:
            return f"It answers {who}."
        scope = f"repository:{push_to}:pull,push"
        begun = self._ask("POST", f"/v2/{push_to}/blobs/uploads/", scope=scope)
        self._expect(begun, (202,), f"an upload to {push_to}")
        # only the path of the answer's address is taken: an upload cannot be sent elsewhere
        upload = urlsplit(begun.headers.get("location", ""))
        if upload.path:
            query = f"?{upload.query}" if upload.query else ""
            self._ask("DELETE", upload.path + query, scope=scope)
        return f"It answers {who}, and takes images under {push_to}."

    def _ask(self, method: str, path: str, *, scope: str) -> _Response:
        try:
            if self._target is None:
                self._target = outbound.registry_target(
                    self._access.address,
                    plain_http=self._access.plain_http,
                    resolve=self._resolve,
                )
            target = self._target
            answer = self._send(method, target, path, self._authorization)
            if answer.status == 401:
                self._authorization = self._sign_in(answer.headers, target, scope)
                answer = self._send(method, target, path, self._authorization)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise TemporaryError(
                f"The registry {self._access.address} cannot be reached: {_reason(error)}. Check that it "
                "runs, its address, and whether it speaks TLS.",
                code=UNREACHABLE,
                delay=5,
            ) from error
        if 300 <= answer.status < 400:
            elsewhere = urlsplit(answer.headers.get("location", "")).netloc or "another address"
            raise PermanentError(
                f"The registry {self._access.address} sends us on to {elsewhere[:200]}; redirects are not "
                "followed. Enter the address that answers by itself.",
                code=UNREACHABLE,
            )
        return answer

    def _send(
        self, method: str, target: Target, path: str, authorization: str, accept: str = _MANIFESTS
    ) -> _Response:
        address = f"[{target.address}]" if ":" in target.address else target.address
        headers = {"Host": target.authority, "Accept": accept, "User-Agent": "slipway"}
        if authorization:
            headers["Authorization"] = authorization
        until = time.monotonic() + self._deadline
        with self._client.stream(
            method,
            f"{target.scheme}://{address}:{target.port}{path}",
            headers=headers,
            extensions={"sni_hostname": target.host},
        ) as answer:
            body = b""
            for chunk in answer.iter_bytes():
                body += chunk
                if len(body) > _MOST:
                    raise httpx.DecodingError("its answer is larger than 4 MiB")
                if time.monotonic() > until:
                    raise httpx.ReadTimeout(f"it did not finish in {self._deadline:.0f} s")
            return _Response(answer.status_code, answer.headers, body)

    def _sign_in(self, headers: httpx.Headers, target: Target, scope: str) -> str:
        """The Authorization header that this challenge asks for. Raises PermanentError."""
        challenges = headers.get_list("www-authenticate")
        basic = self._basic()
        for challenge in challenges:
            kind, _, rest = challenge.partition(" ")
            if kind.lower() == "bearer":
                return self._token(dict(_PARAMETER.findall(rest)), target, scope, basic)
        if any(challenge.lower().startswith("basic") for challenge in challenges):
            if not basic:
                raise self._denied("it wants a user and a password, and none is set")
            return basic
        raise self._denied("it asks for a sign-in that Slipway does not know")

    def _token(self, parameters: dict[str, str], registry: Target, scope: str, basic: str) -> str:
        try:
            target = outbound.token_target(
                parameters.get("realm", ""),
                registry=registry,
                trusted=self._access.trusted,
                resolve=self._resolve,
            )
        except outbound.NotAllowed as error:
            raise self._denied(str(error)) from error
        wanted = {"scope": parameters.get("scope") or scope}
        if service := parameters.get("service"):
            wanted["service"] = service
        joint = "&" if "?" in target.path else "?"
        path = f"{target.path}{joint}{urlencode({k: v for k, v in wanted.items() if v}, quote_via=quote)}"
        answer = self._send("GET", target, path, basic, accept="application/json")
        if answer.status != 200:
            said = _words(answer.body) or f"code {answer.status}"
            raise self._denied(f"its token server {target.host} said: {said}")
        try:
            given = json.loads(answer.body)
            token = given.get("token") or given.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str) or not token.isprintable() or not token.isascii():
            raise self._denied(f"its token server {target.host} gave no token")
        return f"Bearer {token}"

    def _basic(self) -> str:
        if not self._access.username and not self._access.password:
            return ""
        pair = f"{self._access.username}:{self._access.password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

    def _expect(self, answer: _Response, wanted: tuple[int, ...], what: str) -> None:
        if answer.status in wanted:
            return
        said = _words(answer.body) or f"code {answer.status}"
        if answer.status in (401, 403):
            raise self._denied(f"asked for {what}, it said: {said}")
        if answer.status == 429 or answer.status >= 500:
            raise TemporaryError(
                f"The registry {self._access.address}, asked for {what}, said: {said}. Try again later.",
                code=UNREACHABLE,
                delay=15,
            )
        raise PermanentError(
            f"The registry {self._access.address}, asked for {what}, said: {said}.",
            code=UNREACHABLE,
        )

    def _denied(self, why: str) -> PermanentError:
        return PermanentError(
            f"The registry {self._access.address} refused us: {why}. Check its user and password under "
            "Registries.",
            code=DENIED,
        )


def _words(body: bytes) -> str:
    """A registry's own words; nothing of what is not shaped as its errors are."""
    try:
        parsed = json.loads(body)
        found = parsed["errors"][0] if "errors" in parsed else {"message": parsed["details"]}
        code, message = str(found.get("code", "")), str(found.get("message", ""))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return ""
    return ": ".join(part for part in (code[:100], message[:400]) if part)


def _reason(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.rstrip(".")


def _trust(ca_bundle: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_bundle:
        context.load_verify_locations(ca_bundle)
    return context
