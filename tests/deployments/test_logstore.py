"""Cursors of the append-only logs: nothing skipped, nothing twice, nothing half."""

import threading
from pathlib import Path

import pytest

from deployments import logstore
from deployments.logstore import LogEntry


def entries(count: int, text: str = "line") -> list[LogEntry]:
    return [LogEntry(float(number), "s", f"{text} {number}") for number in range(count)]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 100])
def test_pages_of_any_size_give_each_line_once(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "log.jsonl"
    logstore.append(path, entries(7, "ünï\ncode"))
    found: list[LogEntry] = []
    cursor = 0
    while True:
        page, cursor = logstore.read(path, cursor, limit)
        assert len(page) <= limit
        if not page:
            break
        found += page
    assert found == entries(7, "ünï\ncode")
    assert cursor == path.stat().st_size


def test_pages_end_where_reading_at_once_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logstore, "_BLOCK", 10)
    monkeypatch.setattr(logstore, "_READ_AT_ONCE", 100)
    path = tmp_path / "log.jsonl"
    logstore.append(path, entries(50))
    found, cursor = logstore.read(path)
    assert 0 < len(found) < 50
    assert logstore.read(path, cursor, 1)[0][0] == entries(50)[len(found)]


def test_a_line_that_is_still_being_written_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    logstore.append(path, entries(1))
    with path.open("ab") as file:
        file.write(b'{"at": 1.0, "source": "s"')
        file.flush()
        found, cursor = logstore.read(path)
        assert found == entries(1)
        assert logstore.read(path, cursor) == ([], cursor)
        file.write(b', "text": "line 1"}\n')
    assert logstore.read(path, cursor)[0] == entries(2)[1:]


def test_a_log_that_is_not_there_has_no_lines_and_one_that_was_removed_begins_anew(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.jsonl"
    assert logstore.read(path, 50) == ([], 0)
    logstore.append(path, entries(1))
    assert logstore.read(path, 10_000)[0] == entries(1)


def test_lines_of_several_writers_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"

    def write(name: str) -> None:
        for number in range(200):
            logstore.append(path, [LogEntry(1.0, name, f"{name * 50} {number}")])

    writers = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found, _ = logstore.read(path)
    assert len(found) == 600
    for name in "abc":
        own = [entry.text for entry in found if entry.source == name]
        assert own == [f"{name * 50} {number}" for number in range(200)]


def test_a_line_too_long_is_cut_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    logstore.append(path, [LogEntry(1.0, "s", "x" * 100_000)])
    ((entry,), _) = logstore.read(path)
    assert entry.text.endswith("(100000 characters, cut)")
    assert len(entry.text) < 70_000
