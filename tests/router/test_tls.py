"""TLS and an administrator's own lines at a real HAProxy: versions, swaps, refusals, starts."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest
from django.utils import timezone

from deployments.errors import PermanentError
from deployments.types import CustomLines, RouterSpec, TlsSpec
from tests.deployments.clusters.authority import YEAR, Issued, issue
from tests.ports import free_port
from tests.router.conftest import Rig, _rig, eventually
from tests.router.fakes import Load, replica, service

pytestmark = pytest.mark.daemons

HOST = "localhost"
NOW = timezone.now()


def issued(serial: int = 0) -> Issued:
    return issue(
        HOST, names=(HOST,), begins=NOW - timedelta(days=1), ends=NOW + YEAR + serial * timedelta(1)
    )


def tls(one: Issued, **more: object) -> TlsSpec:
    return TlsSpec(HOST, one.pem, one.key_pem, **more)


@pytest.fixture(scope="module")
def own() -> Issued:
    return issued()


@pytest.fixture
async def rig(tmp_path) -> AsyncIterator[Rig]:
    async with _rig(tmp_path) as made:
        made.settings = replace(made.settings, tls_port=free_port())
        yield made


async def serving(rig: Rig, spec: RouterSpec) -> None:
    tiny = await rig.replica()
    rig.driver.put(service("demo"), replica("demo-0", "demo", tiny.address))
    rig.driver.router = spec
    rig.start()
    await rig.routed("demo-0")


async def follow(rig: Rig, **changes: object) -> RouterSpec:
    """Change the cluster's settings, and wait until the router has looked at them."""
    spec = replace(rig.driver.router, generation=rig.driver.router.generation + 1, **changes)
    rig.driver.router = spec
    following = rig.loop.plane.following

    await eventually(
        lambda: following.asked is spec and following.due() is None, "the router to follow"
    )
    return spec


def context(one: Issued, *versions: ssl.TLSVersion) -> ssl.SSLContext:
    made = ssl.create_default_context(cadata=one.pem)
    if versions:
        made.set_ciphers("ALL:@SECLEVEL=0")
        made.minimum_version, made.maximum_version = versions
    return made


async def shake(rig: Rig, with_: ssl.SSLContext) -> ssl.SSLObject:
    """One handshake; the connection's own account of it."""
    _, writer = await asyncio.open_connection(
        "127.0.0.1", rig.settings.tls_port, ssl=with_, server_hostname=HOST
    )
    found = writer.get_extra_info("ssl_object")
    writer.close()
    return found


async def ends(rig: Rig, one: Issued) -> str:
    """When the certificate that is shown expires; refused unless it is this one."""
    return (await shake(rig, context(one))).getpeercert()["notAfter"]


def scored(rig: Rig) -> str:
    return f"https://{HOST}:{rig.settings.tls_port}/api/v1/service/demo/score"


async def fresh(client: httpx.AsyncClient, url: str) -> httpx.Response:
    """On a connection of its own: an idle one has one more answer of the worker before a reload."""
    return await client.post(url, content=b"{}", headers={"connection": "close"})


async def test_tls_1_2_and_1_3_are_taken_and_older_ones_are_not(rig: Rig, own: Issued) -> None:
    await serving(rig, RouterSpec(generation=1, tls=tls(own)))
    for version, word in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
        assert (await shake(rig, context(own, version, version))).version() == word
    with pytest.warns(DeprecationWarning):
        old = context(own, ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)
    with pytest.raises(ssl.SSLError):
        await shake(rig, old)


async def test_both_http_versions_score_and_the_plain_port_says_why_it_does_not(
    rig: Rig, own: Issued
) -> None:
    await serving(rig, RouterSpec(generation=1, tls=tls(own)))
    made = context(own)
    for protocol in ("h2", "http/1.1"):
        made.set_alpn_protocols([protocol])
        assert (await shake(rig, made)).selected_alpn_protocol() == protocol
    async with httpx.AsyncClient(verify=context(own)) as client:
        assert (await fresh(client, scored(rig))).json()["path"] == "/score"
        plain = await fresh(client, rig.score("demo"))
        assert (plain.status_code, plain.json()["error"]["code"]) == (403, "HttpsRequired")
        assert plain.json()["error"]["request_id"] == plain.headers["x-request-id"]
        assert len(plain.headers["x-request-id"]) > 8
        probe = await client.get(f"{rig.url}/healthz", headers={"connection": "close"})
        assert probe.text == "Healthy"
        await follow(rig, tls=tls(own, plain_http=True))
        assert (await fresh(client, rig.score("demo"))).status_code == 200
        assert (await fresh(client, scored(rig))).status_code == 200


async def test_http_2_scores(rig: Rig, own: Issued) -> None:
    await serving(rig, RouterSpec(generation=1, tls=tls(own)))
    process = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--insecure", "--http2", "--max-time", "20", "--data", "{}"),
        *("--write-out", "\n%{http_version} %{http_code}", scored(rig)),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert out.decode().splitlines()[-1] == "2 200"


async def test_forty_swaps_under_load_lose_nothing_and_reload_nothing(
    rig: Rig, own: Issued
) -> None:
    await serving(rig, RouterSpec(generation=1, tls=tls(own, plain_http=True)))
    plane = rig.loop.plane
    reloads = plane.reloads
    chain = [
        issued(number + 1) for number in range(40)
    ]  # takes this loop's time, the replica's too
    load = Load(rig.settings.port, "demo", b"{}", clients=4)
    failed: list[str] = []

    async def ask_over_tls() -> None:
        made = ssl.create_default_context()
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
        async with httpx.AsyncClient(verify=made) as client:
            while not done.is_set():
                # each request is a handshake of its own
                answer = await client.post(
                    scored(rig), content=b"{}", headers={"connection": "close"}
                )
                if answer.status_code != 200:
                    failed.append(answer.text)

    done = asyncio.Event()
    asking = asyncio.create_task(ask_over_tls())
    for one in chain:
        await follow(rig, tls=tls(one, plain_http=True))
    assert plane.following.problem == ""
    assert await ends(rig, chain[-1]) == (
        (chain[-1].certificate.not_valid_after_utc).strftime("%b %e %H:%M:%S %Y GMT")
    )
    done.set()
    await asking
    assert await load.stop() == {200}
    assert (failed, plane.reloads) == ([], reloads)
    # a HAProxy that is started anew has it too
    assert (rig.place.folder / "site.pem").read_text() == chain[-1].key_pem + chain[-1].pem
    assert (rig.place.folder / "site.pem").stat().st_mode & 0o777 == 0o600


async def test_a_restarted_loop_reloads_nothing_and_tells_the_certificate_again(
    rig: Rig, own: Issued
) -> None:
    await serving(rig, RouterSpec(generation=1, tls=tls(own)))
    await rig.abandon()
    following = issued(3)
    rig.driver.router = RouterSpec(generation=2, tls=tls(following))
    loop = rig.start()
    await eventually(lambda: loop.plane.following.status().generation == 2, "the second loop")
    assert loop.plane.reloads == 0
    assert await ends(rig, following)


async def test_turning_tls_on_and_off_leaves_no_key_behind(
    rig: Rig, own: Issued, client: httpx.AsyncClient
) -> None:
    await serving(rig, RouterSpec())
    site = rig.place.folder / "site.pem"
    load = Load(rig.settings.port, "demo", b"{}", clients=2)
    await load.more()
    await follow(rig, tls=tls(own, plain_http=True))
    assert await ends(rig, own)
    assert site.exists()
    await follow(rig, tls=None)
    assert not site.exists()
    assert "PRIVATE" not in (rig.place.folder / "applied.json").read_text()
    await load.more()
    assert await load.stop() == {200}
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await ends(rig, own)


async def test_settings_that_haproxy_refuses_leave_what_runs(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    await serving(rig, RouterSpec())
    good = CustomLines(frontend=("http-response set-header x-mine yes",))
    await follow(rig, custom=good)
    assert (await fresh(client, rig.score("demo"))).headers["x-mine"] == "yes"
    await follow(rig, custom=CustomLines(frontend=("no-such-keyword here",)))
    status = rig.loop.plane.following.status()
    assert (status.generation, status.wanted) == (1, 2)
    assert "no-such-keyword" in status.problem
    # a service that needs the pool to grow gets its room all the same
    for number in range(5):
        tiny = await rig.replica()
        name = f"more{number}"
        rig.driver.put(service(name), replica(f"{name}-0", name, tiny.address))
    await rig.routed(*(f"more{number}-0" for number in range(5)))
    answer = await fresh(client, rig.score("more4"))
    assert (answer.status_code, answer.headers["x-mine"]) == (200, "yes")
    assert rig.loop.plane.following.problem == status.problem
    # and better lines are followed at once
    await follow(rig, custom=CustomLines())
    assert "x-mine" not in (await fresh(client, rig.score("demo"))).headers
    assert rig.loop.plane.following.status().problem == ""


async def test_a_port_that_is_taken_is_told_and_serving_goes_on(
    rig: Rig, own: Issued, client: httpx.AsyncClient
) -> None:
    await serving(rig, RouterSpec())
    blocker = await asyncio.start_server(lambda r, w: None, "127.0.0.1", rig.settings.tls_port)
    load = Load(rig.settings.port, "demo", b"{}", clients=2)
    await follow(rig, tls=tls(own))
    problem = rig.loop.plane.following.status().problem
    assert "old one serves on" in problem
    assert "cannot bind" in problem
    await load.more()
    assert await load.stop() == {200}
    # what stands on the disk is what runs
    assert "site.pem" not in (rig.place.folder / "haproxy.cfg").read_text()
    # replicas come and go as before: the worker that stayed is not taken for an old one
    other = await rig.replica()
    rig.driver.put(
        service("demo"),
        replica("demo-0", "demo", rig.replicas[0].address),
        replica("demo-1", "demo", other.address),
    )
    await rig.routed("demo-1")
    assert rig.loop.plane.old_workers == ()
    blocker.close()


async def test_a_start_with_refused_lines_serves_with_what_ran_before(
    rig: Rig, client: httpx.AsyncClient
) -> None:
    await serving(rig, RouterSpec())
    await follow(rig, custom=CustomLines(frontend=("http-response set-header x-mine yes",)))
    await rig.abandon()
    await asyncio.to_thread(rig.haproxy.stop, 0.5)
    bad = CustomLines(global_section=("no-such-keyword",))
    rig.driver.router = RouterSpec(generation=9, custom=bad)
    rig.driver.reports.clear()
    loop = rig.start()
    await rig.routed("demo-0")
    assert (await fresh(client, rig.score("demo"))).headers["x-mine"] == "yes"
    assert "no-such-keyword" in loop.plane.following.status().problem


async def test_settings_that_cannot_be_read_change_nothing(
    rig: Rig, own: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    await serving(rig, RouterSpec(generation=1, tls=tls(own)))

    def away() -> RouterSpec:
        raise PermanentError("router.json cannot be read")

    monkeypatch.setattr(rig.driver, "router_spec", away)
    reports = len(rig.driver.reports)
    await eventually(lambda: len(rig.driver.reports) > reports + 3, "some turns")
    assert await ends(rig, own)
    assert rig.loop.status.trouble == ""


async def test_lines_are_checked_in_a_scratch_folder_with_their_numbers(
    rig: Rig, own: Issued
) -> None:
    await serving(rig, RouterSpec(generation=1, tls=tls(own)))
    plane = rig.loop.plane
    before = sorted(path.name for path in rig.place.folder.iterdir())
    ok, said = await plane.check(CustomLines(defaults=("# fine", "timeout client 30s")))
    assert (ok, said) == (True, [])
    bad = CustomLines(
        global_section=("tune.bufsize 65536",),
        defaults=("# fine", "tymeout client 30s"),
        frontend=("", "http-request nonsense"),
    )
    ok, said = await plane.check(bad)
    assert ok is False
    assert [(item.area, item.line) for item in said] == [("defaults", 2), ("frontend", 2)]
    assert "tymeout" in said[0].message
    ok, said = await plane.check(CustomLines(backend=("option nonsense",)))
    assert (ok, said[0].area, said[0].line) == (False, "backend", 1)
    assert sorted(path.name for path in rig.place.folder.iterdir()) == before
    assert plane.following.status().problem == ""
    assert plane.reloads == 0
