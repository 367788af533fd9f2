"""The others' published behaviour: worked examples of their documentation and of their tests."""

import pytest

from deployments.types import Scaling
from router.autoscaler.policy import Limits
from router.autoscaler.rivals import SCALERS, hpa, kpa, oracle, ray
from router.autoscaler.rivals.fixed import count
from router.autoscaler.rivals.hpa import recommended
from router.autoscaler.rivals.kpa import State
from router.autoscaler.rivals.kpa import desired as kpa_desired
from router.autoscaler.rivals.oracle import ahead, peaks
from router.autoscaler.rivals.ray import Delay
from router.autoscaler.rivals.ray import desired as ray_desired
from router.autoscaler.simulate import Scaler, Setup, simulate
from router.autoscaler.window import Load, Second, Standing, Window

LIMITS = Limits(Scaling(minimum=1, maximum=1000, target_utilization=70))


def follow(scaler: Scaler, levels: list[float], start: int = 1) -> list[int]:
    """Counts after each second when replicas are ready at once."""
    window, desired, counts = Window(), start, []
    for at, level in enumerate(levels):
        window = window.add(Second(at, level))
        verdict = scaler(Load(desired, Standing(ready=desired), window), at + 1.0, True)
        desired = desired if verdict is None else verdict.replicas
        counts.append(desired)
    return counts


class TestKpa:
    def test_documented_example_of_a_target(self) -> None:
        """Container concurrency 10 at 70 %: 100 requests at a time are 15 pods."""
        assert kpa_desired(100, 100, 15, 7, State(), 0) == 15

    @pytest.mark.parametrize(("panic", "panics"), [(10.5, False), (10.6, True)])
    def test_panics_where_twice_the_ready_ones_are_wanted(self, panic: float, panics: bool) -> None:
        """A target of 3.5 a pod (of 5): two ready, and four wanted is 200 %."""
        state = State()
        pods = kpa_desired(1, panic, 2, 3.5, state, 0)
        assert (state.panic_at is not None) is panics
        assert pods == (4 if panics else 1)

    def test_never_goes_down_in_panic_and_leaves_it_after_a_stable_window(self) -> None:
        state = State()
        assert kpa_desired(10, 50, 1, 1, state, 0) == 50
        assert kpa_desired(10, 10, 50, 1, state, 60) == 50
        assert kpa_desired(30, 10, 50, 1, state, 60.1) == 30

    def test_goes_down_at_most_to_half(self) -> None:
        assert kpa_desired(1, 1, 100, 1, State(), 0) == 50

    def test_a_spike_is_followed_in_seconds_and_kept_for_a_minute(self) -> None:
        counts = follow(kpa(LIMITS), [0.7] * 60 + [14.0] * 6 + [0.7] * 80)
        assert max(counts) == counts[66] >= 17
        assert counts[66 + 50] == max(counts)
        assert counts[-1] < max(counts)

    def test_begins_in_panic_where_there_is_more_than_one_pod(self) -> None:
        assert set(follow(kpa(LIMITS), [0.0] * 60, start=8)) == {8}


class TestHpa:
    @pytest.mark.parametrize(
        ("total", "expected"),
        [
            (800, 8),  # "if the current metric value is 200m, and the desired value is 100m"
            (200, 2),  # "if the current value is instead 50m, you'll halve"
            (439, 4),  # within the tolerance of 0.1
            (441, 5),
            (360, 4),
            (359, 4),  # 3.59 is rounded up
            (299, 3),
        ],
    )
    def test_documented_ratios(self, total: float, expected: int) -> None:
        assert recommended(total, 4, 4, 100) == expected

    def test_ninety_at_seventy_five_percent_on_fifty_are_sixty(self) -> None:
        """The example of https://kubernetes.io/blog/2025/04/28/kubernetes-v1-33-hpa-configurable-tolerance"""
        assert recommended(50 * 90, 50, 50, 75) == 60

    def test_pods_without_figures_dampen_both_ways(self) -> None:
        assert recommended(8, 6, 2, 1) == 8  # 8 of 6 pods, not 4 times 6
        assert recommended(4, 6, 2, 1) == 6  # would be down, so nothing
        assert recommended(1, 6, 2, 1) == 5  # (1 + 4) of 6

    def test_looks_every_fifteen_seconds_and_at_most_doubles(self) -> None:
        counts = follow(hpa(LIMITS), [70.0] * 60, start=10)
        assert [counts[i] for i in (13, 14, 28, 29, 44, 59)] == [10, 20, 20, 40, 80, 100]

    def test_goes_down_to_the_highest_recommendation_of_five_minutes(self) -> None:
        counts = follow(hpa(LIMITS), [70.0] * 60 + [7.0] * 330, start=100)
        assert set(counts[: 60 + 299 - 15]) == {100}
        assert counts[-1] == 10


class TestRay:
    def test_documented_example(self) -> None:
        """Two replicas of 100 ms at 30 a second, target 1: at 3 replicas it serves them."""
        assert ray_desired(3, 2, 1) == 3
        assert ray_desired(3, 3, 1) == 3

    def test_goes_up_only_when_that_was_wanted_for_half_a_minute(self) -> None:
        counts = follow(ray(LIMITS), [7.0] * 60)
        assert (counts[29], counts[30]) == (1, 10)

    def test_goes_down_only_after_ten_minutes(self) -> None:
        counts = follow(ray(LIMITS), [7.0] * 60 + [0.7] * 640)
        assert set(counts[31:660]) == {10}
        assert counts[-1] < 10

    def test_a_wish_that_breaks_off_begins_anew(self) -> None:
        delay = Delay()
        for _ in range(30):
            assert delay.granted(5, 1) == 1
        assert delay.granted(1, 1) == 1
        assert delay.granted(5, 1) == 1


class TestFixedAndOracle:
    def test_a_fixed_count_is_the_busiest_minute_at_the_target(self) -> None:
        arrivals = [float(i) for i in range(120)]
        services = [1.0] * 60 + [7.0] * 60
        assert count(arrivals, services, Setup(LIMITS)) == 10

    def test_peaks_are_requests_at_a_time_had_none_waited(self) -> None:
        assert peaks([0.1, 0.2, 0.5, 3.5], [0.2, 2.0, 0.1, 0.1]) == [2, 1, 1, 1]

    def test_what_comes_within_a_start_counts_now(self) -> None:
        assert ahead([1, 5, 1, 1, 2, 1], 1) == [5, 5, 1, 2, 2, 1]

    def test_the_oracle_refuses_nothing_that_it_had_time_for(self) -> None:
        arrivals = [30.0 + 0.001 * i for i in range(200)]
        services = [0.5] * 200
        setup = Setup(LIMITS, start_seconds=20.0)
        result = simulate(arrivals, services, setup, oracle(arrivals, services, setup))
        assert (result.rejected, result.wait_p99) == (0, 0.0)


@pytest.mark.parametrize("name", SCALERS)
def test_each_stays_inside_the_limits(name: str) -> None:
    bounds = Limits(Scaling(minimum=2, maximum=6))
    arrivals = [i / 40 for i in range(40 * 120)]
    services = [0.5] * len(arrivals)
    setup = Setup(bounds, start_seconds=2.0, seconds=240.0)
    result = simulate(arrivals, services, setup, SCALERS[name](arrivals, services, setup))
    assert result.points
    assert all(2 <= action.after <= 6 for action in result.actions)
