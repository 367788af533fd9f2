"""What a replica's workers say of themselves; the file is loaded as gunicorn loads it."""

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from deployments.agent import command

CONF = Path(command.__file__).with_name("gunicorn_conf.py")


class FileWrapper:
    """What gunicorn sends with sendfile()."""


@pytest.fixture
def conf(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("WORKER_COUNT", "1")
    monkeypatch.delenv("SLIPWAY_CELLS", raising=False)
    spec = importlib.util.spec_from_file_location("conf", CONF)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Answer:
    """Two pieces, and whether it was closed."""

    closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield b"a"
        yield b"b"

    def close(self) -> None:
        self.closed = True


def worker_of(conf: ModuleType, answer: object) -> SimpleNamespace:
    made = SimpleNamespace(wsgi=lambda environ, start: answer, notified=0)
    made.notify = lambda: setattr(made, "notified", made.notified + 1)
    conf.pre_fork(None, made)
    conf.post_worker_init(made)
    conf.pre_request(made, None)
    return made


def ask(worker: SimpleNamespace) -> object:
    return worker.wsgi({"wsgi.file_wrapper": FileWrapper}, None)


def test_a_worker_that_streams_says_that_it_lives_with_a_piece_once_a_second(conf, monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr(conf.time, "monotonic", lambda: now)
    answer = Answer()
    worker = worker_of(conf, answer)
    begun = conf._cells[0]
    pieces = ask(worker)
    now += 0.99
    assert next(pieces) == b"a"
    assert (conf._cells[0], worker.notified) == (begun, 0)
    now += 0.01
    assert next(pieces) == b"b"
    assert (conf._cells[0], worker.notified) == (int(now * 1e6), 1)
    with pytest.raises(StopIteration):
        next(pieces)
    pieces.close()
    assert answer.closed


@pytest.mark.parametrize("whole", [[b"a"], (b"a", b"b"), FileWrapper()])
def test_an_answer_that_is_there_as_a_whole_is_passed_as_it_is(conf, whole):
    assert ask(worker_of(conf, whole)) is whole
