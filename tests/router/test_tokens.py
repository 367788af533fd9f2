"""What becomes of tokens in HAProxy's maps; in which order."""

import pytest

from deployments.types import AuthSpec, RouterSpec
from router import tokens
from router.tokens import Step, Wanted, outdated, step
from tests.router.fakes import service

A, B = "A" * 64, "B" * 64
NOW = 1_000_000.0
DEMO = frozenset({"demo"})


def entry(jti: str, expires: float = NOW + 60) -> str:
    return f"{int(expires)}:{jti}:token:dan"


def test_what_is_wanted_follows_from_the_settings_and_the_services() -> None:
    spec = RouterSpec(revoked_tokens=("x", "y"))
    services = [
        service("demo", auth=AuthSpec(token_enabled=True)),
        service("keys", auth=AuthSpec()),
        service("open"),
    ]
    assert tokens.wanted(spec, services) == Wanted(frozenset({"x", "y"}), DEMO)


def test_what_is_known_needs_no_command_until_a_minute_has_passed() -> None:
    known = Wanted(frozenset({"x"}), DEMO)
    assert step(known, known, tokens.LOOK_EVERY - 0.01) == Step()
    assert step(known, known, tokens.LOOK_EVERY) == Step(look=True)
    assert step(known, known, None) == Step(look=True)


def test_an_id_is_added_before_what_was_verified_is_looked_through() -> None:
    done = step(Wanted(frozenset({"x"}), DEMO), Wanted(frozenset({"x", "y"}), DEMO), 1.0)
    assert done.first == ("add map revoked.map y revoked",)
    assert done.look
    assert done.last == ()
    assert done.old == ("add map revoked.map y revoked", "clear map tokens.map")


def test_an_id_is_taken_back_without_a_look() -> None:
    done = step(Wanted(frozenset({"x"}), DEMO), Wanted(frozenset(), DEMO), 1.0)
    assert done == Step(last=("del map revoked.map x",))


@pytest.mark.parametrize(
    ("before", "after", "looked"),
    [
        (DEMO, frozenset(), True),
        (DEMO, frozenset({"other"}), True),
        (DEMO, frozenset({"demo", "other"}), False),
        (None, DEMO, True),
    ],
)
def test_a_service_that_takes_no_tokens_any_more_is_a_reason_to_look(
    before: frozenset[str] | None, after: frozenset[str], looked: bool
) -> None:
    done = step(Wanted(takers=before), Wanted(takers=after), 1.0)
    assert done.look is looked
    assert done.old == (("clear map tokens.map",) if looked else ())


def test_what_is_revoked_expired_or_of_nobody_goes_and_the_rest_stays() -> None:
    entries = {
        f"{A}:demo": entry("good"),
        f"{B}:demo": entry("bad"),
        f"{A}:gone": entry("good"),
        f"{'C' * 64}:demo": entry("late", NOW),
        f"{'D' * 64}:demo": entry("just", NOW + 1),
        f"{'E' * 64}:demo": "not of our making",
        f"{'F' * 64}:demo": "",
    }
    known = Wanted(frozenset({"bad"}), DEMO)
    assert outdated(entries, known, NOW) == (
        f"{A}:gone",
        f"{B}:demo",
        f"{'C' * 64}:demo",
        f"{'E' * 64}:demo",
        f"{'F' * 64}:demo",
    )


def test_every_form_of_a_revoked_token_goes() -> None:
    # whoever holds one can write its signature in another way: another digest, the same id
    entries = {f"{A}:demo": entry("bad"), f"{B}:demo": entry("bad")}
    assert len(outdated(entries, Wanted(frozenset({"bad"}), DEMO), NOW)) == 2


def test_a_fresh_haproxy_knows_what_was_verified_and_is_still_good() -> None:
    entries = {f"{A}:demo": entry("good"), f"{B}:demo": entry("bad")}
    known = Wanted(frozenset({"bad", "other"}), DEMO)
    assert tokens.files(known, entries, NOW) == {
        "revoked.map": "bad revoked\nother revoked\n",
        "tokens.map": f"{A}:demo {entry('good')}\n",
    }
