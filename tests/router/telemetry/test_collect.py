"""Collecting: everything once, whoever dies or restarts."""

from dataclasses import replace
from pathlib import Path

import pytest
from django.test import TestCase

from deployments.clusters.models import Cluster
from deployments.errors import Unavailable
from deployments.signals import changed
from router.samples import BUCKETS, DecisionRecord, Sample
from router.telemetry.collect import Raced, _told, collect, keep
from router.telemetry.models import Decision, RollupMark, Second, Series, unpack_histogram
from tests.router.telemetry.conftest import FakeRouter

NOW = 1_800_000_000
SAMPLE = Sample(
    NOW - 5, "diabetes", "default", 9, 5, 1, 2, 0, 1, 1.5, 3, 0.5, 2, 4, 1, 0, 5,
    (0,) * 8 + (4, 1) + (0,) * (BUCKETS - 10),
)  # fmt: skip
DECISION = DecisionRecord(NOW - 4.5, "diabetes", "default", 4, 6, "up", "Because.", True, {"a": 1})


def test_samples_and_decisions_are_kept_with_all_their_figures(
    cluster: Cluster, router: FakeRouter
) -> None:
    router.log = [SAMPLE, DECISION]
    assert collect(cluster, router.socket, NOW) == 2
    row = Second.objects.select_related("series").get()
    for name in ("at", "arrivals", "ok", "client_errors", "rejected", "timeouts", "failures"):
        assert getattr(row, name) == getattr(SAMPLE, name), name
    for name in ("busy", "busy_peak", "queued", "queued_peak", "ready", "starting", "desired"):
        assert getattr(row, name) == getattr(SAMPLE, name), name
    assert unpack_histogram(row.histogram) == SAMPLE.histogram
    assert str(row.series) == "diabetes default on local"
    decision = Decision.objects.get()
    assert (decision.before, decision.after, decision.code) == (4, 6, "up")
    assert decision.inputs == {"a": 1}


def test_the_place_in_the_stream_is_kept_and_read_on_from(
    cluster: Cluster, router: FakeRouter
) -> None:
    router.log = [SAMPLE]
    collect(cluster, router.socket, NOW)
    stored = Cluster.objects.get()
    assert (stored.telemetry_epoch, stored.telemetry_seq) == ("one", 1)
    assert stored.router_seen_at is not None
    router.log.append(replace(SAMPLE, at=SAMPLE.at + 1))
    assert collect(stored, router.socket, NOW) == 1
    assert router.asked[-2:] == [("one", 1), ("one", 2)]


def test_collecting_again_from_the_start_makes_no_double_rows(
    cluster: Cluster, router: FakeRouter
) -> None:
    router.log = [SAMPLE, DECISION]
    collect(cluster, router.socket, NOW)
    Cluster.objects.update(telemetry_seq=0)
    collect(Cluster.objects.get(), router.socket, NOW)
    assert (Second.objects.count(), Decision.objects.count(), Series.objects.count()) == (1, 1, 1)


def test_a_collector_that_is_late_keeps_nothing(cluster: Cluster, router: FakeRouter) -> None:
    router.log = [SAMPLE]
    stale = Cluster.objects.get()
    collect(cluster, router.socket, NOW)
    Second.objects.all().delete()
    assert collect(stale, router.socket, NOW) == 0
    assert not Second.objects.exists()
    assert stale.telemetry_seq == 1


def test_the_place_and_the_rows_move_together_or_not_at_all(
    cluster: Cluster, router: FakeRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    router.log = [SAMPLE]

    def dies(*args: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr("router.telemetry.collect._keep_decisions", dies)
        with pytest.raises(RuntimeError):
            collect(cluster, router.socket, NOW)
    assert not Second.objects.exists()
    assert Cluster.objects.get().telemetry_seq == 0
    assert collect(Cluster.objects.get(), router.socket, NOW) == 1


def test_a_new_run_of_the_loop_is_read_from_its_beginning(
    cluster: Cluster, router: FakeRouter
) -> None:
    router.log = [SAMPLE, replace(SAMPLE, at=SAMPLE.at + 1)]
    collect(cluster, router.socket, NOW)
    router.epoch, router.log = "two", [replace(SAMPLE, at=SAMPLE.at + 2)]
    assert collect(cluster, router.socket, NOW) == 1
    assert Second.objects.count() == 3
    assert Cluster.objects.get().telemetry_epoch == "two"


def test_many_pages_are_caught_up_with_in_one_call(cluster: Cluster, router: FakeRouter) -> None:
    router.page_size = 10
    router.log = [replace(SAMPLE, at=NOW - 100 + i) for i in range(35)]
    assert collect(cluster, router.socket, NOW) == 35


def test_what_is_older_than_the_finest_table_keeps_is_left_out(
    cluster: Cluster, router: FakeRouter
) -> None:
    router.log = [replace(SAMPLE, at=NOW - 7200), replace(SAMPLE, at=NOW - 7201)]
    collect(cluster, router.socket, NOW)
    assert [row.at for row in Second.objects.all()] == [NOW - 7200]


def test_late_samples_open_finished_buckets_again(cluster: Cluster, router: FakeRouter) -> None:
    RollupMark.objects.create(step=10, until=NOW)
    RollupMark.objects.create(step=60, until=NOW - 60)
    router.log = [replace(SAMPLE, at=NOW - 25)]
    collect(cluster, router.socket, NOW)
    assert dict(RollupMark.objects.values_list("step", "until")) == {10: NOW - 30, 60: NOW - 60}


@pytest.mark.parametrize(
    ("at", "ready", "outcome"),
    [
        (NOW - 4, 5, None),  # not as many as were asked for
        (NOW - 4, 6, NOW - 3.0),
        (NOW - 8, 6, None),  # it was so before the decision
    ],
)
def test_the_outcome_is_when_as_many_as_asked_for_were_ready(
    cluster: Cluster, router: FakeRouter, at: int, ready: int, outcome: float | None
) -> None:
    router.log = [DECISION, replace(SAMPLE, at=at, ready=ready)]
    collect(cluster, router.socket, NOW)
    assert Decision.objects.get().ready_at == outcome


def test_an_outcome_may_come_with_a_later_page(cluster: Cluster, router: FakeRouter) -> None:
    router.log = [DECISION, SAMPLE]
    collect(cluster, router.socket, NOW)
    assert Decision.objects.get().waited is None
    router.log.append(replace(SAMPLE, at=NOW + 3, ready=6))
    collect(cluster, router.socket, NOW)
    assert Decision.objects.get().waited == 8.5


@pytest.mark.parametrize(("ready", "outcome"), [(5, None), (4, NOW - 3.0)])
def test_the_outcome_of_a_step_down_is_when_no_more_were_ready(
    cluster: Cluster, router: FakeRouter, ready: int, outcome: float | None
) -> None:
    router.log = [
        replace(DECISION, before=6, after=4, code="down"),
        replace(SAMPLE, at=NOW - 4, ready=ready),
    ]
    collect(cluster, router.socket, NOW)
    assert Decision.objects.get().ready_at == outcome


@pytest.mark.parametrize(
    ("then", "outcome"),
    [
        ((6, 8), NOW + 2.0),  # more still: those asked for first came
        ((6, 5), None),  # they were not waited for; a later step up brought six
    ],
)
def test_what_comes_after_a_step_the_other_way_is_not_its_outcome(
    cluster: Cluster, router: FakeRouter, then: tuple[int, int], outcome: float | None
) -> None:
    before, after = then
    router.log = [
        DECISION,
        replace(DECISION, at=NOW - 2.0, before=before, after=after),
        replace(SAMPLE, at=NOW + 1, ready=6),
    ]
    collect(cluster, router.socket, NOW)
    assert Decision.objects.get(at=DECISION.at).ready_at == outcome


def test_how_long_a_hindrance_went_on_is_taken_over_into_its_row(
    cluster: Cluster, router: FakeRouter
) -> None:
    begins = replace(DECISION, after=4, applied=False, code="holding", until=DECISION.at)
    router.log = [begins, replace(begins, until=NOW - 4.0)]  # both in one page
    collect(cluster, router.socket, NOW)
    row = Decision.objects.get()
    assert (row.until, row.over, row.reason) == (NOW - 4.0, False, "Because.")
    router.log.append(replace(begins, until=NOW + 36.5, over=True))
    collect(cluster, router.socket, NOW)
    row = Decision.objects.get()
    assert (row.until, row.over) == (NOW + 36.5, True)


def test_pages_that_show_the_service_are_told_once_a_page(
    cluster: Cluster, router: FakeRouter
) -> None:
    told: list[str] = []

    def hear(topic: str, key: str, **kwargs: object) -> None:
        told.append(f"{topic}:{key}")

    changed.connect(hear)
    try:
        router.log = [SAMPLE, replace(SAMPLE, at=SAMPLE.at + 1)]
        with TestCase.captureOnCommitCallbacks(execute=True):
            collect(cluster, router.socket, NOW)
        with TestCase.captureOnCommitCallbacks(execute=True):
            collect(cluster, router.socket, NOW)
    finally:
        changed.disconnect(hear)
    assert told == ["telemetry:diabetes"]


def test_of_very_many_services_each_is_told_in_turn() -> None:
    keys = {(f"s{i:04}", "default") for i in range(120)}
    rounds = [_told(keys, NOW + i) for i in range(3)]
    assert [len(told) for told in sorted(rounds, key=len)] == [20, 50, 50]
    assert {name for told in rounds for name in told} == {service for service, _ in keys}
    assert _told({("a", "x"), ("a", "y")}, NOW) == ["a"]


def test_a_router_that_is_not_there_is_unavailable(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="router is not running"):
        collect(cluster, tmp_path / "none.sock", NOW)
    assert Cluster.objects.get().router_seen_at is None


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"next": 1}', b'{"epoch": "x"}'])
def test_an_answer_that_makes_no_sense_changes_nothing(
    cluster: Cluster, router: FakeRouter, answer: bytes
) -> None:
    router.answer = answer
    with pytest.raises(Unavailable, match="cannot be read"):
        collect(cluster, router.socket, NOW)
    assert Cluster.objects.get().telemetry_seq == 0


def test_a_thousand_services_need_few_queries(
    cluster: Cluster, router: FakeRouter, django_assert_max_num_queries: object
) -> None:
    router.log = [replace(SAMPLE, service=f"s{i:04}") for i in range(1000)]
    collect(cluster, router.socket, NOW)
    router.log += [replace(SAMPLE, service=f"s{i:04}", at=SAMPLE.at + 1) for i in range(1000)]
    # SQLite takes about 50 rows a statement; no query is made for each row
    with django_assert_max_num_queries(60):  # type: ignore[operator]
        collect(cluster, router.socket, NOW)
    assert Second.objects.count() == 2000


def test_keeping_a_page_twice_is_a_race_lost(cluster: Cluster, router: FakeRouter) -> None:
    router.log = [SAMPLE]
    stale = Cluster.objects.get()
    collect(cluster, router.socket, NOW)
    with pytest.raises(Raced):
        keep(stale, _page(router), NOW)


def _page(router: FakeRouter):  # type: ignore[no-untyped-def]
    from router.samples import from_wire

    return from_wire(router.page("", 0))
