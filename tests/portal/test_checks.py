"""What `manage.py check` says, and about what it is silent."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from django.core.management import call_command
from pytest_django import Settings

from deployments.home import Home
from portal import checks
from router.checks import haproxy_is_there


def _ids(messages: list) -> list[str]:
    return [message.id for message in messages]


@pytest.mark.parametrize(
    ("name", "said"),
    [("SLIPWAY_BNID", [("SLIPWAY_BNID", "SLIPWAY_BIND")]), ("SLIPWAY_XYZZY_QQ", [("SLIPWAY_XYZZY_QQ", "")]),
     ("SLIPWAY_BIND", []), ("SLIPWAY_SECRET_KEY_FILE", []),
     ("SLIPWAY_BIND_FILE", [("SLIPWAY_BIND_FILE", "SLIPWAY_BIND")]),
     ("SLIPWAY_TEST_SCORING_VENV", []), ("PATH", [])],
)  # fmt: skip
def test_a_misspelt_setting_is_named_with_its_neighbour(name: str, said: list) -> None:
    assert checks.unknown([name]) == said


def test_the_warning_tells_the_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_BNID", "secret value")
    (message,) = [m for m in checks.variables_are_known() if "SLIPWAY_BNID" in m.msg]
    assert message.id == "slipway.W001"
    assert message.hint == "Did you mean SLIPWAY_BIND?"
    assert "secret value" not in message.msg


@pytest.mark.parametrize(
    ("url", "ids"),
    [("redis://localhost:6379/0", []), ("unix:///tmp/x.sock?db=0", []), ("rediss://h/1", []),
     ("http://:hunter2@x", ["slipway.E002"]), ("localhost:6379", ["slipway.E002"])],
)  # fmt: skip
def test_a_redis_address_that_is_none(url: str, ids: list[str], settings: Settings) -> None:
    settings.REDIS_URL = url
    messages = checks.redis_address_is_one()
    assert _ids(messages) == ids
    assert "hunter2" not in str(messages)


def test_a_home_that_cannot_be_written_to(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.HOME = Home(tmp_path)
    settings.HOME.ensure()
    assert checks.home_is_writable() == []
    # root may write anywhere, so the answer is stubbed
    monkeypatch.setattr(checks.os, "access", lambda path, mode: path != settings.HOME.store)
    assert _ids(checks.home_is_writable()) == ["slipway.E003"]


@pytest.mark.parametrize(
    ("debug", "bind", "ids"),
    [(True, "0.0.0.0", ["slipway.W002"]), (True, "portal.example", ["slipway.W002"]), (True, "127.0.0.1", []),
     (True, "localhost", []), (True, "[::1]", []), (False, "0.0.0.0", [])],
)  # fmt: skip
def test_debug_pages_stay_on_this_machine(
    debug: bool, bind: str, ids: list[str], settings: Settings
) -> None:
    settings.DEBUG = debug
    settings.ENV = SimpleNamespace(bind=bind)
    assert _ids(checks.debug_stays_at_home()) == ids


def test_a_haproxy_that_is_none_is_an_error_with_a_hint(settings: Settings) -> None:
    settings.ENV = SimpleNamespace(haproxy_bin="/bin/true")
    (message,) = haproxy_is_there()
    assert message.id == "slipway.E001"
    assert "/bin/true" in message.msg


def test_the_product_passes_its_own_checks() -> None:
    call_command("check", fail_level="WARNING")
