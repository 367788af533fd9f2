"""Keys and tokens as clients meet them, with a real HAProxy."""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from django.test import Client
from django.urls import reverse

from deployments.clusters import drivers
from deployments.clusters.models import Cluster, Sku
from deployments.services import tokens as issued
from deployments.services.models import Service
from deployments.types import AuthSpec, RouterSpec, TokenKey
from portal.models import User
from router import tokens
from router.haproxy import stats
from tests.router.conftest import Rig, eventually
from tests.router.fakes import replica, service
from tests.router.issuer import Issuer, encoded, other_form, tampered

pytestmark = pytest.mark.daemons

TOKENS = AuthSpec(key_enabled=False, token_enabled=True)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Door:
    """A service behind a router that accepts some issuers' tokens."""

    def __init__(self, rig: Rig, client: httpx.AsyncClient) -> None:
        self.rig = rig
        self.client = client
        self.url = rig.score("demo")

    async def open(self, auth: AuthSpec, *keys: TokenKey) -> None:
        self.rig.driver.apply_router(RouterSpec(generation=1, token_keys=keys))
        tiny = await self.rig.replica()
        self.rig.driver.put(service("demo", auth=auth), replica("demo-0", "demo", tiny.address))
        self.rig.start()
        await self.rig.routed("demo-0")

    def settings(self, **changes: object) -> None:
        spec = self.rig.driver.router_spec()
        self.rig.driver.apply_router(replace(spec, generation=spec.generation + 1, **changes))

    async def code(self, bearer: str, client: httpx.AsyncClient | None = None) -> int:
        headers = {"authorization": f"Bearer {bearer}"}
        return (await (client or self.client).post(self.url, headers=headers)).status_code

    async def until(self, expected: int, bearer: str, seconds: float = 10.0) -> float:
        """How many seconds it took until the answer was this."""
        begun = time.monotonic()
        while await self.code(bearer) != expected:
            assert time.monotonic() - begun < seconds, f"not {expected} within {seconds} s"
            await asyncio.sleep(0.01)
        return time.monotonic() - begun

    async def map(self, name: str) -> dict[str, str]:
        [answer] = await self.rig.haproxy.runtime.ask([f"show map {name}"])
        return stats.parse_map(answer)

    def key_of(self, token: str) -> str:
        return f"{digest(token).upper()}:demo"

    @property
    def reloads(self) -> int:
        assert self.rig.loop is not None
        return self.rig.loop.plane.reloads


@pytest.fixture
def door(rig: Rig, client: httpx.AsyncClient) -> Door:
    return Door(rig, client)


async def test_a_token_opens_and_nothing_like_it_does(door: Door) -> None:
    ours, theirs = Issuer(), Issuer()
    await door.open(TOKENS, ours.key)
    now = int(time.time())
    assert await door.code(ours.token()) == 200
    good = ours.token()
    text = f"{encoded(json.dumps({'alg': 'HS256', 'kid': ours.kid}).encode())}." + (
        encoded(json.dumps(ours.claims()).encode())
    )
    with_public_key = hmac.new(ours.public_pem.encode(), text.encode(), hashlib.sha256).digest()
    nobody = {"alg": "none", "kid": ours.kid}
    refused = {
        "expired": ours.token(exp=now - 1),
        "expires this second": ours.token(exp=now),
        "no expiry": ours.token(exp=None),
        "an expiry in words": ours.raw({"alg": "ES256", "kid": ours.kid}, ours.claims(exp="never")),
        "another audience": ours.token(aud="other"),
        "no audience": ours.token(aud=None),
        "two audiences": ours.token(aud=["demo", "other"]),
        "no id": ours.token(jti=None),
        "no subject": ours.token(sub=None),
        "other claims": tampered(good, sub="admin"),
        "a longer life": tampered(good, exp=now + 10**6),
        "another signature": good[:-8] + ("AAAAAAAA" if good[-8:] != "AAAAAAAA" else "BBBBBBBB"),
        "no signature": good.rpartition(".")[0] + ".",
        "a part is missing": good.rpartition(".")[0],
        "algorithm none": f"{encoded(json.dumps(nobody).encode())}.{text.partition('.')[2]}.",
        "signed, said to be none": ours.raw(nobody, ours.claims()),
        "signed, said to be HS256": ours.raw({"alg": "HS256", "kid": ours.kid}, ours.claims()),
        "HS256 with the public key": f"{text}.{encoded(with_public_key)}",
        "another key": theirs.token(),
        "another key under our key's id": theirs.token(kid=ours.kid),
        "our key under another id": ours.token(kid=theirs.kid),
        "no key's id": ours.raw({"alg": "ES256"}, ours.claims()),
        "a digest": digest(good),
        "a word": "eyJhbGciOiJFUzI1NiJ9",
        "dots": "..",
        "nearly nothing": "-",
        "long": "a." * 3000,
    }
    for what, token in refused.items():
        assert await door.code(token) == 401, what
    known = await door.map("tokens.map")
    assert not {door.key_of(token) for token in refused.values()} & set(known)
    assert await door.code(good) == 200  # the door still stands
    answer = await door.client.post(door.url, headers={"authorization": "Bearer x"})
    assert answer.json()["error"]["code"] == "Unauthorized"
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_what_was_verified_is_looked_up_and_not_verified_again(door: Door) -> None:
    ours = Issuer()
    await door.open(TOKENS, ours.key)
    claims = ours.claims()
    token = ours.raw({"alg": "ES256", "kid": ours.kid}, claims)
    assert await door.code(token) == 200
    noted = await door.map("tokens.map")
    assert noted == {door.key_of(token): f"{claims['exp']}:{claims['jti']}:token:dan"}
    assert await door.code(token) == 200
    assert await door.map("tokens.map") == noted

    # nobody signed this, and it is let in all the same: whoever is in the map is not verified
    later, before = int(time.time()) + 60, int(time.time()) - 1
    unsigned, late = "never.was.signed", "nor.was.this"
    await door.rig.haproxy.runtime.tell(
        [
            f"add map tokens.map {door.key_of(unsigned)} {later}:x:token:dan",
            f"add map tokens.map {door.key_of(late)} {before}:y:token:dan",
        ]
    )
    assert await door.code(unsigned) == 200
    assert await door.code(late) == 401


async def test_a_connection_that_showed_a_token_does_not_let_in_what_it_shows_next(
    door: Door,
) -> None:
    ours = Issuer()
    key = "a-key-of-this-service"
    await door.open(AuthSpec(token_enabled=True, key_digests=(digest(key),)), ours.key)
    token = ours.token()
    one = httpx.Limits(max_connections=1, max_keepalive_connections=1)
    async with httpx.AsyncClient(limits=one) as client:
        for good in (token, key):
            for bearer, expected in ((good, 200), ("neither", 401), ("", 401)):
                for _ in range(3):
                    assert await _raw(door, client, bearer) == expected


async def _raw(door: Door, client: httpx.AsyncClient, bearer: str) -> int:
    # without a body: HAProxy ends the connection when it answers before it has read one
    headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
    return (await client.post(door.url, headers=headers)).status_code


async def test_a_connection_takes_the_fast_lane_only_with_what_it_has_shown(door: Door) -> None:
    """`server-timing` tells the lane: only answers of the full one have it."""
    key = "a-key-of-this-service"
    await door.open(AuthSpec(key_digests=(digest(key),)))
    good = {"authorization": f"Bearer {key}"}
    one = httpx.Limits(max_connections=1, max_keepalive_connections=1)
    async with httpx.AsyncClient(limits=one) as client:

        async def lane(headers: dict[str, str], body: Any = b"{}", method: str = "POST") -> str:
            answer = await client.request(method, door.url, headers=headers, content=body)
            full = "server-timing" in answer.headers
            return f"{answer.status_code} {'full' if full else 'fast'}"

        assert [await lane(good) for _ in range(3)] == ["200 full", "200 fast", "200 fast"]
        for asking in (
            {"x-request-id": "mine"},
            {"x-ms-client-request-id": "mine"},
            {"azureml-model-deployment": "default"},
            {"origin": "https://example.org"},
        ):
            for _ in range(2):  # what asks for something is not remembered
                assert await lane(good | asking) == "200 full"
            assert await lane(good) == "200 fast"
        assert await lane(good, b'{"longer": 1}') == "200 fast"  # values may differ
        for _ in range(2):  # no length is announced: by another way, on which nothing is timed
            assert (await lane(good, _chunks())).startswith("200")
        assert await lane(good) == "200 fast"
        more = good | {"x-mine": "1"}
        assert [await lane(more) for _ in range(2)] == ["200 full", "200 fast"]
        assert [await lane(good) for _ in range(2)] == ["200 full", "200 fast"]
        assert await lane({"authorization": f"bearer {key}"}) == "200 full"
        assert (
            await lane(good, method="PUT") == "405 fast"
        )  # answered by the router: nothing is timed
        # keys that were not shown before: a longer one, a shorter one, another one
        for wrong in (f"{key}x", key[:-1], "neither"):
            assert await lane({"authorization": f"Bearer {wrong}"}) == "401 fast"
        assert [await lane(good) for _ in range(2)] == ["200 full", "200 fast"]


async def _chunks() -> AsyncIterator[bytes]:
    yield b"{}"


async def test_a_token_opens_its_own_service_only(door: Door) -> None:
    ours = Issuer()
    await door.open(TOKENS, ours.key)
    tiny = await door.rig.replica()
    door.rig.driver.put(service("other", auth=TOKENS), replica("other-0", "other", tiny.address))
    await door.rig.routed("other-0")
    headers = {"authorization": f"Bearer {ours.token()}"}
    for _ in range(2):  # verified before or not
        assert (await door.client.post(door.url, headers=headers)).status_code == 200
        other = await door.client.post(door.rig.score("other"), headers=headers)
        assert other.status_code == 401


async def test_no_credential_is_left_lying_about(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    ours, key = Issuer(), "a-key-of-this-service"
    await door.open(AuthSpec(token_enabled=True, key_digests=(digest(key),)), ours.key)
    token, expired = ours.token(), ours.token(exp=1)
    assert [await door.code(bearer) for bearer in (key, token, expired)] == [200, 200, 401]
    [tiny] = door.rig.replicas
    seen = [caplog.text, *tiny.heads]
    for path in door.rig.haproxy.paths.folder.rglob("*"):
        if path.is_file():
            seen.append(path.read_text(encoding="utf-8", errors="replace"))
            if path.suffix in (".map", ".pem", ".json", ".cfg") and path.name != "state.json":
                assert path.stat().st_mode & 0o077 == 0, path
    master = door.rig.haproxy.running()
    assert master is not None
    for process in (master, *master.children()):
        seen += [" ".join(process.cmdline()), str(process.environ())]
    for secret in (key, *token.split(".")[1:], *expired.split(".")[1:]):
        assert not [text[:80] for text in seen if secret in text]


async def test_keys_and_tokens_may_both_be_on_or_one_of_them_or_none(door: Door) -> None:
    ours = Issuer()
    token, key = ours.token(), "a-key-of-this-service"
    digests = (digest(key), digest("another"))
    both = AuthSpec(token_enabled=True, key_digests=digests)
    await door.open(both, ours.key)
    assert [await door.code(bearer) for bearer in (key, token, "neither")] == [200, 200, 401]

    def change(auth: AuthSpec) -> None:
        door.rig.driver.put(service("demo", auth=auth))

    change(replace(both, key_enabled=False))
    await door.until(401, key)
    assert [await door.code(bearer) for bearer in (token, "neither")] == [200, 401]
    change(replace(both, token_enabled=False))
    await door.until(401, token)  # though it was verified
    assert [await door.code(bearer) for bearer in (key, "neither")] == [200, 401]
    change(replace(both, token_enabled=False, key_enabled=False))
    await door.until(200, "neither")
    assert (await door.client.post(door.url)).status_code == 200
    change(both)
    await door.until(401, "neither")
    assert [await door.code(bearer) for bearer in (key, token)] == [200, 200]
    assert door.reloads == 0


async def test_a_revoked_token_is_refused_in_every_form_of_it(door: Door) -> None:
    ours = Issuer()
    await door.open(TOKENS, ours.key)
    claims = ours.claims()
    token = ours.raw({"alg": "ES256", "kid": ours.kid}, claims)
    stays = ours.token()
    forms = [token, other_form(token)]
    assert [await door.code(form) for form in (*forms, stays)] == [200, 200, 200]
    door.settings(revoked_tokens=(claims["jti"],))
    await door.until(401, token)
    assert [await door.code(form) for form in (*forms, stays)] == [401, 401, 200]
    assert set(await door.map("revoked.map")) == {claims["jti"]}
    assert set(await door.map("tokens.map")) == {door.key_of(stays)}
    assert door.reloads == 0
    door.settings(revoked_tokens=())
    await door.until(200, token)


async def test_a_token_that_was_revoked_before_it_came_is_never_let_in(door: Door) -> None:
    ours = Issuer()
    claims = ours.claims()
    door.rig.driver.apply_router(RouterSpec())
    await door.open(TOKENS, ours.key)
    door.settings(revoked_tokens=(claims["jti"],))
    token = ours.raw({"alg": "ES256", "kid": ours.kid}, claims)
    await door.until(401, token)
    for _ in range(3):
        assert await door.code(token) == 401
    assert await door.map("tokens.map") == {}


async def test_both_keys_are_accepted_in_between_and_the_third_is_not(door: Door) -> None:
    first, second, third = Issuer(), Issuer(), Issuer()
    await door.open(TOKENS, first.key)
    of_first, of_second = first.token(), second.token()
    assert [await door.code(token) for token in (of_first, of_second)] == [200, 401]
    door.settings(token_keys=(second.key, first.key))
    await door.until(200, of_second)
    assert await door.code(of_first) == 200
    await eventually(lambda: door.reloads == 1, "one reload")
    door.settings(token_keys=(third.key, second.key))
    await door.until(200, third.token())
    assert [await door.code(token) for token in (of_first, of_second)] == [401, 200]
    assert door.key_of(of_first) not in await door.map("tokens.map")


async def test_a_reload_forgets_neither_what_was_verified_nor_what_was_revoked(door: Door) -> None:
    ours = Issuer()
    await door.open(TOKENS, ours.key)
    claims = ours.claims()
    revoked = ours.raw({"alg": "ES256", "kid": ours.kid}, claims)
    token = ours.token()
    assert [await door.code(bearer) for bearer in (token, revoked)] == [200, 200]
    door.settings(revoked_tokens=(claims["jti"],))
    await door.until(401, revoked)
    # a queue wait that no free backend has: one reload
    door.rig.driver.put(service("demo", auth=TOKENS, max_request_wait_ms=700))
    await eventually(lambda: door.reloads == 1, "a reload")
    assert set(await door.map("tokens.map")) == {door.key_of(token)}
    assert [await door.code(bearer) for bearer in (token, revoked)] == [200, 401]


async def test_the_old_worker_of_a_reload_refuses_what_was_revoked_after_it(door: Door) -> None:
    ours = Issuer()
    await door.open(TOKENS, ours.key)
    claims = ours.claims()
    revoked = ours.raw({"alg": "ES256", "kid": ours.kid}, claims)
    async with httpx.AsyncClient() as idle:
        assert await door.code(revoked, idle) == 200
        door.rig.driver.put(service("demo", auth=TOKENS, max_request_wait_ms=700))
        loop = door.rig.loop
        assert loop is not None
        # the idle connection is its
        await eventually(lambda: loop.plane.old_workers, "a reload's old worker")
        door.settings(revoked_tokens=(claims["jti"],))
        await door.until(401, revoked)
        assert await door.code(revoked, idle) == 401


async def test_a_new_loop_finds_what_is_revoked_and_goes_on(door: Door) -> None:
    ours = Issuer()
    await door.open(TOKENS, ours.key)
    first, second = ours.claims(), ours.claims()
    tokens_of = [ours.raw({"alg": "ES256", "kid": ours.kid}, it) for it in (first, second)]
    door.settings(revoked_tokens=(first["jti"],))
    await door.until(401, tokens_of[0])
    assert await door.code(tokens_of[1]) == 200
    await door.rig.abandon()
    door.settings(revoked_tokens=(second["jti"],))  # meanwhile the first has expired
    door.rig.start()
    await door.until(401, tokens_of[1])
    await door.until(200, tokens_of[0])
    assert set(await door.map("revoked.map")) == {second["jti"]}


async def test_a_verified_token_stops_at_its_expiry_and_leaves_the_map(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "LOOK_EVERY", 0.3)
    ours = Issuer()
    await door.open(TOKENS, ours.key)
    expires = int(time.time()) + 3
    token, stays = ours.token(exp=expires), ours.token()
    assert [await door.code(bearer) for bearer in (token, stays)] == [200, 200]
    await door.until(401, token)
    assert expires <= time.time() < expires + 1.5
    while set(await door.map("tokens.map")) != {door.key_of(stays)}:
        assert time.time() < expires + 10
        await asyncio.sleep(0.05)


async def test_a_regenerated_key_stops_within_a_second_without_a_reload(
    door: Door, capsys: pytest.CaptureFixture[str]
) -> None:
    auth = AuthSpec(key_digests=(digest("old"), digest("stays")))
    await door.open(auth)
    assert door.rig.loop is not None
    door.rig.loop._tick = 0.25  # as the product's
    took = []
    for number in range(3):
        name = "old" if number % 2 == 0 else "new"
        other = "new" if name == "old" else "old"
        assert await door.code(name) == 200
        door.rig.driver.put(
            service("demo", auth=replace(auth, key_digests=(digest(other), digest("stays"))))
        )
        took.append(await door.until(401, name))
        assert await door.code("stays") == 200
    with capsys.disabled():
        print(f"\na regenerated key stopped after {[round(item, 3) for item in took]} s")
    assert max(took) < 1.0
    assert door.reloads == 0


@pytest.mark.django_db(transaction=True)
async def test_a_revoked_token_stops_within_two_seconds_of_the_click(
    door: Door, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(drivers._BY_KIND, "process", lambda name: door.rig.driver)
    drivers._driver.cache_clear()
    portal, made = await asyncio.to_thread(_portal_with_tokens)
    spec = door.rig.driver.router_spec()
    await door.open(TOKENS, *spec.token_keys)
    door.rig.driver.apply_router(spec)
    assert door.rig.loop is not None
    door.rig.loop._tick = 0.25  # as the product's
    took = []
    for item in made:
        await door.until(200, item.token)  # over a connection that stays open
        clicked = time.monotonic()
        await asyncio.to_thread(
            portal.post, reverse("service-tokens-revoke", args=["demo"]), {"jti": item.jti}
        )
        await door.until(401, item.token)
        took.append(time.monotonic() - clicked)
    drivers._driver.cache_clear()
    with capsys.disabled():
        print(f"\na revoked token stopped {[round(item, 3) for item in took]} s after the click")
    assert max(took) < 2.0
    assert door.reloads == 0


def _portal_with_tokens() -> tuple[Client, list[issued.Issued]]:
    sku, _ = Sku.objects.get_or_create(name="this machine", defaults={"family": "CPU"})
    cluster = Cluster.objects.create(name="local", sku=sku, router_url="http://127.0.0.1:1")
    row = Service.objects.create(name="demo", cluster=cluster, token_auth_enabled=True)
    dan = User.objects.create(username="dan", role="deployer")
    client = Client()
    client.force_login(dan)
    return client, [issued.issue(dan, row) for _ in range(3)]
