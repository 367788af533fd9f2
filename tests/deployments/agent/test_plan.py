"""The plan as tables, and as whole roll-outs that are cut off between any two actions."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.agent import life
from deployments.agent.plan import (
    Create,
    Drain,
    Forget,
    Place,
    Refuse,
    Start,
    Stop,
    in_rotation,
    plan,
    surge,
)
from deployments.agent.record import Process, Record, Room, Sighting, Wanted
from deployments.types import Phase, ReplicaRoute, Resources, RouteReport, RouteState
from tests.deployments.agent.conftest import a_revision

NOW = 1000.0
ROOM = Room(64.0, 256.0)
RUNNING = Sighting(Process.RUNNING)
ENDED = Sighting(Process.ENDED)
READY = Phase.READY


def want(count: int, number: int = 1, prefer: tuple[str, ...] = ()) -> Wanted:
    return Wanted("diabetes", "default", a_revision(number), f"k{number}", count, prefer)


def a(name: str, phase: Phase = READY, number: int = 1, **changes: object) -> Record:
    running = phase in (Phase.STARTING, Phase.LOADING, READY, Phase.DRAINING)
    plain = Record(
        id=name,
        service="diabetes",
        version="default",
        revision=a_revision(number),
        key=f"k{number}",
        phase=phase,
        created_at=100.0 + ord(name[0]),
        run=int(running),
        started_at=NOW - 50 if running else None,
        ready_at=NOW - 40 if phase in (READY, Phase.DRAINING) else None,
        drain_at=NOW - 5 if phase is Phase.DRAINING else None,
    )
    return replace(plain, **changes)


def report(at: float = NOW - 1, **states: RouteState) -> RouteReport:
    return RouteReport(at, tuple(ReplicaRoute(name, state, 0) for name, state in states.items()))


IN, DRAINING, OUT = RouteState.IN_ROTATION, RouteState.DRAINING, RouteState.OUT


def planned(wanted, records, routes=None, sightings=None, room=ROOM, now=NOW):
    seen = {r.id: RUNNING if r.run else Sighting() for r in records}
    return plan(wanted, records, {**seen, **(sightings or {})}, routes, room, now)


def drained(actions) -> list[str]:
    return [action.replica for action in actions if isinstance(action, Drain)]


def created(actions) -> int:
    return sum(isinstance(action, Create) for action in actions)


# Counts


def test_nothing_is_done_when_all_is_as_wanted():
    assert planned([want(2)], [a("a"), a("b")], report(a=IN, b=IN)) == []


@pytest.mark.parametrize(
    ("existing", "count", "more"), [(0, 1, 1), (0, 3, 3), (2, 3, 1), (3, 3, 0)]
)
def test_missing_replicas_are_created(existing, count, more):
    records = [a(name) for name in "abc"[:existing]]
    assert created(planned([want(count)], records)) == more


def test_a_crashed_replica_counts_and_is_not_replaced():
    records = [a("a"), a("b", Phase.CRASHED, next_start_at=NOW + 5)]
    assert planned([want(2)], records, sightings={"b": ENDED}) == []


def test_a_draining_replica_does_not_count():
    assert created(planned([want(2)], [a("a"), a("b", Phase.DRAINING)])) == 1


# Scaling down


@pytest.mark.parametrize(
    ("records", "prefer", "victims"),
    [
        ([a("a"), a("b"), a("c")], (), ["c"]),
        ([a("a"), a("b"), a("c")], ("a",), ["a"]),
        ([a("a"), a("b"), a("c")], ("gone", "b", "a"), ["b"]),
        ([a("a", Phase.STARTING), a("b"), a("c")], (), ["a"]),
        # A ready one is not let go while fewer would be ready than are wanted.
        ([a("a", Phase.STARTING), a("b"), a("c")], ("b",), ["a"]),
        ([a("a", Phase.STARTING), a("b", Phase.LOADING), a("c")], (), ["b"]),
    ],
)
def test_who_is_let_go_first(records, prefer, victims):
    assert drained(planned([want(2, prefer=prefer)], records)) == victims


def test_scaling_down_by_several_prefers_the_routers_choice_in_its_order():
    records = [a(name) for name in "abcde"]
    assert drained(planned([want(2, prefer=("d", "a"))], records)) == ["d", "a", "e"]


# Rolling update


@pytest.mark.parametrize(("count", "more"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_surge_is_a_quarter_and_at_least_one(count, more):
    assert surge(count) == more


def test_a_new_revision_begins_beside_the_old_one():
    actions = planned([want(2, number=2)], [a("a"), a("b")], report(a=IN, b=IN))
    assert (created(actions), drained(actions)) == (1, [])


def test_no_more_than_the_surge_exists_beside():
    records = [a("a"), a("b"), a("c", Phase.STARTING, 2)]
    assert planned([want(2, number=2)], records, report(a=IN, b=IN)) == []


@pytest.mark.parametrize(
    ("routes", "leave"),
    [
        (report(a=IN, b=IN), []),
        (report(a=IN, b=IN, c=DRAINING), []),
        (report(a=IN, b=IN, c=IN), ["b"]),
        (report(NOW - 41, a=IN, b=IN, c=IN), []),  # of a run before this one
        (None, []),
    ],
)
def test_an_old_replica_leaves_only_when_a_new_one_is_in_rotation(routes, leave):
    records = [a("a"), a("b"), a("c", number=2)]
    assert drained(planned([want(2, number=2)], records, routes)) == leave


def test_an_old_replica_that_is_not_ready_leaves_first():
    records = [a("a", Phase.CRASHED, next_start_at=NOW + 9), a("b"), a("c", number=2)]
    routes = report(b=IN, c=IN)
    assert drained(planned([want(2, number=2)], records, routes, {"a": ENDED})) == ["a"]


def test_a_service_made_again_with_the_same_number_is_another_revision():
    records = [a("a", key="other")]
    assert created(planned([want(1)], records, report(a=IN))) == 1


def test_all_old_ones_leave_at_once_when_all_new_ones_serve():
    records = [a("a"), a("b"), a("c", number=2), a("d", number=2)]
    routes = report(a=IN, b=IN, c=IN, d=IN)
    assert drained(planned([want(2, number=2)], records, routes)) == ["b", "a"]


def test_a_removed_service_and_a_removed_version_drain():
    assert drained(planned([], [a("a"), a("b")])) == ["a", "b"]
    other = replace(want(1), version="blue")
    assert drained(planned([other], [a("a")])) == ["a"]


def test_in_rotation_needs_a_report_of_this_run():
    assert in_rotation(a("a"), report(a=IN))
    assert not in_rotation(a("a", ready_at=NOW), report(NOW - 1, a=IN))
    assert not in_rotation(a("a", Phase.LOADING), report(a=IN))


# Stopping


@pytest.mark.parametrize(
    ("routes", "stops"),
    [
        (None, False),
        (report(NOW - 1, a=IN), False),
        (report(NOW - 1, a=DRAINING), False),
        (report(NOW - 1, a=OUT), True),
        (report(NOW - 1), True),  # the router does not know it any more
        (report(NOW - 5, a=OUT), False),  # as old as the drain: may not have seen it
        (report(NOW - 5), False),
    ],
)
def test_a_replica_that_was_ready_is_stopped_on_the_routers_word_alone(routes, stops):
    actions = planned([want(0)], [a("a", Phase.DRAINING)], routes)
    assert [type(action) for action in actions] == ([Stop] if stops else [])


def test_a_replica_that_was_never_ready_is_stopped_at_once():
    actions = planned([want(0)], [a("a", Phase.DRAINING, ready_at=None)])
    assert actions == [Stop("a", "it was never ready")]


def test_one_that_is_being_stopped_is_not_stopped_again():
    assert planned([want(0)], [a("a", Phase.DRAINING, term_at=NOW)], report(a=OUT)) == []


@pytest.mark.parametrize(("seconds", "stops"), [(300.0, False), (300.1, True)])
def test_only_a_removed_service_stops_waiting_for_the_router(seconds, stops):
    record = a("a", Phase.DRAINING, drain_at=NOW - seconds)
    assert bool(planned([], [record])) is stops
    assert planned([want(0)], [record]) == []


@pytest.mark.parametrize("process", [Process.ENDED, Process.VANISHED, Process.NONE])
def test_a_leaving_replica_without_a_process_is_forgotten(process):
    actions = planned([want(0)], [a("a", Phase.DRAINING)], sightings={"a": Sighting(process)})
    assert [type(action) for action in actions] == [Forget]


@pytest.mark.parametrize(("seconds", "forgotten"), [(10.0, False), (10.1, True)])
def test_a_shim_that_may_be_about_to_speak_is_waited_for(seconds, forgotten):
    record = a("a", Phase.DRAINING, started_at=NOW - seconds)
    assert bool(planned([want(0)], [record], sightings={"a": Sighting()})) is forgotten


# Starting


def test_a_waiting_replica_is_placed_and_started_when_its_files_are_there():
    assert planned([want(1)], [a("a", Phase.SCHEDULING)]) == [Place("a", "there is room")]
    pulling = a("a", Phase.PULLING)
    assert planned([want(1)], [pulling]) == []
    seen = {"a": Sighting(prepared=True)}
    assert planned([want(1)], [pulling], sightings=seen) == [Start("a", "its files are in place")]


def test_one_that_leaves_is_not_placed_any_more():
    actions = planned([want(0)], [a("a", Phase.SCHEDULING)])
    assert drained(actions) == ["a"]
    assert not any(isinstance(action, Place) for action in actions)


def test_there_is_room_to_the_last_bit_and_not_beyond():
    ask = a_revision(resources=Resources(cpu=0.5, memory_gb=1.0))
    waiting = [a(name, Phase.SCHEDULING, revision=ask) for name in "abc"]
    actions = planned([want(3)], waiting, room=Room(1.0, 64.0))
    assert [(type(x), x.replica) for x in actions] == [(Place, "a"), (Place, "b"), (Refuse, "c")]
    cause = actions[2].cause
    assert cause.code == "PodUnschedulable"
    assert (
        "asks for 0.5 cores and 1 GiB; this machine has 0.00 cores and 62.00 GiB" in cause.message
    )
    told = [*waiting[:2], replace(waiting[2], cause=cause)]
    assert not any(isinstance(x, Refuse) for x in planned([want(3)], told, room=Room(1.0, 64.0)))


def test_a_gpu_is_given_to_one_replica_at_a_time():
    ask = a_revision(resources=Resources(cpu=0.1, memory_gb=0.1, gpu=1))
    waiting = [a(name, Phase.SCHEDULING, revision=ask) for name in "ab"]
    actions = planned([want(2)], waiting, room=Room(8.0, 64.0, gpu=1))
    assert [(type(x), x.replica) for x in actions] == [(Place, "a"), (Refuse, "b")]
    assert "1 GPU; this machine has" in actions[1].cause.message
    assert "and 0 GPU left" in actions[1].cause.message
    # where there is none, what asks for none is not kept waiting
    plain = [a("a", Phase.SCHEDULING)]
    assert [type(x) for x in planned([want(1)], plain, room=Room(8.0, 64.0))] == [Place]


@pytest.mark.parametrize(
    ("due", "seen", "again"),
    [(NOW, ENDED, True), (NOW + 0.1, ENDED, False), (NOW, RUNNING, False)],
)
def test_a_crashed_replica_starts_again_after_its_back_off_when_nothing_is_left(due, seen, again):
    record = a("a", Phase.CRASHED, run=1, crashes=2, next_start_at=due)
    actions = planned([want(1)], [record], sightings={"a": seen})
    assert [type(action) for action in actions] == ([Place] if again else [])


# Whole roll-outs, cut off anywhere


@dataclass
class World:
    """Processes, a router that lags behind, and an agent that may die after any action."""

    wanted: list[Wanted]
    now: float = NOW
    records: dict[str, Record] = field(default_factory=dict)
    running: dict[str, float] = field(default_factory=dict)  # replica -> since when
    routes: dict[str, RouteState] = field(default_factory=dict)
    report: RouteReport | None = None
    made: int = 0

    def sightings(self) -> dict[str, Sighting]:
        seen = {}
        for name, record in self.records.items():
            if name in self.running:
                good = self.now - self.running[name] >= 2
                seen[name] = Sighting(
                    Process.RUNNING, streak=int(good), good_at=self.now if good else None
                )
            elif record.phase is Phase.PULLING:
                seen[name] = Sighting(prepared=True)
            else:
                seen[name] = ENDED if record.run else Sighting()
        return seen

    def cycle(self, actions_done: int) -> None:
        """One of the agent's; killed after so many actions."""
        for name, record in list(self.records.items()):
            self.records[name] = life.advance(record, self.sightings()[name], self.now).record
        actions = plan(
            self.wanted, list(self.records.values()), self.sightings(), self.report, ROOM, self.now
        )
        for action in actions[:actions_done]:
            self.act(action)

    def act(self, action) -> None:
        if isinstance(action, Create):
            self.made += 1
            name = f"{chr(97 + self.made % 26)}{self.made}"
            item = action.wanted
            self.records[name] = Record(
                id=name,
                service=item.service,
                version=item.version,
                revision=item.revision,
                key=item.key,
                phase=Phase.SCHEDULING,
                created_at=self.now + self.made / 1000,
            )
            return
        record = self.records[action.replica]
        if isinstance(action, Place):
            self.records[record.id] = replace(record, phase=Phase.PULLING, term_at=None)
        elif isinstance(action, Start):
            assert record.id not in self.running, "started twice"
            self.running[record.id] = self.now
            self.records[record.id] = replace(
                record, phase=Phase.STARTING, run=record.run + 1, started_at=self.now, ready_at=None
            )
        elif isinstance(action, Drain):
            self.records[record.id] = replace(record, phase=Phase.DRAINING, drain_at=self.now)
        elif isinstance(action, Stop):
            assert self.routes.get(record.id) is not IN, "stopped with requests inside"
            self.records[record.id] = replace(record, term_at=self.now)
            del self.running[record.id]
        elif isinstance(action, Forget):
            assert record.id not in self.running, "forgot a process"
            del self.records[record.id]

    def route(self) -> None:
        """The router: takes in what is ready, lets go what drains one tick after it saw that."""
        for name in list(self.routes):
            if name not in self.records:
                del self.routes[name]
        for name, record in self.records.items():
            if record.phase is READY:
                self.routes[name] = IN
            elif self.routes.get(name) is IN:
                self.routes[name] = DRAINING
            elif self.routes.get(name) is DRAINING:
                self.routes[name] = OUT
        self.report = RouteReport(
            self.now, tuple(ReplicaRoute(name, state, 0) for name, state in self.routes.items())
        )

    def serving(self) -> int:
        return sum(record.phase is READY for record in self.records.values())

    def staying(self) -> int:
        return sum(not record.leaving for record in self.records.values())


STEPS = st.lists(
    st.tuples(
        st.integers(0, 4),  # actions done before the agent is killed
        st.booleans(),  # whether the router had its tick
        st.sampled_from([0.1, 0.5, 2.5]),  # seconds that pass
        st.integers(0, 30),  # whose process is killed; most numbers are nobody's
    ),
    max_size=60,
)


def settle(world: World, steps: int = 120) -> None:
    for _ in range(steps):
        world.cycle(100)
        world.route()
        world.now += 1.0


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 6), steps=STEPS)
def test_a_roll_out_cut_off_anywhere_keeps_what_is_wanted_serving(count, steps):
    world = World([want(count)])
    settle(world)
    assert world.serving() == count
    world.wanted = [want(count, number=2)]
    for done, routed, seconds, _ in steps:
        world.cycle(done)
        if routed:
            world.route()
        world.now += seconds
        assert world.serving() >= count
        assert world.staying() <= count + surge(count)
    settle(world)
    assert {record.key for record in world.records.values()} == {"k2"}
    assert world.serving() == count == len(world.running)


@settings(deadline=None, max_examples=30)
@given(first=st.integers(0, 6), then=st.integers(0, 6), number=st.integers(1, 2), steps=STEPS)
def test_any_change_comes_to_rest_as_wanted_whoever_dies(first, then, number, steps):
    world = World([want(first)])
    settle(world, 20)
    world.wanted = [want(then, number=number)]
    for done, routed, seconds, victim in steps:
        world.cycle(done)
        if routed:
            world.route()
        alive = sorted(world.running)
        if victim < len(alive):
            del world.running[alive[victim]]
        world.now += seconds
        assert set(world.running) <= set(world.records)
    settle(world)
    assert len(world.records) == len(world.running) == world.serving() == then
    assert {record.key for record in world.records.values()} <= {f"k{number}"}
