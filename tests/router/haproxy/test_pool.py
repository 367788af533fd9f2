"""Backends given to versions, and the maps' commands in the order no request falls between."""

from deployments.types import AuthSpec, Scaling
from router.haproxy import pool, render
from router.haproxy.pool import Key, Need, assign, map_commands, maps
from router.haproxy.render import BackendShape
from tests.router.fakes import service

ONE, TWO = Key("one", "default"), Key("two", "default")
SHAPES = (BackendShape(500, 8), BackendShape(500, 8))


def test_a_version_takes_a_free_backend_with_its_wait() -> None:
    shapes = (BackendShape(500, 8), BackendShape(900, 8))
    made = assign({}, shapes, {ONE: Need(900, 4)}, (), 8)
    assert made.backends == {ONE: "be_0002"}
    assert made.shapes == shapes
    assert made.why == ()


def test_a_version_keeps_its_backend() -> None:
    made = assign({ONE: "be_0002"}, SHAPES, {ONE: Need(500, 4), TWO: Need(500, 4)}, (), 8)
    assert made.backends == {ONE: "be_0002", TWO: "be_0001"}


def test_a_backend_that_is_not_empty_yet_goes_to_nobody_else() -> None:
    made = assign({ONE: "be_0001"}, SHAPES, {TWO: Need(500, 4)}, ("be_0001",), 8)
    assert made.backends == {ONE: "be_0001", TWO: "be_0002"}
    made = assign({ONE: "be_0001"}, SHAPES, {TWO: Need(500, 4)}, (), 8)
    assert made.backends == {TWO: "be_0001"}


def test_a_wait_that_no_backend_has_changes_a_free_ones() -> None:
    made = assign({}, SHAPES, {ONE: Need(700, 4)}, (), 8)
    assert made.shapes == (BackendShape(700, 8), BackendShape(500, 8))
    assert made.why == ("one/default waits 700 ms in its queue",)


def test_a_full_pool_doubles() -> None:
    held = {ONE: "be_0001", TWO: "be_0002"}
    third = Key("three", "default")
    wanted = {key: Need(500, 4) for key in (ONE, TWO, third)}
    made = assign(held, SHAPES, wanted, (), 8)
    assert made.backends[third] == "be_0003"
    assert len(made.shapes) == 4
    assert made.why == ("no backend is free for three/default: 2 more are made",)


def test_more_replicas_than_slots_double_that_backend_alone() -> None:
    made = assign({ONE: "be_0001"}, SHAPES, {ONE: Need(500, 8)}, (), 8)
    assert made.why == ()
    made = assign({ONE: "be_0001"}, SHAPES, {ONE: Need(500, 9)}, (), 8)
    assert made.shapes == (BackendShape(500, 16), BackendShape(500, 8))


def test_a_version_needs_room_for_its_most_and_for_those_that_leave() -> None:
    spec = service("one", scaling=Scaling(minimum=1, maximum=10), max_request_wait_ms=800)
    assert pool.needs([spec], {ONE: 3}) == {ONE: Need(800, 12)}
    assert pool.needs([spec], {ONE: 14}) == {ONE: Need(800, 16)}


def test_maps_say_routes_keys_and_timeouts() -> None:
    auth = AuthSpec(key_digests=("ab" * 32,))
    made = maps([service("one", auth=auth, scoring_timeout_ms=700)], {ONE: "be_0001"}, {ONE: 3})
    assert made == {
        render.ROUTES_MAP: {"one": "be_0001"},
        render.VERSIONS_MAP: {"one/default": "be_0001"},
        render.KEYS_MAP: {f"{'AB' * 32}:one": "key"},
        render.OPEN_MAP: {},
        render.TIMEOUTS_MAP: {"be_0001": "700"},
        render.RETRY_MAP: {"be_0001": "3"},
    }


def test_a_service_is_open_only_when_neither_keys_nor_tokens_are_asked_for() -> None:
    for auth, is_open in (
        (AuthSpec(key_enabled=False), True),
        (AuthSpec(key_enabled=True), False),
        (AuthSpec(key_enabled=False, token_enabled=True), False),
    ):
        made = maps([service("one", auth=auth)], {ONE: "be_0001"}, {})
        assert made[render.OPEN_MAP] == ({"one": "open"} if is_open else {})


def test_a_service_is_routed_last_and_unrouted_first() -> None:
    nothing = maps([], {}, {})
    auth = AuthSpec(key_digests=("a" * 64,))
    there = maps([service("one", auth=auth)], {ONE: "be_0001"}, {ONE: 1})
    assert map_commands(nothing, there) == (
        "add map timeouts.map be_0001 60000",
        "add map retry.map be_0001 1",
        f"add map keys.map {'A' * 64}:one key",
        "add map versions.map one/default be_0001",
        "add map routes.map one be_0001",
    )
    assert map_commands(there, nothing) == (
        "del map routes.map one",
        "del map versions.map one/default",
        f"del map keys.map {'A' * 64}:one",
        "del map retry.map be_0001",
        "del map timeouts.map be_0001",
    )
    assert map_commands(there, there) == ()


def test_a_changed_key_is_added_before_the_old_one_goes() -> None:
    before = maps([service("one", auth=AuthSpec(key_digests=("a" * 64,)))], {ONE: "be_0001"}, {})
    after = maps([service("one", auth=AuthSpec(key_digests=("b" * 64,)))], {ONE: "be_0001"}, {})
    assert map_commands(before, after) == (
        f"add map keys.map {'B' * 64}:one key",
        f"del map keys.map {'A' * 64}:one",
    )


def test_the_assignment_is_found_again_in_haproxys_own_map() -> None:
    assert pool.recovered({"one/default": "be_0007"}) == {ONE: "be_0007"}
