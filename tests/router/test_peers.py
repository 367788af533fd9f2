from collections import Counter
from dataclasses import replace

import pytest

from router import peers
from router.haproxy.pool import Key
from router.peers import Leadership, Lease, Step, Told
from router.samples import BUCKETS, Sample
from router.size_wire import RouterSample

KEYS = [Key(f"service-{number}", "default") for number in range(300)]
A = Key("a", "default")


def test_each_pod_has_about_its_share() -> None:
    counts = Counter(peers.owner(key, ["x", "y", "z"]) for key in KEYS)
    assert set(counts) == {"x", "y", "z"}
    assert min(counts.values()) > 70


def test_all_pods_agree_whatever_order_they_see_the_others_in() -> None:
    for key in KEYS:
        assert peers.owner(key, ["x", "y", "z"]) == peers.owner(key, ["z", "y", "x"])


def test_a_pod_that_goes_moves_only_what_was_its_own() -> None:
    for key in KEYS:
        before, after = peers.owner(key, ["x", "y", "z"]), peers.owner(key, ["x", "y"])
        assert before in ("z", after)


def test_what_is_this_pods_own_is_not_handed_on() -> None:
    backends = {key: f"be_{number:04d}" for number, key in enumerate(KEYS)}
    handed = {
        me: set(peers.handed_on(backends, {n: f"p-{n}" for n in "xyz" if n != me}, me, KEYS))
        for me in "xyz"
    }
    own = {me: set(backends.values()) - handed[me] for me in "xyz"}
    assert own["x"] | own["y"] | own["z"] == set(backends.values())
    assert not own["x"] & own["y"] and not own["y"] & own["z"] and not own["x"] & own["z"]


def test_a_pod_alone_and_a_version_that_is_new_hand_nothing_on() -> None:
    assert peers.handed_on({A: "be_0001"}, {}, "x", [A]) == {}
    assert peers.handed_on({A: "be_0001"}, {"y": "p1"}, "x", []) == {}


def test_a_pod_that_leaves_hands_everything_on_while_there_is_another() -> None:
    backends = {key: f"be_{number:04d}" for number, key in enumerate(KEYS)}
    assert set(peers.handed_on(backends, {"y": "p1"}, None, KEYS)) == set(backends.values())
    assert peers.handed_on(backends, {}, None, KEYS) == {}


# ---- the Lease ------------------------------------------------------------------------------------


def test_a_lease_of_nobody_is_taken_at_once() -> None:
    _, step = peers.seen(Leadership(), Lease("", "1"), "x", 10.0)
    assert step is Step.TAKE


@pytest.mark.parametrize(("later", "step"), [(5.9, Step.WAIT), (6.0, Step.TAKE)])
def test_another_ones_lease_is_taken_when_it_has_not_changed_for_six_seconds(
    later: float, step: Step
) -> None:
    state, first = peers.seen(Leadership(), Lease("y", "1"), "x", 10.0)
    assert first is Step.WAIT
    assert peers.seen(state, Lease("y", "1"), "x", 10.0 + later)[1] is step


def test_a_lease_that_is_renewed_stays_the_others() -> None:
    state, _ = peers.seen(Leadership(), Lease("y", "1"), "x", 10.0)
    state, _ = peers.seen(state, Lease("y", "2"), "x", 15.0)
    assert peers.seen(state, Lease("y", "2"), "x", 17.0)[1] is Step.WAIT


def test_who_leads_stops_before_another_may_begin() -> None:
    state = peers.renewed(Leadership(), Lease("x", "2"), begun=10.0, now=10.5)
    assert state.leads(14.9)
    assert not state.leads(15.0)
    assert peers.KEEP_SECONDS < peers.TAKE_SECONDS


def test_who_sees_anothers_name_leads_no_more() -> None:
    state = peers.renewed(Leadership(), Lease("x", "2"), begun=10.0, now=10.0)
    state, step = peers.seen(state, Lease("y", "3"), "x", 11.0)
    assert step is Step.WAIT
    assert not state.leads(11.0)


# ---- sums -----------------------------------------------------------------------------------------


def sample(name: str = "a", **changes: int) -> Sample:
    return replace(Sample(100, name, "default"), **changes)


def test_what_all_counted_is_added_up_and_replicas_are_not() -> None:
    histogram = (0, 2, *(0,) * (BUCKETS - 2))
    own = Told(100, (replace(sample(arrivals=3, busy_peak=1, ready=4), histogram=histogram),))
    other = Told(100, (replace(sample(arrivals=5, busy_peak=2, ready=4), histogram=histogram),))
    [total] = peers.summed(own, [other])
    assert (total.arrivals, total.busy_peak, total.ready) == (8, 3, 4)
    assert total.histogram[1] == 4


def test_a_pod_in_which_nothing_happened_adds_nothing() -> None:
    [total] = peers.summed(Told(100, (sample(arrivals=3),)), [Told(100, (), frozenset({A}))])
    assert total.arrivals == 3


def test_a_second_that_one_pod_could_not_tell_is_nobodys() -> None:
    own = Told(100, (sample(arrivals=3),))
    assert peers.summed(own, [Told(100, None)]) == ()
    assert peers.summed(Told(100, None), [Told(100, (sample(),))]) == ()


def test_a_version_that_one_pod_did_not_measure_has_no_sample() -> None:
    own = Told(100, (sample("a", arrivals=3), sample("b", arrivals=1)))
    [total] = peers.summed(own, [Told(100, (), frozenset({A}))])
    assert total.service == "a"


def test_the_routers_own_figures_are_of_all_pods() -> None:
    own = RouterSample(100, 1.0, 80.0, 0.2, 1, 3, 4, 10, 100.0)
    other = RouterSample(100, 4.0, 50.0, 0.5, 1, 3, 4, 20, 200.0)
    silent = RouterSample(100, None, 90.0, 0.1, 1, 3, 4, 0, 0.0)
    total = peers.together(own, [other, silent])
    assert (total.routing_ms, total.idle, total.cpu) == (4.0, 50.0, 0.8)
    assert (total.connections, total.requests, total.pods) == (30, 300.0, 3)
