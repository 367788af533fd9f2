"""Web pages of other origins at a real HAProxy: asked by OPTIONS, answered by the router."""

from dataclasses import replace

import httpx
import pytest

from deployments.types import AuthSpec, ServiceSpec
from tests.router.conftest import Rig, eventually
from tests.router.fakes import replica, service
from tests.router.test_routing import digest, error

pytestmark = pytest.mark.daemons

PAGE, OTHER = "https://app.example.com", "https://evil.example.com"
KEYED = AuthSpec(key_enabled=True, key_digests=(digest("right"), digest("second")))


def shown(*origins: str, auth: AuthSpec | None = None) -> ServiceSpec:
    return replace(service("demo", auth=auth), cors_origins=origins)


async def serving(rig: Rig, *origins: str, auth: AuthSpec | None = None) -> None:
    tiny = await rig.replica()
    rig.driver.put(shown(*origins, auth=auth), replica("demo-0", "demo", tiny.address))
    rig.start()
    await rig.routed("demo-0")


async def ask(rig: Rig, client: httpx.AsyncClient, origin: str) -> httpx.Response:
    """What a browser asks before it posts JSON with a key."""
    return await client.options(
        rig.score("demo"),
        headers={
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type",
        },
    )


def served(rig: Rig) -> int:
    return sum(item.served for item in rig.replicas)


async def test_a_listed_page_is_let_in_and_another_is_not(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    await serving(rig, PAGE, "http://localhost:3000", auth=KEYED)
    good = await ask(rig, client, PAGE)
    assert good.status_code == 204
    assert good.headers["access-control-allow-origin"] == PAGE
    assert "POST" in good.headers["access-control-allow-methods"]
    assert "authorization" in good.headers["access-control-allow-headers"]
    assert int(good.headers["access-control-max-age"]) > 0
    assert good.headers["vary"] == "Origin"
    for wrong in (OTHER, "null", "https://app.example.com.evil.example", PAGE + ":8443"):
        refused = await ask(rig, client, wrong)
        assert refused.status_code == 204
        assert not [name for name in refused.headers if name.startswith("access-control")]
        assert refused.headers["vary"] == "Origin"
    assert served(rig) == 0  # no question reached a replica


async def test_answers_and_errors_may_be_read_by_the_page_that_asked(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    await serving(rig, PAGE, auth=KEYED)
    for key, status in (("right", 200), ("wrong", 401)):
        headers = {"origin": PAGE, "authorization": f"Bearer {key}"}
        answer = await client.post(rig.score("demo"), content=b"{}", headers=headers)
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        stranger = await client.post(
            rig.score("demo"), content=b"{}", headers={**headers, "origin": OTHER}
        )
        assert stranger.status_code == status
        assert "access-control-allow-origin" not in stranger.headers
    assert error(answer)[1] == "Unauthorized"
    plain = await client.post(
        rig.score("demo"), content=b"{}", headers={"authorization": "Bearer right"}
    )
    assert "access-control-allow-origin" not in plain.headers


async def test_a_star_lets_every_page_in(rig: Rig, client: httpx.AsyncClient) -> None:
    await serving(rig, "*", PAGE)
    for origin in (PAGE, OTHER):
        assert (await ask(rig, client, origin)).headers["access-control-allow-origin"] == "*"


async def test_without_origins_the_replica_answers_for_itself(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    await serving(rig, auth=KEYED)
    answer = await ask(rig, client, PAGE)
    assert (answer.status_code, answer.json()["path"]) == (200, "/score")
    assert served(rig) == 1


async def test_origins_change_without_a_reload(rig: Rig, client: httpx.AsyncClient) -> None:
    await serving(rig, PAGE)
    address = rig.replicas[0].address

    async def allowed(origin: str) -> bool:
        return "access-control-allow-origin" in (await ask(rig, client, origin)).headers

    assert (await allowed(PAGE), await allowed(OTHER)) == (True, False)
    rig.driver.put(shown(OTHER), replica("demo-0", "demo", address))
    told = rig.loop.plane.told
    await eventually(lambda: rig.loop.plane.told > told, "the maps to change")
    assert (await allowed(PAGE), await allowed(OTHER)) == (False, True)
    assert rig.loop.plane.reloads == 0
