"""A container's output in its replica's log: each line once, whoever was reading meanwhile."""

import json
from collections.abc import Iterator

from deployments.agent.container_logs import Follower, last_stamp
from deployments.drivers import process_logs
from deployments.errors import NotFound, Unavailable


def stamp(number: int) -> str:
    return f"2026-11-22T20:00:{number:02d}.000000001Z"


class FakeEngine:
    """Says `lines`; goes away once after `cut` of them."""

    def __init__(self, lines: list[tuple[str, str]], cut: int | None = None) -> None:
        self.lines, self.cut, self.asked = lines, cut, []

    def logs(self, container: str, since: str = "") -> Iterator[tuple[str, str, str]]:
        self.asked.append(since)
        for number, (stream, text) in enumerate(self.lines):
            if stamp(number) < since:
                continue
            if self.cut is not None and number == self.cut:
                self.cut = None
                raise Unavailable("The Engine went away.")
            yield stream, stamp(number), text


def follow(engine: FakeEngine, folder, run: int = 1) -> None:
    follower = Follower(engine, "c" * 12, folder, run)  # type: ignore[arg-type]
    assert follower.done.wait(10)


def texts(folder) -> list[str]:
    return [line.text for line in process_logs.read(folder, "r").lines]


def test_lines_keep_their_stream_and_the_time_they_were_said(tmp_path):
    follow(FakeEngine([("o", "one\n"), ("e", "two\r\n")]), tmp_path)
    one, two = process_logs.read(tmp_path, "r").lines
    assert (one.stream, one.text, two.stream, two.text) == ("stdout", "one", "stderr", "two")
    assert two.at - one.at == 1.0


def test_pieces_of_a_long_line_are_one_line_and_a_torn_end_is_kept(tmp_path):
    follow(FakeEngine([("o", "lo"), ("e", "other\n"), ("o", "ng\n"), ("o", "torn")]), tmp_path)
    assert texts(tmp_path) == ["other", "long", "torn"]


def test_an_engine_that_goes_away_is_read_on_without_a_line_twice(tmp_path):
    engine = FakeEngine([("o", f"{number}\n") for number in range(6)], cut=3)
    follow(engine, tmp_path)
    assert texts(tmp_path) == [str(number) for number in range(6)]
    assert engine.asked == ["", stamp(2)]


def test_an_agent_that_comes_back_goes_on_after_the_last_line_of_that_run(tmp_path):
    lines = [("o", f"{number}\n") for number in range(3)]
    follow(FakeEngine(lines), tmp_path)
    follow(FakeEngine([*lines, ("o", "3\n")]), tmp_path)
    assert texts(tmp_path) == ["0", "1", "2", "3"]
    follow(FakeEngine([("o", "of the next run\n")]), tmp_path, run=2)
    assert texts(tmp_path)[-1] == "of the next run"
    assert last_stamp(tmp_path, 2) == stamp(0)
    assert last_stamp(tmp_path, 3) == ""


def test_a_torn_last_line_of_the_log_is_passed_over(tmp_path):
    follow(FakeEngine([("o", "one\n")]), tmp_path)
    (path,) = tmp_path.glob("*.jsonl")
    with path.open("a") as file:
        file.write(json.dumps({"n": 2, "e": "never"})[:-3])
    assert last_stamp(tmp_path, 1) == stamp(0)


def test_a_container_that_is_gone_has_said_all(tmp_path):
    class Gone(FakeEngine):
        def logs(self, container: str, since: str = "") -> Iterator[tuple[str, str, str]]:
            raise NotFound("No such container.")

    follow(Gone([]), tmp_path)
    assert texts(tmp_path) == []
