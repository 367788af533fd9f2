"""The scaling rules as a table: both sides of each boundary."""

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.types import Scaling
from router.autoscaler.policy import (
    DOWN_MARGIN,
    STALE_SECONDS,
    STEP_SECONDS,
    Code,
    Decision,
    Limits,
    State,
    decide,
    needed,
)
from router.autoscaler.state import Course
from router.autoscaler.window import SPAN_SECONDS, Load, Reading, Second, Standing, Window

NOW = 1_800_000_000.0
LIMITS = Limits(Scaling(minimum=1, maximum=50, target_utilization=70))


def limits(**kwargs: int) -> Limits:
    concurrency = kwargs.pop("concurrency", 1)
    return Limits(replace(LIMITS.scaling, **kwargs), concurrency)  # type: ignore[arg-type]


def minute(
    *newest: Second, busy: float = 0.0, seconds: int = SPAN_SECONDS, now: float = NOW
) -> Window:
    """A minute of steady load that ends now, its last second(s) replaced by the given ones."""
    first = int(now) - seconds
    steady = [Second(first + i, busy) for i in range(seconds - len(newest))]
    start = int(now) - len(newest)
    return Window((*steady, *(replace(item, at=start + i) for i, item in enumerate(newest))))


def load(window: Window, desired: int, *, ready: int | None = None, **kwargs: object) -> Load:
    starting = kwargs.pop("starting", 0)
    standing = Standing(
        ready=desired - starting if ready is None else ready,  # type: ignore[operator]
        starting_since=(NOW - 5,) * starting,  # type: ignore[operator]
        crashing=kwargs.pop("crashing", 0),  # type: ignore[arg-type]
    )
    return Load(desired=desired, standing=standing, window=window, **kwargs)  # type: ignore[arg-type]


def second(busy: float = 0.0, queued: float = 0.0, rejected: int = 0, completed: int = 0) -> Second:
    return Second(0, busy, queued, rejected, completed)


class TestUp:
    @pytest.mark.parametrize(
        ("newest", "desired", "expected", "code"),
        [
            (second(busy=7), 10, 10, Code.STEADY),  # exactly at the target
            (second(busy=7.01), 10, 11, Code.UP),  # just over it
            (second(busy=10, queued=3), 10, 19, Code.UP),
            (second(busy=10, queued=3, rejected=4), 10, 25, Code.UP),
            (second(rejected=1), 1, 2, Code.UP),  # nothing ready to be busy, still demand
        ],
    )
    def test_follows_busy_queued_and_rejected_at_once(
        self, newest: Second, desired: int, expected: int, code: Code
    ) -> None:
        decision = decide(load(minute(newest, busy=7), desired), LIMITS, State(), NOW)
        assert (decision.replicas, decision.code, decision.valid) == (expected, code, True)

    def test_says_its_figures(self) -> None:
        window = minute(second(busy=12, queued=3, rejected=2), busy=10)
        given = load(window, 14, ready=10, starting=4)
        decision = decide(given, LIMITS, State(), NOW)
        assert decision.replicas == 25
        assert decision.reason == (
            "12 busy + 3 queued + 2 rejected on 10 slots is 170 %, target 70 %: 25 wanted; "
            "4 already starting."
        )
        assert decision.news
        assert decision.inputs["demand"] == 17
        assert decision.inputs["needed"] == 25

    def test_rejected_requests_count_by_how_long_they_would_have_taken(self) -> None:
        # 60 s x 2 busy / 600 answers = 0.2 s each; 100 rejected a second are 20 at a time
        window = Window(
            tuple(Second(int(NOW) - 60 + i, 2, 0, 100 if i == 59 else 0, 10) for i in range(60))
        )
        decision = decide(load(window, 2), LIMITS, State(), NOW)
        assert decision.replicas == needed(22, LIMITS) == 32
        assert "100 rejected x 0.2 s" in decision.reason

    def test_a_service_time_of_fewer_than_ten_answers_is_not_believed(self) -> None:
        window = minute(second(busy=1, rejected=4, completed=9))
        assert decide(load(window, 1), LIMITS, State(), NOW).inputs["demand"] == 5
        window = minute(second(busy=1, rejected=4, completed=10))
        assert decide(load(window, 1), LIMITS, State(), NOW).inputs["demand"] == 1.4

    def test_a_learnt_service_time_outlives_the_window(self) -> None:
        given = load(minute(second(rejected=100)), 1)
        assert decide(given, LIMITS, State(service_seconds=0.05), NOW).inputs["demand"] == 5

    def test_concurrency_makes_more_slots_of_a_replica(self) -> None:
        given = load(minute(second(busy=28), busy=28), 10)
        assert decide(given, limits(concurrency=4), State(), NOW).replicas == 10
        given = load(minute(second(busy=28.1), busy=28), 10)
        assert decide(given, limits(concurrency=4), State(), NOW).replicas == 11

    def test_may_go_up_in_its_very_first_second(self) -> None:
        decision = decide(load(Window((Second(int(NOW) - 1, 5),)), 2), LIMITS, State(), NOW)
        assert (decision.code, decision.replicas) == (Code.UP, 8)

    def test_replicas_on_their_way_are_credited(self) -> None:
        window = minute(second(busy=2, queued=5), busy=2)
        decision = decide(load(window, 10, starting=8), LIMITS, State(start_seconds=20), NOW)
        assert (decision.code, decision.replicas) == (Code.STARTING, 10)
        assert "8 already starting, the first ready in about 15 s" in decision.reason
        assert not decision.news

    def test_stops_at_the_limit_and_says_so(self) -> None:
        window = minute(second(busy=10, queued=5), busy=7)
        up = decide(load(window, 10), limits(maximum=12), State(), NOW)
        assert (up.code, up.replicas) == (Code.UP, 12)
        assert "the limit is 12 replicas" in up.reason
        held = decide(load(window, 12), limits(maximum=12), up.state, NOW + 1)
        assert (held.code, held.replicas, held.news) == (Code.AT_MAXIMUM, 12, True)
        again = decide(load(window, 12), limits(maximum=12), held.state, NOW + 2)
        assert (again.code, again.news) == (Code.AT_MAXIMUM, False)

    @pytest.mark.parametrize(
        ("placeable", "expected", "code"),
        [(None, 22, Code.UP), (12, 22, Code.UP), (11, 21, Code.UP), (0, 10, Code.CLUSTER_FULL)],
    )
    def test_asks_for_no_more_than_the_cluster_can_place(
        self, placeable: int | None, expected: int, code: Code
    ) -> None:
        window = minute(second(busy=10, queued=5), busy=7)
        decision = decide(load(window, 10, placeable=placeable), LIMITS, State(), NOW)
        assert (decision.replicas, decision.code, decision.news) == (expected, code, True)

    def test_minimum_equal_to_maximum_never_moves(self) -> None:
        bounds = limits(minimum=3, maximum=3)
        for busy in (0.0, 2.0, 30.0):
            decision = decide(load(minute(busy=busy), 3), bounds, State(), NOW)
            assert (decision.replicas, decision.valid) == (3, True)


class TestNews:
    """What belongs in the ledger: changes, and what prevents one, once."""

    def test_the_same_hindrance_is_told_once_however_long_it_lasts(self) -> None:
        state, told = State(), 0
        for i in range(300):
            given = load(minute(busy=40, now=NOW + i), 12)
            decision = decide(given, limits(maximum=12), state, NOW + i)
            state, told = decision.state, told + decision.news
        assert told == 1

    def test_two_hindrances_that_alternate_are_told_once_each(self) -> None:
        state, told = State(), []
        for i in range(300):
            busy = 40 if i % 2 else 1
            given = load(minute(second(busy=busy), busy=40, now=NOW + i), 12)
            decision = decide(given, limits(maximum=12), state, NOW + i)
            state = decision.state
            if decision.news:
                told.append(decision.code)
        assert sorted(told) == [Code.AT_MAXIMUM, Code.HOLDING]

    @pytest.mark.parametrize(("pause", "news"), [(59, False), (60, True)])
    def test_it_is_news_again_after_a_minute_without_it(self, pause: int, news: bool) -> None:
        full = load(minute(busy=40), 12)
        state = decide(full, limits(maximum=12), State(), NOW).state
        later = load(minute(busy=40, now=NOW + pause), 12)
        assert decide(later, limits(maximum=12), state, NOW + pause).news is news


class TestCrashing:
    def test_crash_looping_replicas_are_replaced_not_waited_for(self) -> None:
        given = load(minute(busy=4), 6, ready=4, crashing=2)
        decision = decide(given, LIMITS, State(), NOW)
        assert (decision.code, decision.replicas) == (Code.UP, 8)
        assert "2 crashed or hang while starting" in decision.reason

    def test_a_surplus_replica_of_a_roll_out_that_crashes_takes_nothing_away(self) -> None:
        given = load(minute(busy=0.5), 1, ready=1, crashing=1)
        assert decide(given, LIMITS, State(), NOW).code is Code.STEADY

    def test_replicas_that_are_not_made_yet_are_credited(self) -> None:
        given = load(minute(second(busy=2, queued=5), busy=2), 10, ready=2)
        assert decide(given, LIMITS, State(), NOW).code is Code.STEADY

    def test_when_all_of_them_crash_nothing_is_added(self) -> None:
        given = load(minute(second(rejected=9)), 3, ready=0, crashing=3)
        decision = decide(given, LIMITS, State(), NOW)
        assert (decision.code, decision.replicas, decision.news) == (Code.CRASHING, 3, True)

    def test_what_is_rejected_before_the_first_replica_is_ready_is_not_demand(self) -> None:
        cold = replace(second(rejected=2), cold=True, unready=38)
        given = load(Window((replace(cold, at=int(NOW) - 1),)), 1, ready=0, starting=1)
        decision = decide(given, LIMITS, State(), NOW)
        assert (decision.code, decision.replicas) == (Code.STARTING, 1)
        assert "40 rejected, which says nothing about the load; 1 starting" in decision.reason

    def test_once_the_first_is_ready_the_rejections_before_it_still_do_not_count(self) -> None:
        cold = replace(second(rejected=40), cold=True, at=int(NOW) - 2, unready=40)
        warm = Second(int(NOW) - 1, busy=1, queued=1)
        decision = decide(load(Window((cold, warm)), 1), LIMITS, State(looked_at=NOW - 1), NOW)
        assert (decision.code, decision.replicas) == (Code.UP, 3)

    def test_a_service_whose_replicas_all_fell_is_not_idle(self) -> None:
        steady = minute(busy=8)
        fallen = tuple(replace(item, cold=True, busy=0.0) for item in steady.seconds)
        given = load(Window(fallen), 12, ready=0, crashing=12)
        decision = decide(given, LIMITS, State(), NOW)
        assert (decision.code, decision.replicas) == (Code.CRASHING, 12)

    def test_seconds_without_a_ready_replica_do_not_count_as_measured_for_going_down(self) -> None:
        steady = minute(busy=1)
        half = tuple(replace(item, cold=True) for item in steady.seconds[:30])
        given = load(Window((*half, *steady.seconds[30:])), 10)
        decision = decide(given, LIMITS, State(), NOW)
        assert (decision.code, decision.replicas) == (Code.HOLDING, 10)

    @pytest.mark.parametrize(("age", "expected"), [(60.0, 3), (60.1, 4)])
    def test_an_overdue_start_is_not_waited_for(self, age: float, expected: int) -> None:
        given = Load(3, Standing(ready=2, starting_since=(NOW - age,)), minute(busy=2))
        assert decide(given, LIMITS, State(start_seconds=20), NOW).replicas == expected

    def test_without_a_learnt_start_time_no_start_is_overdue(self) -> None:
        given = Load(3, Standing(ready=2, starting_since=(NOW - 900,)), minute(busy=2))
        assert decide(given, LIMITS, State(), NOW).code is Code.STARTING


class TestDown:
    def test_goes_down_by_half_when_a_whole_minute_needed_less(self) -> None:
        decision = decide(load(minute(busy=1), 10), LIMITS, State(), NOW)
        assert (decision.code, decision.replicas, decision.news) == (Code.DOWN, 5, True)
        assert "2 suffice for the last 60 s: 5 first, half at a time" in decision.reason

    def test_never_below_the_slots_that_the_busiest_second_took(self) -> None:
        window = minute(busy=1)
        busy_then = replace(window.seconds[0], busy=7.0)
        window = Window((busy_then, *window.seconds[1:]))
        decision = decide(load(window, 10), LIMITS, State(), NOW)
        assert decision.replicas == 7

    def test_never_below_what_was_wanted_in_the_minute(self) -> None:
        """The mean at the target counts for as long as a single second does."""
        count, state, counts = 10, State(), []
        for index, busy in enumerate([7.0] * 70 + [1.0] * 61):
            now = NOW + index + 1
            start = max(0, index - SPAN_SECONDS + 1)
            seconds = ([7.0] * 70 + [1.0] * 61)[start : index + 1]
            window = Window(tuple(Second(int(NOW) + start + i, b) for i, b in enumerate(seconds)))
            decision = decide(Load(count, Standing(ready=count), window), LIMITS, state, now)
            state, count = decision.state, decision.replicas
            counts.append((busy, count))
        assert {count for _, count in counts[:129]} == {10}
        assert counts[-1][1] == 5

    def test_holds_while_the_peak_is_inside_the_minute_and_says_how_long(self) -> None:
        window = minute(busy=1)
        peak = replace(window.seconds[20], busy=9.5)
        window = Window((*window.seconds[:20], peak, *window.seconds[21:]))
        decision = decide(load(window, 10), LIMITS, State(), NOW)
        assert (decision.code, decision.replicas, decision.valid) == (Code.HOLDING, 10, True)
        assert "40 s ago 10 were needed: holding 10 for 20 s" in decision.reason

    @pytest.mark.parametrize(("measured", "expected"), [(56, 10), (57, 5)])
    def test_needs_a_whole_minute_of_its_own(self, measured: int, expected: int) -> None:
        window = minute(busy=1, seconds=measured)
        assert decide(load(window, 10), LIMITS, State(), NOW).replicas == expected

    @pytest.mark.parametrize(("missing", "expected"), [(3, 5), (4, 10)])
    def test_unmeasured_seconds_are_not_idle_ones(self, missing: int, expected: int) -> None:
        window = minute(busy=1)
        window = Window(window.seconds[:20] + window.seconds[20 + missing :])
        decision = decide(load(window, 10), LIMITS, State(), NOW)
        assert decision.replicas == expected

    @pytest.mark.parametrize(("after", "expected"), [(STEP_SECONDS - 0.1, 10), (STEP_SECONDS, 5)])
    def test_waits_between_steps(self, after: float, expected: int) -> None:
        state = State(stepped_down_at=NOW - after)
        assert decide(load(minute(busy=1), 10), LIMITS, state, NOW).replicas == expected

    def test_reaches_the_minimum_and_stops(self) -> None:
        count, now, state, seen = 10, NOW, State(), []
        for _ in range(60):
            decision = decide(load(minute(now=now), count), LIMITS, state, now)
            state = decision.state
            if decision.replicas != count:
                seen.append(decision.replicas)
            count, now = decision.replicas, now + 1
        assert seen == [5, 3, 2, 1]

    def test_wavering_inside_the_margin_is_steady_not_holding(self) -> None:
        given = load(minute(second(busy=6.5), busy=7), 10)
        assert decide(given, LIMITS, State(), NOW).code is Code.STEADY

    @pytest.mark.parametrize(("after", "code"), [(SPAN_SECONDS - 1, Code.HOLDING), (60, Code.DOWN)])
    def test_what_was_wanted_once_is_kept_for_a_minute(self, after: int, code: Code) -> None:
        state = State(peaks=((NOW - after, 10.0), (NOW, 1.4)))
        assert decide(load(minute(busy=1), 10), LIMITS, state, NOW).code is code

    @pytest.mark.parametrize(
        ("ago", "most", "expected"),
        [
            (100, 9.5, 10),
            (100, 9.05, 10),  # more than half a replica less with the smaller margin
            (179, 9.0, 9),  # three minutes in which nine sufficed
        ],
    )
    def test_a_small_surplus_goes_when_three_minutes_never_wanted_it(
        self, ago: int, most: float, expected: int
    ) -> None:
        state = State(peaks=((NOW - ago, most), (NOW - 1, 9.1 if most > 9.1 else most)))
        decision = decide(load(minute(busy=6.3), 10), LIMITS, state, NOW)
        assert decision.replicas == expected
        assert (decision.code is Code.DOWN) == (expected == 9)


class TestShortage:
    """When the newest second, or a reading between two seconds, is believed by itself."""

    @pytest.mark.parametrize(
        ("newest", "expected"),
        [
            (second(busy=10), 10),  # all slots taken, nobody waits: the mean decides
            (second(busy=10, queued=2.5), 13),  # a moment's chance: their own slots
            (second(busy=10, queued=2.6), 18),
            (second(busy=10, rejected=1), 16),  # refused is short, however few
        ],
    )
    def test_a_quarter_more_than_the_slots_or_a_refusal_is_one(
        self, newest: Second, expected: int
    ) -> None:
        decision = decide(load(minute(newest, busy=6), 10), LIMITS, State(), NOW)
        assert max(decision.replicas, 10) == expected

    def test_one_that_lasts_is_judged_by_its_mean(self) -> None:
        row = [second(busy=4, rejected=n) for n in (6, 10, 2, 10, 10)]
        window = minute(*(replace(item, ready=4) for item in row), busy=2)
        decision = decide(load(window, 4), LIMITS, State(looked_at=NOW - 1), NOW)
        assert decision.replicas == needed(11.6, LIMITS) != needed(14, LIMITS)

    def test_what_waits_while_others_are_refused_counts_once(self) -> None:
        item = second(busy=4, queued=10, rejected=30)
        state = State(service_seconds=0.5)
        assert decide(load(minute(item), 4), LIMITS, state, NOW).inputs["demand"] == 19

    def test_a_queue_of_quick_requests_counts_as_what_works_it_off(self) -> None:
        item, state = second(busy=4, queued=10), State(service_seconds=0.025)
        assert decide(load(minute(item), 4), LIMITS, state, NOW).inputs["demand"] == 5

    @pytest.mark.parametrize(("queued", "expected"), [(2, 4), (3, 10)])
    def test_a_reading_adds_replicas_before_the_second_is_over(
        self, queued: int, expected: int
    ) -> None:
        given = load(minute(busy=1), 4, ready=4)
        state = State(looked_at=NOW, service_seconds=0.5)
        given = replace(given, reading=Reading(NOW + 0.25, 4, queued))
        decision = decide(given, LIMITS, state, NOW + 0.25)
        assert max(decision.replicas, expected) == expected
        assert (decision.code is Code.UP) == (queued == 3)

    def test_a_reading_never_takes_away(self) -> None:
        given = replace(load(minute(busy=7), 10), reading=Reading(NOW + 0.5, 0, 0))
        decision = decide(given, LIMITS, State(looked_at=NOW), NOW + 0.5)
        assert (decision.code, decision.replicas) == (Code.BETWEEN, 10)

    def test_a_longer_refresh_period_is_not_cut_short_by_a_reading(self) -> None:
        given = replace(load(minute(busy=7), 10), reading=Reading(NOW + 0.5, 10, 90))
        decision = decide(given, limits(refresh_seconds=5), State(looked_at=NOW), NOW + 0.5)
        assert (decision.code, decision.replicas) == (Code.BETWEEN, 10)


class TestAhead:
    """Replicas that are asked for before they are needed, and those kept for later."""

    @staticmethod
    def turns(low: int, high: int, times: int, start: float) -> list[tuple[int, int]]:
        """Counts at the end of each low and of each high time, of 2 and 14 at a time."""
        levels = ([2.0] * low + [14.0] * high) * times
        window, count, state, counts = Window(), 3, State(start_seconds=start), []
        for index, level in enumerate(levels):
            window = window.add(Second(int(NOW) + index, level, ready=count))
            given = Load(count, Standing(ready=count), window)
            decision = decide(given, LIMITS, state, NOW + index + 1)
            state, count = decision.state, decision.replicas
            counts.append(count)
        both = low + high
        return [(counts[i * both + low - 1], counts[(i + 1) * both - 1]) for i in range(times)]

    def test_what_comes_again_on_time_is_ready_before_it_comes(self) -> None:
        ends = self.turns(200, 100, 4, start=5)
        assert [low for low, _ in ends[:2]] == [3, 3]  # nobody can know
        assert [low for low, _ in ends[2:]] == [20, 20]

    def test_it_is_asked_for_no_sooner_than_a_start_takes(self) -> None:
        levels = ([2.0] * 200 + [14.0] * 100) * 3
        counts = run(levels, LIMITS, 3, State(start_seconds=5.0))
        assert set(counts[600 + 120 : 600 + 160]) == {3}
        assert counts[600 + 199] == 20

    def test_it_says_what_it_expects(self) -> None:
        course = Course(int(NOW) - 5, (2.0,) * 20 + (14.0,) * 10 + (2.0,) * 20 + (14.0,) * 10, 30)
        state = State(start_seconds=195.0, course=course)
        decision = decide(load(minute(busy=2), 3), LIMITS, state, NOW)
        assert (decision.code, decision.replicas) == (Code.UP, 20)
        assert decision.reason == "14 at a time are expected soon, as 5 min ago: 20 wanted."

    def test_what_starts_slowly_is_kept_through_a_lull(self) -> None:
        assert [low for low, _ in self.turns(200, 200, 2, start=60)] == [3, 20]

    def test_what_starts_quickly_is_not(self) -> None:
        assert [low for low, _ in self.turns(200, 200, 2, start=10)] == [3, 3]


class TestNoData:
    def test_nothing_measured_changes_nothing_and_says_so(self) -> None:
        decision = decide(load(Window(), 7), LIMITS, State(), NOW)
        assert (decision.valid, decision.replicas) == (False, 7)
        assert decision.code is Code.NO_DATA
        assert decision.reason == "Nothing measured yet."

    def test_a_fresh_enough_sample_still_counts(self) -> None:
        assert decide(load(minute(busy=7), 7), LIMITS, State(), NOW + STALE_SECONDS).replicas == 10

    def test_a_stale_sample_changes_nothing(self) -> None:
        now = NOW + STALE_SECONDS + 0.1
        decision = decide(load(minute(busy=7), 7), LIMITS, State(), now)
        assert (decision.valid, decision.replicas, decision.code) == (False, 7, Code.STALE)
        assert decision.news

    def test_another_scaler_is_shown_and_not_fought(self) -> None:
        given = load(minute(busy=40), 7, other_scaler="HorizontalPodAutoscaler web/cpu")
        decision = decide(given, LIMITS, State(), NOW)
        assert (decision.valid, decision.replicas, decision.code) == (False, 7, Code.CONFLICT)
        assert "HorizontalPodAutoscaler web/cpu" in decision.reason
        fixed = Limits(Scaling(autoscale=False, minimum=4, maximum=4))
        decision = decide(given, fixed, State(), NOW)
        assert (decision.replicas, decision.code) == (7, Code.CONFLICT)


class TestSettings:
    def test_a_fixed_count_is_that_count_with_or_without_data(self) -> None:
        fixed = Limits(Scaling(autoscale=False, minimum=4, maximum=4))
        for window in (Window(), minute(busy=40)):
            decision = decide(load(window, 3), fixed, State(), NOW)
            assert (decision.valid, decision.replicas, decision.code) == (True, 4, Code.FIXED)

    @pytest.mark.parametrize(
        ("desired", "expected", "code"),
        [
            (2, 3, Code.LIMITS),
            (3, 3, Code.STEADY),
            (8, 8, Code.STEADY),
            (9, 8, Code.LIMITS),
        ],
    )
    def test_new_limits_hold_at_once(self, desired: int, expected: int, code: Code) -> None:
        window = minute(busy=desired * 0.7)
        decision = decide(load(window, desired), limits(minimum=3, maximum=8), State(), NOW)
        assert (decision.replicas, decision.code, decision.valid) == (expected, code, True)

    @pytest.mark.parametrize(("passed", "code"), [(9.4, Code.BETWEEN), (9.5, Code.UP)])
    def test_a_longer_refresh_period_looks_less_often(self, passed: float, code: Code) -> None:
        state = State(looked_at=NOW - passed)
        decision = decide(load(minute(busy=9), 5), limits(refresh_seconds=10), state, NOW)
        assert decision.code is code
        assert decision.state.looked_at == (state.looked_at if code is Code.BETWEEN else NOW)

    def test_a_longer_refresh_period_misses_no_second_in_between(self) -> None:
        window = minute(second(busy=9), second(busy=1), second(busy=1), busy=1)
        state = State(looked_at=NOW - 5)
        decision = decide(load(window, 2), limits(refresh_seconds=5), state, NOW)
        assert decision.replicas == needed(9, LIMITS)

    def test_a_clock_that_was_set_back_does_not_stop_it(self) -> None:
        state = State(looked_at=NOW + 3600, stepped_down_at=NOW + 3600)
        given = load(minute(busy=1), 10)
        assert decide(given, limits(refresh_seconds=10), state, NOW).replicas == 5


class TestLearning:
    def test_start_times_are_learnt_once_each(self) -> None:
        standing = Standing(ready=2, starts=((NOW - 9, 20.0), (NOW - 5, 30.0)))
        first = decide(Load(2, standing, minute()), LIMITS, State(), NOW).state
        assert first.start_seconds == pytest.approx(23.0)
        again = decide(Load(2, standing, minute()), LIMITS, first, NOW + 1).state
        assert again.start_seconds == first.start_seconds
        more = replace(standing, starts=(*standing.starts, (NOW, 10.0)))
        assert decide(Load(2, more, minute()), LIMITS, again, NOW + 2).state.start_seconds < 23


# Demand as a share of what 50 replicas could carry, from idle to far over it.
demands = st.floats(0, 60, allow_nan=False)
seconds = st.builds(
    Second,
    at=st.just(0),
    busy=demands,
    queued=demands,
    rejected=st.integers(0, 200),
    completed=st.integers(0, 50),
)
bounds = st.tuples(st.integers(1, 20), st.integers(0, 30)).map(lambda p: (p[0], p[0] + p[1]))


# Cases of a whole minute take long to make where a machine does other things too.
busy_machine = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Load, Limits, State]:
    low, high = draw(bounds)
    count = draw(st.integers(0, 60))
    items = draw(st.lists(seconds, min_size=1, max_size=10))
    filler = draw(demands)
    standing = Standing(
        ready=draw(st.integers(0, count)),
        starting_since=tuple(NOW - age for age in draw(st.lists(st.floats(0, 300), max_size=5))),
        crashing=draw(st.integers(0, count)),
    )
    given = Load(
        desired=count,
        standing=standing,
        window=minute(*items, busy=filler, seconds=draw(st.integers(10, 60))),
        placeable=draw(st.none() | st.integers(0, 20)),
    )
    within = limits(
        minimum=low,
        maximum=high,
        concurrency=draw(st.integers(1, 8)),
        target_utilization=draw(st.integers(1, 100)),
    )
    means: tuple[float, ...] = draw(
        st.sampled_from(((30.0, 2.0) * 6, (1.0,) * 14, (0.0, 7.0, 50.0) * 8))
    )
    state = State(
        course=Course(int(NOW) - draw(st.integers(0, 9)), means, draw(st.sampled_from((0, 6)))),
        peaks=draw(st.just(()) | st.just(((NOW - 50, 30.0), (NOW - 2, 4.0)))),
        levels=draw(st.just(()) | st.just(((NOW - 200, 25.0),))),
        stepped_down_at=draw(st.none() | st.just(NOW - 3)),
        service_seconds=draw(st.none() | st.floats(0.001, 60)),
        start_seconds=draw(st.none() | st.floats(0.1, 300)),
    )
    return given, within, state


@busy_machine
@given(cases())
def test_a_valid_count_is_always_inside_the_limits(case: tuple[Load, Limits, State]) -> None:
    given, within, state = case
    decision = decide(given, within, state, NOW)
    assert decision.valid
    assert within.scaling.minimum <= decision.replicas <= within.scaling.maximum
    assert decision.reason.endswith(".")


@busy_machine
@given(cases(), st.floats(STALE_SECONDS + 0.01, 1e6))
def test_without_fresh_data_nothing_ever_changes(
    case: tuple[Load, Limits, State], age: float
) -> None:
    given, within, state = case
    decision = decide(given, within, state, NOW + age)
    assert (decision.valid, decision.replicas) == (False, given.desired)
    decision = decide(replace(given, window=Window()), within, state, NOW)
    assert (decision.valid, decision.replicas) == (False, given.desired)


@busy_machine
@given(cases(), demands, demands, st.integers(0, 100))
def test_more_demand_never_gives_fewer_replicas(
    case: tuple[Load, Limits, State], busy: float, queued: float, rejected: int
) -> None:
    given, within, state = case
    last = given.window.seconds[-1]
    more = replace(
        last, busy=last.busy + busy, queued=last.queued + queued, rejected=last.rejected + rejected
    )
    heavier = replace(given, window=Window((*given.window.seconds[:-1], more)))
    less = decide(given, within, state, NOW)
    assert decide(heavier, within, state, NOW).replicas >= less.replicas


@settings(max_examples=30, deadline=None)
@given(
    level=st.floats(0.2, 200),
    concurrency=st.integers(1, 4),
    start=st.integers(1, 400),
    noise=st.lists(st.floats(-0.05, 0.05), min_size=1, max_size=97),
)
def test_steady_demand_converges_and_stays_within_five_percent_noise(
    level: float, concurrency: int, start: int, noise: list[float]
) -> None:
    bounds = limits(minimum=1, maximum=400, concurrency=concurrency)
    counts = run([level * (1 + noise[i % len(noise)]) for i in range(400)], bounds, start)
    settled = set(counts[260:])
    assert len(settled) == 1
    highest = needed(level * 1.05 * DOWN_MARGIN, bounds)
    assert needed(level * 0.95, bounds) <= settled.pop() <= max(highest, 1)


def run(
    levels: list[float],
    bounds: Limits,
    start: int = 1,
    state: State = State(),  # noqa: B008
) -> list[int]:
    """Counts over time when each second's demand is as given and replicas start at once."""
    window, count, counts = Window(), start, []
    for index, level in enumerate(levels):
        window = window.add(Second(int(NOW) + index, level))
        given = Load(count, Standing(ready=count), window)
        decision: Decision = decide(given, bounds, state, NOW + index + 1)
        state, count = decision.state, decision.replicas
        counts.append(count)
    return counts


def test_a_burst_from_idle_is_met_in_its_first_second() -> None:
    counts = run([0.0] * 70 + [14.0] * 70, LIMITS)
    assert counts[69] == 1
    assert counts[70] == 20
    assert set(counts[70:]) == {20}


def test_a_ramp_never_goes_down_on_its_way_up() -> None:
    counts = run([i / 10 for i in range(300)], LIMITS)
    assert counts == sorted(counts)


def test_after_a_step_down_it_holds_a_minute_and_then_halves() -> None:
    counts = run([14.0] * 80 + [1.0] * 120, LIMITS, start=20)
    assert set(counts[:139]) == {20}
    assert list(dict.fromkeys(counts[139:])) == [10, 5, 3, 2]


def test_an_oscillating_load_faster_than_a_minute_keeps_what_its_peak_needs() -> None:
    levels = [10.0 if (i // 20) % 2 else 1.0 for i in range(400)]
    assert len(set(run(levels, LIMITS)[60:])) == 1


def test_wandering_noise_is_followed_without_flapping() -> None:
    rng = random.Random(4)
    counts = run([50 * rng.uniform(0.95, 1.05) for _ in range(1200)], limits(maximum=200))
    changes = sum(1 for a, b in zip(counts[300:], counts[301:], strict=False) if a != b)
    assert changes == 0


def test_the_first_sample_of_a_loop_that_restarted_under_load_keeps_the_count() -> None:
    counts = run([3.0] * 50, LIMITS, start=12)
    assert set(counts) == {12}
