"""How far a router follows its settings: asked for, in force, refused, kept for the next start."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.errors import PermanentError
from deployments.types import CustomLines, RouterSpec, TlsSpec
from router.following import Following
from router.setup import Status
from tests.deployments.clusters.authority import NOW, YEAR, issue

SPEC = RouterSpec(generation=2, custom=CustomLines(defaults=("a",)), revoked_tokens=("x",))
TLS = TlsSpec("score.example.com", "CHAIN", "KEY")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def following(tmp_path: Path, clock: Clock) -> Following:
    return Following(tmp_path / "router" / "applied.json", clock)


def test_nothing_is_due_until_the_cluster_was_read(following: Following) -> None:
    assert following.due() is None
    following.ask(None)
    assert following.due() is None
    following.ask(SPEC)
    assert following.due() is SPEC


def test_what_was_taken_is_not_due_again(following: Following) -> None:
    following.ask(SPEC)
    following.took(SPEC)
    assert following.due() is None
    assert following.status() == Status(2, 2)
    following.ask(replace(SPEC, generation=3))
    assert following.due() is not None
    assert following.status() == Status(2, 3)


def test_a_refusal_is_told_and_tried_again_in_a_minute(following: Following, clock: Clock) -> None:
    following.ask(SPEC)
    following.refuse(SPEC, PermanentError("HAProxy refuses"))
    assert following.status() == Status(0, 2, "HAProxy refuses")
    clock.now += 59.9
    assert following.due() is None
    clock.now += 0.1
    assert following.due() is SPEC
    better = replace(SPEC, generation=3)
    following.refuse(SPEC, PermanentError("HAProxy refuses"))
    following.ask(better)
    assert following.due() is better  # other settings are tried at once
    assert following.status() == Status(0, 3)  # and nothing is said of them yet
    following.took(better)
    assert following.status() == Status(3, 3)


def test_a_start_on_less_than_what_is_asked_keeps_the_problem(following: Following) -> None:
    following.ask(SPEC)
    following.refuse(SPEC, PermanentError("HAProxy refuses"))
    following.took(RouterSpec())
    assert following.status() == Status(0, 2, "HAProxy refuses")


def test_a_refusal_is_said_once_a_minute(
    following: Following, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    following.ask(SPEC)
    for moment in (100.0, 100.25, 159.9, 160.0):
        clock.now = moment
        following.refuse(SPEC, PermanentError("HAProxy refuses"))
    assert len(caplog.records) == 2


def test_what_ran_last_is_there_for_the_next_start(
    following: Following, tmp_path: Path, clock: Clock
) -> None:
    following.ask(SPEC)
    following.took(replace(SPEC, tls=TLS))
    path = tmp_path / "router" / "applied.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Following(path, clock)
    assert again.kept == RouterSpec(tls=TLS, custom=SPEC.custom)
    assert again.spec == again.kept


def test_a_file_that_cannot_be_read_is_left_behind(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "applied.json"
    path.write_text("{")
    again = Following(path, clock)
    assert (again.kept, again.spec) == (None, RouterSpec())


def test_a_certificate_is_told_once_and_again_when_it_may_be_another(following: Following) -> None:
    spec = replace(SPEC, tls=TLS)
    assert following.certificate_due(SPEC) is False
    assert following.certificate_due(spec) is True
    following.took(spec)
    assert following.certificate_due(spec) is False
    assert following.certificate_due(replace(spec, tls=replace(TLS, chain="NEXT"))) is True
    following.ask(spec)
    following.adopt(spec)  # found running: who knows with which certificate
    assert following.certificate_due(spec) is True
    assert following.status().generation < following.status().wanted


def test_the_status_says_when_the_certificate_ends(following: Following) -> None:
    own = issue("score.example.com", names=("score.example.com",), ends=NOW + YEAR)
    following.took(RouterSpec(tls=TlsSpec("score.example.com", own.pem, own.key_pem)))
    assert following.status().tls_not_after == (NOW + YEAR).timestamp()
    following.took(RouterSpec(tls=TLS))
    assert following.status().tls_not_after is None
