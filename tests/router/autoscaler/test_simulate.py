"""The simulated router against cases that can be worked out by hand."""

import random
import time
from collections.abc import Sequence

import pytest

from deployments.types import Scaling
from router.autoscaler.policy import Limits
from router.autoscaler.simulate import Result, Setup, Verdict, simulate, slipway
from router.autoscaler.window import Load


def limits(concurrency: int = 1, maximum: int = 100) -> Limits:
    return Limits(Scaling(minimum=1, maximum=maximum), concurrency)


class Script:
    """A scaler that sets counts at given moments, and keeps what it was shown."""

    def __init__(self, *steps: tuple[float, int]) -> None:
        self.steps, self.seen = dict(steps), list[tuple[float, Load]]()

    def __call__(self, load: Load, now: float, fresh: bool) -> Verdict | None:
        self.seen.append((now, load))
        return Verdict(self.steps[now], "script") if now in self.steps else None


def run(
    arrivals: Sequence[float],
    services: Sequence[float],
    *steps: tuple[float, int],
    concurrency: int = 1,
    **kwargs: float,
) -> Result:
    setup = Setup(limits(concurrency), **{"seconds": 20.0, **kwargs})  # type: ignore[arg-type]
    return simulate(arrivals, services, setup, Script(*steps))


def test_one_replica_serves_one_at_a_time_in_order_of_arrival() -> None:
    result = run([0.1, 0.2, 0.3], [0.2, 0.2, 0.2])
    assert (result.answered, result.rejected) == (3, 0)
    assert result.wait_p99 == pytest.approx(0.2)  # the third began at 0.5
    assert result.wait_p50 == pytest.approx(0.1)


@pytest.mark.parametrize(("service", "rejected"), [(0.5, 0), (0.51, 1)])
def test_a_wait_beyond_the_time_out_is_refused(service: float, rejected: int) -> None:
    assert run([1.0, 1.0], [service, 0.1]).rejected == rejected


@pytest.mark.parametrize(("requests", "waited"), [(4, False), (5, True)])
def test_concurrency_is_exact(requests: int, waited: bool) -> None:
    result = run([1.0] * requests, [0.3] * requests, initial=2, concurrency=2)
    assert (result.wait_p99 > 0) is waited


def test_the_replica_with_the_fewest_requests_is_next() -> None:
    """Two replicas of two places: one that was spread evenly is idle after one request each, so
    going down by one ends a replica at once only when requests were not spread."""
    result = run([1.0, 1.0], [8.0, 1.0], (3.0, 1), initial=2, concurrency=2, stop_seconds=0.0)
    # the idle one lives 3 s, the busy one to the end
    assert result.replica_hours * 3600 == pytest.approx(20 + 3)
    assert result.answered == 2


def test_a_start_takes_its_time_and_costs_from_the_call_on() -> None:
    result = run([6.9, 6.9, 7.1, 7.1], [0.6, 0.6, 0.1, 0.1], (2.0, 2), start_seconds=5.0)
    assert [point.ready for point in result.points[5:8]] == [1, 2, 2]
    assert result.points[5].starting == 1
    assert result.replica_hours * 3600 == pytest.approx(20 + 18)


def test_a_busy_replica_is_drained_and_no_request_is_lost() -> None:
    result = run([1.0, 1.0], [6.0, 6.0], (2.0, 1), initial=2, stop_seconds=1.0)
    assert (result.answered, result.rejected) == (2, 0)
    assert result.replica_hours * 3600 == pytest.approx(20 + 8)  # to 7.0, and one second to stop


def test_a_replica_that_drains_takes_no_new_request() -> None:
    result = run([1.0, 1.0, 2.5, 2.5], [3.0, 3.0, 0.1, 0.1], (2.0, 1), initial=2)
    assert result.rejected == 2


def test_those_that_still_start_go_first() -> None:
    result = run([], [], (1.0, 3), (2.0, 1), start_seconds=10.0)
    assert {point.ready for point in result.points} == {1}
    assert result.replica_hours * 3600 == pytest.approx(20 + 2)


def test_without_a_ready_replica_all_are_refused_at_once_and_that_is_no_load() -> None:
    script = Script((0.25, 1))
    setup = Setup(limits(), start_seconds=5.0, initial=0, seconds=10.0)
    result = simulate([1.1, 1.2, 8.0], [0.1, 0.1, 0.1], setup, script)
    assert (result.rejected, result.answered) == (2, 1)
    second = next(load.window.seconds[-1] for now, load in script.seen if now == 2.0)
    assert (second.cold, second.rejected, second.unready) == (True, 0, 2)


def test_an_answer_that_takes_too_long_is_a_timeout_and_frees_its_place() -> None:
    result = run([1.0, 3.9], [100.0, 0.1], scoring_seconds=3.0)
    assert (result.timeouts, result.answered) == (1, 1)


def test_the_scaler_sees_seconds_and_readings_as_the_router_makes_them() -> None:
    script = Script()
    simulate([2.0, 2.0, 2.6], [1.0, 0.1, 0.1], Setup(limits(), seconds=5.0), script)
    load = dict(script.seen)[3.0]
    second = load.window.seconds[-1]
    assert (second.at, second.arrivals, second.ready, second.rejected) == (2, 3, 1, 1)
    # of the readings at 2, 2.25, 2.5 and 2.75 the first was taken before anything came
    assert second.busy == 0.75
    reading = dict(script.seen)[2.25].reading
    assert reading is not None
    assert (reading.busy, reading.queued) == (1, 1)


def test_a_full_cluster_says_how_many_more_fit() -> None:
    script = Script()
    simulate([], [], Setup(limits(), room=3, seconds=1.0), script)
    assert {load.placeable for _, load in script.seen} == {2}


def test_the_same_requests_give_the_same_result_and_all_are_accounted_for() -> None:
    rng = random.Random(7)
    arrivals = sorted(rng.uniform(0, 300) for _ in range(6000))
    services = [rng.expovariate(2.0) for _ in arrivals]
    setup = Setup(limits(), start_seconds=5.0)
    first, again = (simulate(arrivals, services, setup, slipway(setup.limits)) for _ in "ab")
    assert first == again
    assert first.answered + first.rejected + first.timeouts == first.requests == 6000
    assert sum(point.arrivals for point in first.points) == 6000
    assert len(first.actions) > 1


def test_progress_is_told_each_minute() -> None:
    told: list[float] = []
    simulate([], [], Setup(limits(), seconds=180.0), Script(), progress=told.append)
    assert told == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_requests_without_a_service_time_are_refused() -> None:
    with pytest.raises(ValueError, match="2 arrivals and 1 service times"):
        run([1.0, 2.0], [0.1])


def test_a_hundred_thousand_requests_take_a_tenth_of_what_a_million_may() -> None:
    rng = random.Random(1)
    arrivals, at = [], 0.0
    for _ in range(100_000):
        at += rng.expovariate(100)
        arrivals.append(at)
    services = [rng.expovariate(2.0) for _ in arrivals]
    setup = Setup(limits(maximum=1000), start_seconds=2.0)
    began = time.process_time()
    simulate(arrivals, services, setup, slipway(setup.limits))
    assert time.process_time() - began < 3.0


def test_clients_that_wait_for_their_answer_ask_a_slow_service_less() -> None:
    setup = Setup(Limits(Scaling(autoscale=False, minimum=2, maximum=2)), seconds=10.0)
    found = simulate([0.0] * 2, [0.25] * 2, setup, slipway(setup.limits), again=lambda at, _: at)
    assert found.requests == 2 * 10 / 0.25
    assert (found.rejected, found.wait_p99) == (0, 0.0)
    slow = simulate([0.0] * 2, [0.5] * 2, setup, slipway(setup.limits), again=lambda at, _: at)
    assert slow.requests == 2 * 10 / 0.5


def test_a_refused_client_backs_off_and_one_that_is_told_nothing_is_gone() -> None:
    limits = Limits(Scaling(autoscale=False, minimum=1, maximum=1))
    setup = Setup(limits, queue_seconds=0.5, seconds=10.0)
    told: list[tuple[float, bool]] = []

    def again(at: float, refused: bool) -> float | None:
        told.append((round(at, 3), refused))
        return at + 1.0 if refused else None

    found = simulate([0.0, 0.0], [2.0, 2.0], setup, slipway(limits), again=again)
    # one is inside from 0 to 2; the other is refused at 0.5, and waits from 1.5 to 2
    assert told == [(0.5, True), (2.0, False), (4.0, False)]
    assert (found.requests, found.rejected, found.answered) == (3, 1, 2)


def test_clients_that_ask_for_ever_need_an_end() -> None:
    setup = Setup(Limits())
    with pytest.raises(ValueError, match="end"):
        simulate([0.0], [1.0], setup, slipway(setup.limits), again=lambda at, refused: at)
