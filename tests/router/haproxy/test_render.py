"""The configuration's text: what it promises, and when it is another one."""

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from deployments.types import CustomLines
from router.haproxy import names, render
from router.haproxy.process import HAProxy, Paths, find_binary
from router.haproxy.render import BackendShape, Placed, RouterConfig
from router.samples import BUCKET_BOUNDS_US, BUCKETS

CONFIG = RouterConfig(
    bind="127.0.0.1",
    port=8080,
    stats_socket="/srv/run/haproxy-local.sock",
    body_socket="/srv/run/body-local.sock",
    backends=(BackendShape(500, 2), BackendShape(900, 3)),
)


def test_every_backend_has_its_queue_and_its_slots() -> None:
    text = render.render(CONFIG)
    assert (
        "backend be_0001 from replicas\n    timeout queue 500ms\n"
        "    server-template s 1-2 127.0.0.1:1 maxconn 1 disabled\n"
    ) in text
    assert "backend be_0002 from replicas\n    timeout queue 900ms\n" in text


def test_replicas_that_stand_already_are_in_the_text() -> None:
    text = render.render(CONFIG, {"be_0002": {"s2": Placed("127.0.0.1:41001", 4)}})
    assert (
        "    server s1 127.0.0.1:1 maxconn 1 disabled\n"
        "    server s2 127.0.0.1:41001 maxconn 4\n"
        "    server s3 127.0.0.1:1 maxconn 1 disabled\n"
    ) in text


def test_the_shape_is_the_same_whoever_stands_in_it() -> None:
    placed = {"be_0001": {"s1": Placed("127.0.0.1:41001", 1)}}
    shape = render.shape(CONFIG)
    assert f"description slipway-{shape}\n" in render.render(CONFIG)
    assert f"description slipway-{shape}\n" in render.render(CONFIG, placed)
    assert render.shape(replace(CONFIG, port=8081)) != shape
    assert render.shape(replace(CONFIG, backends=(BackendShape(500, 2),))) != shape


def test_every_time_has_one_bucket() -> None:
    prefixes = [line.split() for line in render.buckets_map().splitlines()]
    ranges = [(ip_network(prefix), int(bucket)) for prefix, bucket in prefixes]
    assert sum(network.num_addresses for network, _ in ranges) == 2**32

    def bucket(microseconds: int) -> int:
        [found] = [number for network, number in ranges if ip_address(microseconds) in network]
        return found

    for index, bound in enumerate(BUCKET_BOUNDS_US):
        assert (bucket(bound - 1), bucket(bound)) == (index, index + 1)
    assert (bucket(0), bucket(2**32 - 1)) == (0, BUCKETS - 1)


def test_what_is_rejected_while_no_replica_is_ready_is_counted_apart() -> None:
    lines = render.render(CONFIG).splitlines()
    counted = [line for line in lines if f"sc-inc-gpc({names.UNREADY},0)" in line]
    assert len(counted) == 1
    assert "{ status 503 }" in counted[0]
    assert "{ nbsrv lt 1 }" in counted[0]
    assert any(line.endswith(f"store gpc({names.COUNTERS})") for line in lines)
    numbers = {names.REJECTED, names.TIMEOUTS, names.FAILURES, names.CLIENT_ERRORS, names.UNREADY}
    assert numbers == set(range(names.COUNTERS))


def test_no_rule_ends_early_before_a_persons_own_line() -> None:
    own = "http-response set-header x-mine yes"
    text = render.render(replace(CONFIG, custom=CustomLines(backend=(own,))))
    section = text[text.index("defaults replicas") : text.index("backend be_0001")]
    assert own in section
    assert " allow " not in section
    assert " allow " in render.render(CONFIG)


def test_an_address_of_ipv6_is_bound_in_brackets() -> None:
    assert "bind [::1]:8080\n" in render.render(replace(CONFIG, bind="::1"))


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name, which pytest's own may not."""
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        yield Path(folder)


@pytest.mark.daemons
@pytest.mark.parametrize("server_close", [True, False])
async def test_haproxy_takes_the_text_in_a_folder_with_a_blank(
    short: Path, server_close: bool
) -> None:
    folder = short / "a folder"
    paths = Paths.of(folder, folder, "local")
    config = replace(
        CONFIG,
        server_close=server_close,
        stats_socket=str(paths.stats_socket),
        body_socket=str(paths.body_socket),
    )
    placed = {"be_0001": {"s1": Placed("127.0.0.1:41001", 2)}}
    maps = dict.fromkeys((*names.MAPS, names.TOKENS_MAP, names.REVOKED_MAP, names.GATES_MAP), "")
    maps[names.BUCKETS_MAP] = render.buckets_map()
    files = maps | {"router.lua": render.render_lua(config)}
    haproxy = HAProxy(await asyncio.to_thread(find_binary), paths)
    await haproxy.install(render.render(config, placed), files)
    assert paths.config.exists()
    assert paths.config.stat().st_mode & 0o777 == 0o600


# ---- replicas on unix sockets -----------------------------------------------------------------

UNIX = replace(CONFIG, slot_folder="/run/slots")


def test_a_slot_of_a_unix_socket_is_a_link_with_one_for_checks_beside_it() -> None:
    link = "unix@/run/slots/be_0001.s1"
    line = f'    server s1 "{link}" maxconn 1 disabled addr "{link}.up"\n'
    assert line in render.render(UNIX)
    placed = {"be_0001": {"s1": Placed("unix:/replicas/a/listen.sock", 3)}}
    text = render.render(UNIX, placed)
    assert line.replace("maxconn 1 disabled", "maxconn 3") in text
    assert "/replicas/" not in text


def test_gates_may_refuse_a_request_for_as_long_as_it_may_wait() -> None:
    text = render.render(UNIX)
    assert "    timeout queue 500ms\n    retries 25\n" in text
    assert "    timeout queue 900ms\n    retries 45\n" in text
    assert [render.retries(wait) for wait in (1, 199, 220, 60_000)] == [10, 10, 11, 1000]


def test_only_replicas_with_a_gate_may_send_a_request_on_to_another() -> None:
    assert "retry-on conn-failure 425" not in render.render(CONFIG)
    text = render.render(UNIX)
    assert "    retry-on conn-failure 425\n" in text
    # a copy of each request costs a third of all that it costs: only while a gate may refuse
    assert "    http-request disable-l7-retry unless { var(txn.gated) -m found }\n" in text
