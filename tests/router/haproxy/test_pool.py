"""Backends given to versions, and the maps' commands in the order no request falls between."""

from collections import Counter
from dataclasses import replace

import pytest

from deployments.types import AuthSpec, Scaling, ServiceSpec
from router.haproxy import names, pool
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


def test_a_wait_that_many_versions_have_costs_few_reloads() -> None:
    shapes: tuple[BackendShape, ...] = (BackendShape(500, 8),) * 32
    held: dict[Key, str] = {}
    wanted: dict[Key, Need] = {}
    reloads = 0
    for number in range(16):
        wanted[Key(f"s{number}", "default")] = Need(700, 4)
        made = assign(held, shapes, wanted, (), 8)
        reloads += made.shapes != shapes
        held, shapes = made.backends, made.shapes
    assert reloads == 4  # for 1, 3, 7 and 15
    assert [shape.queue_wait_ms for shape in shapes].count(500) >= 8


def test_a_wait_that_nobody_has_any_more_gives_its_backends_to_the_next_one() -> None:
    shapes: tuple[BackendShape, ...] = (BackendShape(500, 8),) * 8
    held: dict[Key, str] = {}
    for wait in range(600, 620):
        made = assign(held, shapes, {ONE: Need(wait, 4)}, (), 8)
        held, shapes = made.backends, made.shapes
    assert [shape.queue_wait_ms for shape in shapes].count(500) == 6
    assert [shape.queue_wait_ms for shape in shapes].count(619) == 2


def test_a_full_pool_doubles() -> None:
    held = {ONE: "be_0001", TWO: "be_0002"}
    third = Key("three", "default")
    wanted = {key: Need(500, 4) for key in (ONE, TWO, third)}
    made = assign(held, SHAPES, wanted, (), 8)
    assert made.backends[third] == "be_0003"
    assert len(made.shapes) == 4
    assert made.why == ("no backend is free for three/default: 2 more are made",)


@pytest.mark.parametrize(("standing", "made"), [(255, 255), (256, 256), (257, 256)])
def test_a_large_pool_grows_by_no_more_than_256(standing: int, made: int) -> None:
    held = {Key(f"s{number}", "default"): f"be_{number + 1:04d}" for number in range(standing)}
    wanted = {key: Need(500, 4) for key in (*held, Key("new", "default"))}
    found = assign(held, (BackendShape(500, 8),) * standing, wanted, (), 8)
    assert len(found.shapes) == standing + made


def test_more_replicas_than_slots_double_that_backend_alone() -> None:
    made = assign({ONE: "be_0001"}, SHAPES, {ONE: Need(500, 8)}, (), 8)
    assert made.why == ()
    made = assign({ONE: "be_0001"}, SHAPES, {ONE: Need(500, 9)}, (), 8)
    assert made.shapes == (BackendShape(500, 16), BackendShape(500, 8))


def test_a_version_needs_room_for_its_most_and_for_those_that_leave() -> None:
    spec = service("one", scaling=Scaling(minimum=1, maximum=10), max_request_wait_ms=800)
    assert pool.needs([spec], {ONE: 3}) == {ONE: Need(800, 13)}
    assert pool.needs([spec], {ONE: 13}) == {ONE: Need(800, 13)}
    assert pool.needs([spec], {ONE: 14}) == {ONE: Need(800, 14)}
    small = service("one", scaling=Scaling(minimum=1, maximum=2), max_request_wait_ms=800)
    assert pool.needs([small], {}) == {ONE: Need(800, 4)}


def test_a_rollout_of_a_full_service_finds_its_slots_there() -> None:
    spec = service("one", scaling=Scaling(minimum=1, maximum=20), max_request_wait_ms=500)
    before = assign({}, (), pool.needs([spec], {ONE: 20}), (), 25)
    rolling = assign(before.backends, before.shapes, pool.needs([spec], {ONE: 25}), (), 25)
    assert rolling.why == ()
    more = assign(before.backends, before.shapes, pool.needs([spec], {ONE: 26}), (), 25)
    assert more.why == ("one/default needs room for 26 replicas",)


PATH = "/api/v1/service/one/score"
DIGEST = "AB" * 32
KEYED = AuthSpec(key_digests=(DIGEST.lower(), "cd" * 32))


def made_of(*specs: ServiceSpec) -> dict[str, dict[str, str]]:
    """The maps of services that have a backend a version, without the empty ones."""
    keys = [Key(spec.name, version.name) for spec in specs for version in spec.versions]
    backends = {key: f"be_{number:04d}" for number, key in enumerate(keys, 1)}
    return {name: entries for name, entries in maps(specs, backends, {}).items() if entries}


def test_maps_say_routes_keys_and_timeouts() -> None:
    spec = service("one", auth=KEYED, scoring_timeout_ms=700)
    made = maps([spec], {ONE: "be_0001"}, {ONE: 3})
    assert {name: entries for name, entries in made.items() if entries} == {
        names.ROUTES_MAP: {"one": "be_0001"},
        names.VERSIONS_MAP: {"one/default": "be_0001"},
        names.NAMES_MAP: {"be_0001": "one/default"},
        names.KEYS_MAP: {f"{DIGEST}:one": "primary", f"{'CD' * 32}:one": "secondary"},
        names.TIMEOUTS_MAP: {"be_0001": "700"},
        names.RETRY_MAP: {"be_0001": "3"},
    }


def test_only_a_plain_service_has_tickets_for_the_fast_lane() -> None:
    plain = service("one", auth=KEYED)
    tickets = {f"{PATH}:{DIGEST}": "be_0001", f"{PATH}:{'CD' * 32}": "be_0001"}
    assert made_of(plain)[names.TICKETS_MAP] == tickets
    two = replace(plain, versions=(*plain.versions, replace(plain.versions[0], name="b")))
    for other in (
        service("one", auth=KEYED, scoring_timeout_ms=59_999),
        service("one", auth=KEYED, request_log=True),
        two,
        service("one", auth=AuthSpec(key_enabled=False)),
    ):
        assert names.TICKETS_MAP not in made_of(other)


def test_a_plain_service_that_takes_tokens_has_its_path_for_the_fast_lane() -> None:
    auth = AuthSpec(key_enabled=False, token_enabled=True)
    assert made_of(service("one", auth=auth))[names.SCORES_MAP] == {PATH: "be_0001"}
    assert names.SCORES_MAP not in made_of(service("one", auth=auth, request_log=True))
    assert names.SCORES_MAP not in made_of(service("one", auth=KEYED))


def test_a_service_is_open_only_when_neither_keys_nor_tokens_are_asked_for() -> None:
    for auth, said in (
        (AuthSpec(key_enabled=False), {"one": "open"}),
        (AuthSpec(key_enabled=True), {}),
        (AuthSpec(key_enabled=False, token_enabled=True), {"one": "token"}),
        (AuthSpec(key_enabled=True, token_enabled=True), {"one": "token"}),
    ):
        made = maps([service("one", auth=auth)], {ONE: "be_0001"}, {})
        assert made[names.OPEN_MAP] == said


def shared(**percent: int) -> ServiceSpec:
    """A service with its default version and others that have these shares."""
    spec = service("one", auth=KEYED)
    default = spec.versions[0]
    others = [
        replace(default, name=name, traffic_percent=share, is_default=False)
        for name, share in percent.items()
    ]
    return replace(spec, versions=(default, *others))


def test_each_hundredth_of_a_services_requests_has_one_version() -> None:
    made = made_of(shared(b=30, c=5))
    assert made[names.ROUTES_MAP] == {"one": "split"}
    counted = Counter(made[names.SPLITS_MAP].values())
    assert counted == {"be_0001": 65, "be_0002": 30, "be_0003": 5}
    assert set(made[names.SPLITS_MAP]) == {f"one~{place}" for place in range(100)}


def test_versions_without_a_share_change_nothing_for_the_others() -> None:
    made = made_of(shared(b=0))
    assert made[names.ROUTES_MAP] == {"one": "be_0001"}
    assert names.SPLITS_MAP not in made
    assert made[names.VERSIONS_MAP] == {"one/default": "be_0001", "one/b": "be_0002"}


def test_a_version_may_have_all_requests_and_never_more() -> None:
    assert set(pool.shares(shared(b=100))) == {"b"}
    assert len(pool.shares(shared(b=80, c=80))) == 100
    assert pool.shares(shared(b=1)).count("default") == 99


def test_origins_are_named_or_all() -> None:
    page, anybody = "https://app.example.com", "*"
    spec = replace(service("one"), cors_origins=(page,))
    assert made_of(spec)[names.CORS_MAP] == {"one": "listed", f"one:{page}": "yes"}
    assert made_of(replace(spec, cors_origins=(anybody,)))[names.CORS_MAP] == {"one": "*"}


def test_a_service_is_routed_last_and_unrouted_first() -> None:
    nothing = maps([], {}, {})
    auth = AuthSpec(key_digests=("a" * 64,))
    there = maps([service("one", auth=auth)], {ONE: "be_0001"}, {ONE: 1})
    assert map_commands(nothing, there) == (
        "add map timeouts.map be_0001 60000",
        "add map retry.map be_0001 1",
        "add map names.map be_0001 one/default",
        f"add map keys.map {'A' * 64}:one primary",
        "add map versions.map one/default be_0001",
        "add map routes.map one be_0001",
        f"add map tickets.map {PATH}:{'A' * 64} be_0001",
    )
    assert map_commands(there, nothing) == (
        f"del map tickets.map {PATH}:{'A' * 64}",
        "del map routes.map one",
        "del map versions.map one/default",
        f"del map keys.map {'A' * 64}:one",
        "del map names.map be_0001",
        "del map retry.map be_0001",
        "del map timeouts.map be_0001",
    )
    assert map_commands(there, there) == ()


def test_a_changed_key_is_added_before_the_old_one_goes() -> None:
    before = maps([service("one", auth=AuthSpec(key_digests=("a" * 64,)))], {ONE: "be_0001"}, {})
    after = maps([service("one", auth=AuthSpec(key_digests=("b" * 64,)))], {ONE: "be_0001"}, {})
    assert map_commands(before, after) == (
        f"add map keys.map {'B' * 64}:one primary",
        f"add map tickets.map {PATH}:{'B' * 64} be_0001",
        f"del map tickets.map {PATH}:{'A' * 64}",
        f"del map keys.map {'A' * 64}:one",
    )


def test_the_assignment_is_found_again_in_haproxys_own_map() -> None:
    assert pool.recovered({"one/default": "be_0007"}) == {ONE: "be_0007"}
