"""Who builds, decided row by row."""

from datetime import UTC, datetime, timedelta

import pytest

from deployments.claims import holder
from deployments.environments import claims
from deployments.environments.claims import Next
from deployments.environments.models import BuildState, EnvironmentBuild

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("state", "complete", "running", "waited", "expected"),
    [
        ("ready", True, False, False, Next.USE),
        ("ready", False, False, False, Next.BUILD),  # somebody emptied the disk
        ("queued", False, False, False, Next.BUILD),
        ("removed", False, False, True, Next.BUILD),
        ("building", False, True, False, Next.WAIT),
        ("building", False, True, True, Next.WAIT),
        ("building", False, False, True, Next.BUILD),  # its builder died
        ("failed", False, False, False, Next.BUILD),
        ("failed", False, False, True, Next.FAIL),
    ],
)
def test_the_next_step_follows_from_what_is_seen(
    state: str, complete: bool, running: bool, waited: bool, expected: Next
) -> None:
    assert claims.decide(state, complete=complete, running=running, waited=waited) is expected


@pytest.fixture
def build(db: None) -> EnvironmentBuild:
    return EnvironmentBuild.objects.create(hash="a" * 64)


def test_of_two_that_saw_the_same_row_one_gets_the_claim(build: EnvironmentBuild) -> None:
    other = EnvironmentBuild.objects.get()
    assert claims.claim(build, NOW) != ""
    assert claims.claim(other, NOW) == ""


def test_a_build_runs_until_its_lease_is_over(build: EnvironmentBuild) -> None:
    claims.claim(build, NOW)
    build.refresh_from_db()
    assert claims.is_running(build, NOW + claims.LEASE - timedelta(milliseconds=1))
    assert not claims.is_running(build, NOW + claims.LEASE)


def test_a_renewed_lease_lasts_longer(build: EnvironmentBuild) -> None:
    name = claims.claim(build, NOW)
    assert claims.renew(build, name, NOW + timedelta(seconds=20))
    build.refresh_from_db()
    assert claims.is_running(build, NOW + claims.LEASE)


def test_a_build_whose_process_is_gone_does_not_run(build: EnvironmentBuild) -> None:
    claims.claim(build, NOW)
    build.refresh_from_db()
    host = holder().partition(":")[0]
    build.claimed_by = f"{host}:1:0.00#abc"  # process 1 did not start in 1970
    assert not claims.is_running(build, NOW)
    build.claimed_by = "another-host:1:0.00#abc"
    assert claims.is_running(build, NOW)


def test_one_that_lost_its_claim_changes_nothing_any_more(build: EnvironmentBuild) -> None:
    lost = claims.claim(build, NOW)
    build.refresh_from_db()
    name = claims.claim(build, NOW + claims.LEASE)
    assert not claims.renew(build, lost, NOW)
    assert not claims.finish(build, lost, location="/x", size=1, now=NOW)
    assert not claims.fail(build, lost, code="C", message="m", now=NOW)
    assert not claims.give_back(build, lost)
    assert claims.finish(build, name, location="/y", size=2, now=NOW)
    build.refresh_from_db()
    assert (build.state, build.location, build.size) == (BuildState.READY, "/y", 2)


def test_a_build_given_back_can_be_taken_at_once(build: EnvironmentBuild) -> None:
    assert claims.give_back(build, claims.claim(build, NOW))
    build.refresh_from_db()
    assert build.state == BuildState.QUEUED
    assert claims.claim(build, NOW)
