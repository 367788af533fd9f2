"""A cursor repeats nothing and counts what rotated away; the writer is the shim's own."""

import time
from pathlib import Path

import pytest

from deployments.agent.shim import LONGEST_LINE, Log
from deployments.drivers import process_logs
from deployments.drivers.process import ProcessDriver
from deployments.errors import InvalidInput, NotFound


def read(folder: Path, cursor: str = "", limit: int = 1000, *, previous: bool = False):
    return process_logs.read(folder, "r", cursor=cursor, limit=limit, previous=previous)


def before(folder: Path, ended: float):
    return process_logs.read(folder, "r", previous=True, ended=ended)


def texts(page) -> list[str]:
    return [line.text for line in page.lines]


def write(log: Log, *lines: str) -> None:
    log.feed("o", "".join(f"{line}\n" for line in lines).encode())


def test_nothing_written_is_an_empty_page(tmp_path):
    page = read(tmp_path / "log")
    assert (page.lines, page.lost) == ((), 0)
    assert texts(read(tmp_path / "log", page.cursor)) == []


def test_pages_follow_each_other_without_gap_or_repeat(tmp_path):
    log = Log(tmp_path, 1, 1000, 3)
    write(log, *(f"line {i}" for i in range(10)))
    first = read(tmp_path, limit=4)
    second = read(tmp_path, first.cursor, limit=4)
    third = read(tmp_path, second.cursor)
    assert texts(first) + texts(second) + texts(third) == [f"line {i}" for i in range(10)]
    assert texts(read(tmp_path, third.cursor)) == []
    write(log, "later")
    assert texts(read(tmp_path, third.cursor)) == ["later"]


def test_a_cursor_survives_rotation_and_counts_what_was_lost(tmp_path):
    log = Log(tmp_path, 1, 300, 3)
    write(log, "line 0")
    seen = read(tmp_path)
    for i in range(1, 100):
        write(log, f"line {i}")
    page = read(tmp_path, seen.cursor)
    got = texts(page)
    assert got[-1] == "line 99"
    assert page.lost == 99 - len(got) > 0
    assert got == [f"line {i}" for i in range(100 - len(got), 100)]
    assert read(tmp_path).lost == 0
    assert texts(read(tmp_path)) == got


def test_a_cursor_at_the_end_of_a_segment_goes_on_in_the_next(tmp_path):
    log = Log(tmp_path, 1, 120, 100)
    cursor, got = "", []
    for i in range(30):
        write(log, f"line {i}")
        page = read(tmp_path, cursor)
        assert page.lost == 0
        cursor = page.cursor
        got += texts(page)
    assert got == [f"line {i}" for i in range(30)]
    assert len(process_logs.segments(tmp_path)) > 5


def test_what_is_kept_stays_under_the_limit(tmp_path):
    log = Log(tmp_path, 1, 1000, 3)
    for i in range(1000):
        write(log, f"line {i}")
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert sum(sizes) <= 3 * (1000 + 100)


def test_a_new_run_goes_on_counting_and_the_previous_one_can_be_read_alone(tmp_path):
    write(Log(tmp_path, 1, 1000, 3), "first run")
    cursor = read(tmp_path).cursor
    write(Log(tmp_path, 2, 1000, 3), "second run")
    write(Log(tmp_path, 10, 1000, 3), "tenth run")
    assert texts(read(tmp_path, cursor)) == ["second run", "tenth run"]
    assert texts(read(tmp_path, previous=True)) == ["second run"]
    assert process_logs.tail(tmp_path, run=10) == "tenth run"


def test_the_run_before_is_the_one_that_ended_also_while_its_successor_is_silent(tmp_path):
    write(Log(tmp_path, 1, 1000, 3), "older")
    write(Log(tmp_path, 2, 1000, 3), "crashed")
    now = time.time()
    assert texts(before(tmp_path, now + 5)) == ["crashed"]
    assert texts(before(tmp_path, 1.5)) == []
    assert texts(before(tmp_path, float(int(now) + 1))) == ["crashed"]


def test_a_first_run_has_no_previous_one(tmp_path):
    write(Log(tmp_path, 1, 1000, 3), "only run")
    assert texts(read(tmp_path, previous=True)) == []


def test_a_line_that_is_still_being_written_is_not_read(tmp_path):
    log = Log(tmp_path, 1, 1000, 3)
    write(log, "whole")
    (segment,) = tmp_path.iterdir()
    with segment.open("ab") as file:
        file.write(b'{"n":2,"at":1,"s":"o","t":"ha')
    page = read(tmp_path)
    assert texts(page) == ["whole"]
    assert texts(read(tmp_path, page.cursor)) == []
    write(Log(tmp_path, 2, 1000, 3), "after the kill")
    assert texts(read(tmp_path, page.cursor)) == ["after the kill"]


def test_streams_are_told_apart_and_pieces_joined(tmp_path):
    log = Log(tmp_path, 1, 1000, 3)
    log.feed("o", b"one ")
    log.feed("e", b"error\n")
    log.feed("o", b"line\r\nrest without end")
    log.feed("o", b"")
    assert [(line.stream, line.text) for line in read(tmp_path).lines] == [
        ("stderr", "error"),
        ("stdout", "one line"),
        ("stdout", "rest without end"),
    ]


def test_a_very_long_line_is_cut_into_pieces(tmp_path):
    log = Log(tmp_path, 1, 10**7, 3)
    log.feed("o", b"x" * (2 * LONGEST_LINE + 10) + b"\n")
    assert [len(line) for line in texts(read(tmp_path))] == [LONGEST_LINE, LONGEST_LINE, 10]


def test_bytes_that_are_no_text_are_shown_all_the_same(tmp_path):
    log = Log(tmp_path, 1, 1000, 3)
    log.feed("o", b"\xff\xfe ok\n")
    assert texts(read(tmp_path)) == ["\ufffd\ufffd ok"]


def test_a_full_disk_loses_lines_says_how_many_and_stops_nothing(tmp_path, monkeypatch):
    log = Log(tmp_path, 1, 1000, 3)
    write(log, "before")
    cursor = read(tmp_path).cursor
    real = log.descriptor
    log.descriptor = full = __import__("os").open("/dev/full", 1)
    write(log, "lost 1", "lost 2")
    log.descriptor = real
    __import__("os").close(full)
    write(log, "after")
    page = read(tmp_path, cursor)
    assert texts(page) == ["slipway: 2 lines were lost: the log could not be written", "after"]
    assert page.lost == 2


@pytest.mark.parametrize("cursor", ["x", "1:2", "1:a:b", "-1:a:0", "1:a:0:0"])
def test_a_cursor_from_elsewhere_is_refused(tmp_path, cursor):
    with pytest.raises(InvalidInput):
        read(tmp_path, cursor)


def test_a_cursor_that_names_a_path_reads_only_the_log(tmp_path):
    write(Log(tmp_path / "log", 1, 1000, 3), "mine")
    (tmp_path / "secret.jsonl").write_text('{"n":9,"at":1,"s":"o","t":"secret"}\n')
    assert texts(read(tmp_path / "log", "0:../secret.jsonl:0")) == ["mine"]


def test_the_driver_reads_replicas_that_are_gone_too(tmp_path):
    driver = ProcessDriver(tmp_path)
    driver.folder.ensure()
    write(Log(driver.folder.gone / "diabetes-r1-abcde" / "log", 1, 1000, 3), "last words")
    assert texts(driver.logs("diabetes-r1-abcde")) == ["last words"]
    with pytest.raises(NotFound):
        driver.logs("diabetes-r1-zzzzz")
