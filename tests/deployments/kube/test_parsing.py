"""Large answers are read without a look for garbage in between, and it is looked for again after."""

import gc
import json
from collections.abc import Iterator

import pytest

from deployments.kube.parsing import parsed

LARGE = json.dumps([{"n": [str(number)]} for number in range(40_000)]).encode()


@pytest.fixture
def looks() -> Iterator[list[str]]:
    found: list[str] = []

    def looked(phase: str, _: dict[str, int]) -> None:
        found.append(phase)

    gc.callbacks.append(looked)
    yield found
    gc.callbacks.remove(looked)


def test_while_a_large_answer_is_read_nobody_looks_for_garbage(looks: list[str]) -> None:
    gc.collect()
    looks.clear()
    found = parsed(LARGE)
    assert len(looks) <= 2  # one look, once it is read
    assert len(found) == 40_000
    assert gc.isenabled()


def test_garbage_is_looked_for_again_after_what_is_no_json() -> None:
    with pytest.raises(json.JSONDecodeError):
        parsed(LARGE + b"]")
    assert gc.isenabled()


def test_whoever_had_switched_it_off_finds_it_off() -> None:
    gc.disable()
    try:
        assert parsed(LARGE)[0] == {"n": ["0"]}
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_small_answer_is_read_as_ever() -> None:
    assert parsed(b'{"a": 1}') == {"a": 1}
