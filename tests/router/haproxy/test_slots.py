"""Slots: exact commands, one step at a time, and nothing freed too early."""

from dataclasses import replace

from router.haproxy.slots import Plan, Slot, State, Wanted, adopt, plan
from router.haproxy.stats import Server

A = Wanted("a", "127.0.0.1:41001", 2)
B = Wanted("b", "127.0.0.1:41002", 1)
EMPTY = (Slot("be_0001", "s1"), Slot("be_0001", "s2"))
JOINED = Slot("be_0001", "s1", State.JOINED, "a", "127.0.0.1:41001", 2, since=10.0)


def server(name: str = "s1", address: str = "127.0.0.1:1", **changes: object) -> Server:
    base = Server("be_0001", name, address, maintenance=True, draining=False, up=False, used=0)
    return replace(base, **changes)


def ready(name: str = "s1", address: str = "127.0.0.1:41001", **changes: object) -> Server:
    return server(name, address, **{"maintenance": False, "up": True, **changes})


def step(slots: tuple[Slot, ...], wanted: list[Wanted], *seen: Server, at: float = 20.0) -> Plan:
    return plan(slots, wanted, {item.name: item for item in seen}, read_at=at, now=at + 0.1)


def test_a_replica_joins_in_the_order_that_is_exact() -> None:
    made = step(EMPTY, [A], server("s1"), server("s2"))
    assert made.commands == (
        "set server be_0001/s1 addr 127.0.0.1 port 41001",
        "set server be_0001/s1 check-port 41001",
        "set maxconn server be_0001/s1 2",
        "set server be_0001/s1 state drain",
        "set server be_0001/s1 state ready",
        "set maxconn server be_0001/s1 2",
    )
    assert made.slots[0] == Slot(
        "be_0001", "s1", State.JOINED, "a", "127.0.0.1:41001", 2, since=20.1
    )
    assert made.slots[1] == EMPTY[1]


def test_an_address_of_ipv6_is_told_without_its_brackets() -> None:
    made = step(EMPTY, [Wanted("a", "[::1]:41001", 1)], server("s1"))
    assert made.commands[0] == "set server be_0001/s1 addr ::1 port 41001"


def test_a_pod_is_checked_where_its_gate_answers_checks() -> None:
    made = step(EMPTY, [Wanted("a", "10.88.0.7:5001", 1)], server("s1"))
    assert made.commands[:2] == (
        "set server be_0001/s1 addr 10.88.0.7 port 5001",
        "set server be_0001/s1 check-port 5002",
    )


def test_what_is_as_wanted_takes_no_command() -> None:
    assert step((JOINED,), [A], ready()).commands == ()
    assert step(EMPTY, [], server("s1"), server("s2")).commands == ()


def test_two_replicas_take_two_slots() -> None:
    made = step(EMPTY, [A, B], server("s1"), server("s2"))
    assert [slot.replica for slot in made.slots] == ["a", "b"]
    assert made.unplaced == ()


def test_a_replica_without_a_free_slot_is_told() -> None:
    made = step((JOINED,), [A, B], ready())
    assert made.commands == ()
    assert made.unplaced == (B,)


def test_leaving_takes_drain_then_idle_then_maintenance_then_idle_again() -> None:
    made = step((JOINED,), [], ready(used=1), at=20.0)
    assert made.commands == ("set server be_0001/s1 state drain",)
    assert made.slots[0].state is State.DRAINING

    made = step(made.slots, [], ready(draining=True, used=1), at=21.0)
    assert (made.commands, made.slots[0].state) == ((), State.DRAINING)

    made = step(made.slots, [], ready(draining=True), at=22.0)
    assert made.commands == ("set server be_0001/s1 state maint",)
    assert made.slots[0].state is State.SETTLING

    made = step(made.slots, [], server("s1", used=1), at=23.0)
    assert (made.commands, made.slots[0].state) == ((), State.SETTLING)

    made = step(made.slots, [], server("s1"), at=24.0)
    assert (made.commands, made.slots[0].state) == ((), State.FREE)
    assert made.slots[0].replica == ""


def test_idle_in_a_reading_begun_before_the_drain_proves_nothing() -> None:
    draining = replace(JOINED, state=State.DRAINING, since=20.0)
    for at, state in ((20.0, State.DRAINING), (20.01, State.SETTLING)):
        assert step((draining,), [], ready(draining=True), at=at).slots[0].state is state
    settling = replace(JOINED, state=State.SETTLING, since=20.0)
    for at, state in ((20.0, State.SETTLING), (20.01, State.FREE)):
        assert step((settling,), [], server(), at=at).slots[0].state is state


def test_a_slot_that_was_not_read_stays_as_it_is() -> None:
    draining = replace(JOINED, state=State.DRAINING)
    assert step((draining,), [], at=99.0) == Plan((draining,), ())
    assert step((JOINED,), [A], at=99.0) == Plan((JOINED,), ())


def test_a_freed_slot_is_reused_only_after_a_reading_that_shows_it_idle() -> None:
    freed = Slot("be_0001", "s1", since=20.0)
    assert step((freed,), [A], server(), at=20.0).unplaced == (A,)
    assert step((freed,), [A], server(used=1), at=21.0).unplaced == (A,)
    assert step((freed,), [A], server(), at=21.0).slots[0].replica == "a"


def test_a_replica_wanted_again_while_it_drains_rejoins() -> None:
    draining = replace(JOINED, state=State.DRAINING)
    made = step((draining,), [A], ready(draining=True, used=1))
    assert made.slots[0].state is State.JOINED
    assert made.commands[-2:] == (
        "set server be_0001/s1 state ready",
        "set maxconn server be_0001/s1 2",
    )


def test_a_replica_wanted_again_while_it_settles_waits_for_the_slot_or_takes_another() -> None:
    settling = replace(JOINED, state=State.SETTLING)
    made = step((settling,), [A], server(used=1))
    assert (made.commands, made.unplaced) == ((), (A,))
    assert step((settling,), [A], server()).slots[0].state is State.JOINED
    made = step((settling, EMPTY[1]), [A], server(used=1), server("s2"))
    assert [slot.state for slot in made.slots] == [State.SETTLING, State.JOINED]


def test_a_replica_that_moved_leaves_its_old_slot_and_takes_a_new_one() -> None:
    moved = replace(A, address="127.0.0.1:41009")
    made = step((JOINED, EMPTY[1]), [moved], ready("s1"), server("s2"))
    assert [slot.state for slot in made.slots] == [State.DRAINING, State.JOINED]
    assert made.slots[1].address == "127.0.0.1:41009"


def test_what_did_not_get_through_is_said_again() -> None:
    assert len(step((JOINED,), [A], server("s1")).commands) == 6
    draining = replace(JOINED, state=State.DRAINING)
    made = step((draining,), [], ready())
    assert made.commands == ("set server be_0001/s1 state drain",)
    settling = replace(JOINED, state=State.SETTLING)
    made = step((settling,), [], ready(draining=True))
    assert made.commands == ("set server be_0001/s1 state maint",)
    assert made.slots[0].state is State.SETTLING


def test_a_stranger_in_a_free_slot_is_let_go_gently() -> None:
    made = step(EMPTY, [], ready("s1", "127.0.0.1:5"), server("s2"))
    assert made.commands == ("set server be_0001/s1 state drain",)
    assert made.slots[0].state is State.DRAINING
    assert made.slots[0].replica == ""


def test_a_new_loop_adopts_by_what_was_kept_then_by_address() -> None:
    servers = [
        ready("s1", "127.0.0.1:41001"),
        ready("s2", "127.0.0.1:41002", draining=True, used=1),
        ready("s3", "127.0.0.1:41003"),
        server("s4"),
        server("s5", used=1),
    ]
    kept = [
        Slot("be_0001", "s1", State.JOINED, "kept", "127.0.0.1:41001", 4),
        Slot("be_0001", "s2", State.JOINED, "old", "127.0.0.1:999", 4),
    ]
    found = adopt(servers, {("be_0001", "s1"): 4}, kept, [B], now=5.0)
    assert [(slot.state, slot.replica) for slot in found] == [
        (State.JOINED, "kept"),
        (State.DRAINING, "b"),
        (State.JOINED, ""),
        (State.FREE, ""),
        (State.SETTLING, ""),
    ]
    assert found[0].concurrency == 4
    assert all(slot.since == 5.0 for slot in found)


# ---- replicas on unix sockets: a link of the slot says whose it is ----------------------------

U = Wanted("u", "unix:/replicas/u/listen.sock", 1)
V = Wanted("v", "unix:/replicas/v/listen.sock", 1)


def test_a_unix_replica_joins_by_a_link_and_no_address() -> None:
    made = step(EMPTY, [U], server("s1", "unix:/replicas/gone/listen.sock"), server("s2", "unix"))
    assert made.commands == (
        "set maxconn server be_0001/s1 1",
        "set server be_0001/s1 state drain",
        "set server be_0001/s1 state ready",
        "set maxconn server be_0001/s1 1",
    )
    assert made.links == (made.slots[0],)
    assert (made.slots[0].replica, made.slots[0].address) == ("u", U.address)


def test_a_link_is_never_turned_while_a_worker_may_follow_it() -> None:
    joined = Slot("be_0001", "s1", State.JOINED, "u", U.address, 1, since=10.0)
    made = step((joined,), [V], ready("s1", U.address, used=1))
    assert (made.links, made.unplaced) == ((), (V,))
    (draining,) = made.slots
    assert draining.state is State.DRAINING
    # an old worker that was not told has it in use: the slot is not free for anybody
    free = (Slot("be_0001", "s1", since=10.0),)
    made = step(free, [V], ready("s1", U.address))
    assert (made.links, made.unplaced) == ((), (V,))
    assert made.slots[0].state is State.DRAINING


def test_a_link_that_leads_elsewhere_lets_its_replica_join_anew() -> None:
    slots = (Slot("be_0001", "s1", State.JOINED, "u", U.address, 1, since=10.0),)
    for at, seen in (
        (20.0, ready("s1", V.address)),
        (21.0, ready("s1", V.address, draining=True)),
        (22.0, server("s1", V.address)),
    ):
        made = step(slots, [U], seen, at=at)
        slots = made.slots
    assert made.links == (Slot("be_0001", "s1", State.JOINED, "u", U.address, 1, since=22.1),)


def test_a_unix_replica_that_haproxy_lost_is_told_again_without_turning_its_link() -> None:
    joined = Slot("be_0001", "s1", State.JOINED, "u", U.address, 1, since=10.0)
    made = step((joined,), [U], server("s1", U.address))
    assert made.links == ()
    assert made.commands[-2:] == (
        "set server be_0001/s1 state ready",
        "set maxconn server be_0001/s1 1",
    )
