"""The loop's kept state comes back as it was, and a broken file is no obstacle."""

import logging
from pathlib import Path

import pytest

from router.haproxy.render import BackendShape
from router.haproxy.slots import Slot, State
from router.state import RouterState, load, save

STATE = RouterState(
    backends={"demo/default": "be_0001"},
    shapes=(BackendShape(500, 8),),
    slots=(Slot("be_0001", "s1", State.DRAINING, "a", "127.0.0.1:41001", 2, 3.5),),
    start_seconds={"demo/default": 4.2},
    concurrency={"demo/1": 2},
)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    save(tmp_path / "router" / "state.json", STATE)
    assert load(tmp_path / "router" / "state.json") == STATE
    assert [path.name for path in (tmp_path / "router").iterdir()] == ["state.json"]


def test_no_file_is_an_empty_state(tmp_path: Path) -> None:
    assert load(tmp_path / "state.json") == RouterState()


@pytest.mark.parametrize("text", ["", "{", '{"backends": 5}', '{"slots": [{"state": "odd"}]}'])
def test_a_broken_file_is_said_and_left_behind(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    with caplog.at_level(logging.WARNING):
        assert load(path) == RouterState()
    assert str(path) in caplog.text
