"""What a registry is asked, how it is signed in to, and where a look-up never goes."""

import hashlib
from collections.abc import Callable

import httpx
import pytest

from deployments.errors import InvalidInput, PermanentError, TemporaryError
from deployments.images.registry_api import Access, RegistryApi

DIGEST = f"sha256:{'a' * 64}"
NAMES = {
    "registry.example.com": ["203.0.113.5"],
    "auth.example.com": ["93.184.216.34"],
    "inside.example.com": ["10.0.0.7"],
    "metadata.example.com": ["169.254.169.254"],
    "127.0.0.1": ["127.0.0.1"],
    "localhost": ["127.0.0.1"],
}
Handler = Callable[[httpx.Request], httpx.Response]


def api(handler: Handler, address: str = "registry.example.com", **values: object) -> RegistryApi:
    return RegistryApi(
        Access(address, **values),  # type: ignore[arg-type]
        transport=httpx.MockTransport(handler),
        resolve=lambda host: NAMES[host],
    )


def test_a_manifest_that_is_there_is_answered_with_its_digest() -> None:
    asked: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, headers={"Docker-Content-Digest": DIGEST})

    assert api(handler).find("slipway/env", "abc").digest == DIGEST
    (request,) = asked
    assert (request.method, request.url.path) == ("HEAD", "/v2/slipway/env/manifests/abc")
    assert str(request.url.host) == "203.0.113.5"  # the address that was judged
    assert request.headers["host"] == "registry.example.com"
    assert "oci.image.index" in request.headers["accept"]
    assert "distribution.manifest.list" in request.headers["accept"]


def test_one_that_is_not_there_is_none() -> None:
    assert api(lambda request: httpx.Response(404)).find("env", "abc").digest is None


def test_a_registry_that_gives_no_digest_has_it_computed() -> None:
    body = b'{"schemaVersion": 2}'
    answer = api(lambda request: httpx.Response(200, content=body)).find("env", "abc")
    assert answer.digest == f"sha256:{hashlib.sha256(body).hexdigest()}"


def test_basic_sign_in_is_used_when_it_is_asked_for() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if "authorization" not in request.headers:
            return httpx.Response(401, headers={"WWW-Authenticate": 'Basic realm="r"'})
        assert request.headers["authorization"] == "Basic dTpw"
        return httpx.Response(200, headers={"Docker-Content-Digest": DIGEST})

    assert api(handler, username="u", password="p").find("env", "abc").digest == DIGEST
    with pytest.raises(PermanentError, match="wants a user and a password, and none is set"):
        api(handler).find("env", "abc")


def bearer(realm: str) -> Handler:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/token":
            assert request.url.params["scope"] == "repository:env:pull"
            assert request.url.params["service"] == "it's"
            assert request.headers["authorization"] == "Basic dTpw"
            return httpx.Response(200, json={"token": "given"})
        if request.headers.get("authorization") == "Bearer given":
            return httpx.Response(200, headers={"Docker-Content-Digest": DIGEST})
        challenge = f'Bearer realm="{realm}",service="it\'s"'
        return httpx.Response(401, headers={"WWW-Authenticate": challenge})

    return handler


@pytest.mark.parametrize(
    "realm",
    [
        "https://auth.example.com/token",  # public
        "https://registry.example.com/token",  # the registry's own
        "https://inside.example.com/token",  # private, and an administrator's own row
    ],
)
def test_a_token_server_that_is_allowed_is_asked(realm: str) -> None:
    given = {"username": "u", "password": "p", "trusted": frozenset({"inside.example.com"})}
    assert api(bearer(realm), **given).find("env", "abc").digest == DIGEST


@pytest.mark.parametrize(
    ("realm", "said"),
    [
        ("https://inside.example.com/token", "private address 10.0.0.7"),
        ("https://metadata.example.com/token", "private address 169.254.169.254"),
        ("http://auth.example.com/token", "without TLS"),
        ("https://127.0.0.1:9200/token", "private address 127.0.0.1"),
        ("https://u:p@auth.example.com/token", "not a plain address"),
        ("file:///etc/passwd", "not a plain address"),
        ("https://registry.example.com:6379/token", "is at the private address"),
    ],
)
def test_a_token_server_inside_is_not_asked_and_gets_no_password(realm: str, said: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.url.host == "203.0.113.5"
        assert request.url.port in (None, 443)
        assert "authorization" not in request.headers
        return httpx.Response(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})

    with pytest.raises(PermanentError, match=said):
        api(handler, username="u", password="p").find("env", "abc")


def test_a_redirect_is_not_followed() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.url.host == "203.0.113.5"
        return httpx.Response(307, headers={"Location": "http://127.0.0.1:6379/"})

    with pytest.raises(PermanentError, match="redirects are not followed"):
        api(handler).find("env", "abc")


@pytest.mark.parametrize(
    ("address", "plain", "said"),
    [
        ("registry.example.com", True, "is not this machine"),
        ("inside.example.com:5000", True, "is not this machine"),
        ("metadata.example.com", False, "link-local"),
        ("user@registry.example.com", False, "is not an address"),
        ("registry.example.com/path", False, "is not an address"),
        ("registry.example.com:port", False, "is not an address"),
    ],
)
def test_a_registry_where_none_may_be_is_refused(address: str, plain: bool, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        api(lambda request: httpx.Response(200), address, plain_http=plain).find("env", "abc")


@pytest.mark.parametrize("address", ["127.0.0.1:5000", "localhost:5000"])
def test_plain_http_is_for_this_machine(address: str) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert (request.url.scheme, request.url.host) == ("http", "127.0.0.1")
        return httpx.Response(404)

    assert api(handler, address, plain_http=True).find("env", "abc").digest is None


def test_only_a_registrys_own_words_are_repeated() -> None:
    said = {"errors": [{"code": "DENIED", "message": "quota used up"}]}
    with pytest.raises(PermanentError, match="DENIED: quota used up"):
        api(lambda request: httpx.Response(403, json=said)).test()
    with pytest.raises(PermanentError) as failed:
        api(lambda request: httpx.Response(403, text="secret page of another service")).test()
    assert "secret page" not in failed.value.message


def test_a_service_that_is_no_registry_is_told_apart() -> None:
    with pytest.raises(PermanentError, match="not as a registry does"):
        api(lambda request: httpx.Response(200, text="<html>")).test()


def test_what_cannot_be_reached_is_temporary() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused")

    with pytest.raises(TemporaryError, match="cannot be reached: Connection refused"):
        api(handler).find("env", "abc")
    with pytest.raises(TemporaryError, match="Try again later"):
        api(lambda request: httpx.Response(503)).test()


def test_an_answer_without_end_is_given_up() -> None:
    body = b"x" * (5 * 2**20)
    with pytest.raises(TemporaryError, match="larger than 4 MiB"):
        api(lambda request: httpx.Response(200, content=body)).find("env", "abc")


def test_the_test_of_a_workspace_begins_an_upload_and_takes_it_back() -> None:
    seen: list[tuple[str, str]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, request.url.raw_path.decode()))
        if request.method == "POST":
            where = "https://elsewhere.example.net/v2/slipway/env/blobs/uploads/7?state=x"
            return httpx.Response(202, headers={"Location": where})
        return httpx.Response(200, headers={"Docker-Distribution-Api-Version": "registry/2.0"})

    assert "takes images under slipway/env" in api(handler).test("slipway/env")
    assert seen == [
        ("GET", "/v2/"),
        ("POST", "/v2/slipway/env/blobs/uploads/"),
        ("DELETE", "/v2/slipway/env/blobs/uploads/7?state=x"),
    ]
