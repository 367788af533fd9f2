"""The router's own size: when it grows, when it shrinks, and what keeps it as it is."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.types import Purpose
from router import selfscale
from router.selfscale import (
    CALM,
    CALM_SECONDS,
    CHANGES,
    LEAST_SECONDS,
    SETTLE_SECONDS,
    UP_MS,
    Code,
    Decision,
    Limits,
    Room,
    Second,
    Size,
    State,
    decide,
)

NOW = 1_000_000.0
LIMITS = Limits(Purpose.FAST_PROD, cores=4, exact=True, gated=False)
ROOM = Room(cores=8.0)
BUSY = 0.97  # of one core
ONE, NEW = Size(), State()


def run(
    seconds: int,
    *,
    routing: float | None = UP_MS + 2,
    cpu: float = BUSY,
    idle: float = 3.0,
    size: Size = ONE,
    limits: Limits = LIMITS,
    room: Room = ROOM,
    state: State = NEW,
    begin: float = NOW,
) -> Decision:
    """So many seconds alike; stops at the first change."""
    assert seconds > 0
    for index in range(seconds):
        now = begin + index
        decision = decide(Second(now, routing, idle, cpu), size, limits, room, state, now)
        state = decision.state
        if decision.code in CHANGES:
            break
    return decision


def test_a_router_that_is_slow_and_busy_gets_the_threads_that_its_cpu_asks_for() -> None:
    decision = run(15)
    assert (decision.code, decision.size) == (Code.MORE_THREADS, Size(threads=2))
    assert decision.reason == (
        "Routing took 5.0 ms (median of 15 s, limit 3 ms) and HAProxy used 0.97 of 1 core (3 % idle): "
        "2 threads of 4 cores given."
    )
    # at 1.95 of 2 cores, four are needed for 60 %
    assert run(15, cpu=1.95, size=Size(2)).size == Size(4)


def test_nothing_is_said_before_enough_was_measured() -> None:
    early = run(LEAST_SECONDS - 1)
    assert (early.valid, early.code) == (False, Code.NO_DATA)
    assert run(LEAST_SECONDS).code is Code.MORE_THREADS


@pytest.mark.parametrize(
    ("routing", "code"), [(UP_MS, Code.STEADY), (UP_MS + 0.1, Code.MORE_THREADS)]
)
def test_the_limit_itself_is_not_slow(routing: float, code: Code) -> None:
    assert run(12, routing=routing).code is code


def test_one_slow_second_is_not_a_slow_router() -> None:
    state = run(14, routing=0.2).state
    decision = run(1, routing=900.0, state=state, begin=NOW + 14)
    assert decision.code is Code.STEADY


def test_a_probe_without_an_answer_is_not_a_slow_router() -> None:
    decision = run(15, routing=None)
    assert decision.code is Code.STEADY
    assert "Routing took unknown" in decision.reason


def test_a_dev_test_cluster_never_scales_itself() -> None:
    decision = run(30, limits=replace(LIMITS, purpose=Purpose.DEV_TEST))
    assert (decision.code, decision.size) == (Code.DEV_TEST, Size())
    state = run(15, cpu=0.01, routing=0.2, size=Size(2)).state
    calm = run(
        900,
        cpu=0.01,
        routing=0.2,
        size=Size(2),
        limits=replace(LIMITS, purpose=Purpose.DEV_TEST),
        state=state,
    )
    assert calm.size == Size(2)


@pytest.mark.parametrize("purpose", [Purpose.FAST_PROD, Purpose.DENSE_PROD])
def test_production_clusters_do(purpose: Purpose) -> None:
    assert run(15, limits=replace(LIMITS, purpose=purpose)).code is Code.MORE_THREADS


def test_slowness_that_is_not_haproxys_own_work_gets_no_threads() -> None:
    starved = run(15, cpu=0.3, idle=5.0)
    assert starved.code is Code.NOT_ITS_WORK
    assert "others have" in starved.reason
    elsewhere = run(15, cpu=0.1, idle=90.0)
    assert elsewhere.code is Code.NOT_ITS_WORK
    assert "not HAProxy that takes the time" in elsewhere.reason


def test_several_threads_need_exact_counting_or_gates() -> None:
    inexact = replace(LIMITS, exact=False)
    refused = run(15, limits=inexact)
    assert (refused.code, refused.size) == (Code.INEXACT, Size())
    assert "below 3.2" in refused.reason
    assert run(15, limits=replace(inexact, gated=True)).code is Code.MORE_THREADS


@pytest.mark.parametrize(
    ("room", "threads"), [(0.5, 2), (1.0, 3), (8.0, 4), (0.49, 1), (0.0, 1), (-1.0, 1), (None, 1)]
)
def test_threads_come_only_where_cores_are_free(room: float | None, threads: int) -> None:
    decision = run(15, cpu=2.3, room=Room(room))
    assert decision.size.threads == threads
    if threads == 1:
        assert decision.code is Code.NO_ROOM


def test_with_all_cores_in_use_a_pod_is_next_where_there_may_be_one() -> None:
    full = Size(threads=4)
    alone = run(15, cpu=3.9, size=full)
    assert alone.code is Code.AT_MOST
    pods = replace(LIMITS, least_pods=3, most_pods=5)
    size = Size(threads=4, pods=3)
    assert run(15, cpu=3.9, size=size, limits=pods, room=Room(0, 1)).size == Size(4, 4)
    assert run(15, cpu=3.9, size=size, limits=pods, room=Room(0, 0)).code is Code.NO_ROOM
    assert run(15, cpu=3.9, size=size, limits=pods, room=Room(0, None)).code is Code.NO_ROOM
    most = Size(threads=4, pods=5)
    assert run(15, cpu=3.9, size=most, limits=pods, room=Room(8, 4)).code is Code.AT_MOST


def test_a_pod_comes_also_where_threads_would_miscount() -> None:
    limits = replace(LIMITS, exact=False, most_pods=3)
    decision = run(15, limits=limits, room=Room(8, 2))
    assert (decision.code, decision.size) == (Code.MORE_PODS, Size(1, 2))


def test_after_a_change_it_waits() -> None:
    changed = run(15)
    at = changed.state.changed_at
    assert at is not None
    soon = run(20, size=Size(2), cpu=1.9, state=changed.state, begin=at + 1)
    assert soon.code is Code.SETTLING
    later = run(15, size=Size(2), cpu=1.9, state=soon.state, begin=at + SETTLE_SECONDS)
    assert later.size == Size(4)


def test_a_change_that_was_not_made_is_tried_again_later() -> None:
    changed = run(15)
    again = run(100, state=changed.state, begin=NOW + 15)
    assert again.code is Code.MORE_THREADS
    assert again.state.changed_at is not None
    assert again.state.changed_at >= NOW + 15 + SETTLE_SECONDS


def test_down_goes_one_thread_at_a_time_and_then_pods() -> None:
    limits = replace(LIMITS, least_pods=1, most_pods=5)
    size, begin, steps = Size(threads=3, pods=2), NOW, []
    state = State()
    for _ in range(3):
        decision = run(
            2000,
            routing=0.2,
            cpu=0.05,
            idle=95.0,
            size=size,
            limits=limits,
            state=state,
            begin=begin,
        )
        steps.append((decision.code, decision.size))
        assert decision.state.changed_at is not None
        size, state, begin = decision.size, decision.state, decision.state.changed_at + 1
    assert steps == [
        (Code.FEWER_THREADS, Size(2, 2)),
        (Code.FEWER_THREADS, Size(1, 2)),
        (Code.FEWER_PODS, Size(1, 1)),
    ]


def test_down_only_after_a_long_calm() -> None:
    size = Size(2)
    quiet = {"routing": 0.2, "cpu": CALM - 0.01, "size": size}
    first = LEAST_SECONDS - 1  # the first second that says anything
    before = run(first + int(CALM_SECONDS), **quiet)
    assert (before.code, before.size) == (Code.STEADY, size)
    assert run(first + int(CALM_SECONDS) + 1, **quiet).size == Size(1)


def test_a_burst_begins_the_calm_anew() -> None:
    size = Size(2)
    state = run(500, routing=0.2, cpu=0.1, size=size).state
    burst = run(15, routing=0.2, cpu=1.5, size=size, state=state, begin=NOW + 500)
    assert burst.state.calm_since is None
    after = run(500, routing=0.2, cpu=0.1, size=size, state=burst.state, begin=NOW + 515)
    assert after.size == size


def test_what_was_not_measured_is_not_calm() -> None:
    size = Size(2)
    state = run(590, routing=0.2, cpu=0.1, size=size).state
    for index in range(60):
        state = decide(None, size, LIMITS, ROOM, state, NOW + 590 + index).state
    assert state.calm_since is None
    short = run(590, routing=0.2, cpu=0.1, size=size).state
    for index in range(5):
        short = decide(None, size, LIMITS, ROOM, short, NOW + 590 + index).state
    assert short.calm_since is not None


def test_calm_needs_a_routing_time_that_is_known() -> None:
    assert run(900, routing=None, cpu=0.01, size=Size(2)).size == Size(2)


def test_the_least_pods_stay() -> None:
    limits = replace(LIMITS, least_pods=3, most_pods=5)
    decision = run(900, routing=0.1, cpu=0.01, size=Size(1, 3), limits=limits)
    assert (decision.code, decision.size) == (Code.STEADY, Size(1, 3))


def test_cores_that_were_taken_away_are_given_back_at_once() -> None:
    limits = replace(LIMITS, cores=2)
    decision = decide(None, Size(4), limits, ROOM, State(), NOW)
    assert (decision.code, decision.size) == (Code.FEWER_THREADS, Size(2))


def test_a_loop_that_begins_anew_changes_nothing_before_it_has_seen_enough() -> None:
    for seconds in range(1, LEAST_SECONDS):
        assert run(seconds, size=Size(3), cpu=2.9).size == Size(3)


measured = st.builds(
    Second,
    at=st.just(0.0),
    routing_ms=st.none() | st.floats(0.05, 500),
    idle=st.floats(0, 100),
    cpu=st.floats(0, 8),
)


@settings(max_examples=60, deadline=None)
@given(
    seconds=st.lists(st.none() | measured, min_size=1, max_size=80),
    cores=st.integers(1, 8),
    most=st.integers(1, 5),
    free=st.none() | st.floats(-2, 16),
    purpose=st.sampled_from(Purpose),
    exact=st.booleans(),
)
def test_the_size_stays_inside_its_limits_whatever_is_measured(
    seconds: list[Second | None],
    cores: int,
    most: int,
    free: float | None,
    purpose: Purpose,
    exact: bool,
) -> None:
    limits = Limits(purpose, cores, exact=exact, gated=False, least_pods=1, most_pods=most)
    size, state, changed = Size(), State(), []
    for index, item in enumerate(seconds):
        now = NOW + index
        second = None if item is None else replace(item, at=now)
        decision = decide(second, size, limits, Room(free, most), state, now)
        assert 1 <= decision.size.threads <= cores
        assert 1 <= decision.size.pods <= most
        assert decision.size == size or decision.code in CHANGES
        if second is None and decision.code in CHANGES:
            # what was seen before may still be enough; a window without data never is
            assert len(state.window) >= LEAST_SECONDS
        if decision.size != size:
            changed.append(now)
        size, state = decision.size, decision.state
    if purpose is Purpose.DEV_TEST:
        assert changed == []
    if not exact:
        assert size.threads == 1
    assert all(b - a >= SETTLE_SECONDS for a, b in zip(changed, changed[1:], strict=False))


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_steady_work_finds_one_size_and_stays_there(noise: float) -> None:
    """The cores used do not depend on the threads; the routing time is short where these are idle."""
    size, state, changes = Size(), State(), 0
    for index in range(4000):
        now = NOW + index
        cpu = min(1.5 * (1 + noise * (-1) ** index), float(size.threads))
        share = cpu / size.threads
        routing = 8.0 if share > 0.9 else 0.3
        second = Second(now, routing, 100 * (1 - share), cpu)
        decision = decide(second, size, LIMITS, ROOM, state, now)
        changes += decision.size != size
        size, state = decision.size, decision.state
    assert changes == 1
    assert size == Size(2)


def test_every_code_changes_prevents_or_waits() -> None:
    assert set(Code) == CHANGES | selfscale.PREVENTED | {
        Code.STEADY,
        Code.SETTLING,
        Code.NO_DATA,
    }
