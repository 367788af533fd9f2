"""A cluster's files are read again where something changed, and only there."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from deployments.drivers.process_layout import write_json
from deployments.drivers.process_records import Records, hint


def number(data: Any) -> int:
    return int(data["n"])


def age(folder: Path, seconds: float) -> None:
    """The folder changed last so long ago."""
    then = time.time() - seconds
    os.utime(folder, (then, then))


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        write_json(tmp_path / f"{name}.json", {"n": 1})
    age(tmp_path, 60)
    return tmp_path


@pytest.fixture
def nested(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "replica.json", {"n": 1})
    age(tmp_path, 60)
    return tmp_path


def test_what_did_not_change_is_the_same_object(flat: Path) -> None:
    records = Records(flat, number)
    first = records.read()
    assert first == {"a": 1, "b": 1}
    assert records.read() is first


def test_a_rename_in_a_flat_folder_is_seen_at_once(flat: Path) -> None:
    records = Records(flat, number)
    first = records.read()
    write_json(flat / "b.json", {"n": 2})
    assert records.read() == {"a": 1, "b": 2}
    assert first == {"a": 1, "b": 1}  # a reader keeps what it was given
    (flat / "a.json").unlink()
    assert records.read() == {"b": 2}
    write_json(flat / "c.json", {"n": 3})
    assert records.read() == {"b": 2, "c": 3}


def test_two_changes_within_one_step_of_the_folders_clock_are_both_seen(flat: Path) -> None:
    records = Records(flat, number)
    write_json(flat / "b.json", {"n": 2})
    stands = flat.stat().st_mtime_ns
    assert records.read()["b"] == 2
    write_json(flat / "b.json", {"n": 3})
    os.utime(flat, ns=(stands, stands))  # as if the second fell into the first one's step
    assert records.read()["b"] == 3


def test_an_unchanged_folder_is_not_believed_for_ever(
    flat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records(flat, number)
    records.read()
    stands = flat.stat().st_mtime_ns
    write_json(flat / "b.json", {"n": 2})
    os.utime(flat, ns=(stands, stands))
    assert records.read()["b"] == 1
    later = time.monotonic() + 2.5
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert records.read()["b"] == 2


def test_a_change_in_an_inner_folder_is_seen_within_twelve_times_a_look(nested: Path) -> None:
    records = Records(nested, number, "replica.json")
    assert records.read() == {"a": 1, "b": 1}
    write_json(nested / "b" / "replica.json", {"n": 2})
    end = time.monotonic() + 5
    while records.read()["b"] != 2:
        assert time.monotonic() < end


def test_a_hint_makes_it_seen_at_once(nested: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records(nested, number, "replica.json")
    records.read()
    stopped = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: stopped)
    write_json(nested / "b" / "replica.json", {"n": 2})
    hint(nested)
    assert records.read()["b"] == 2


def test_a_folder_that_is_being_made_is_not_there_yet(nested: Path) -> None:
    (nested / ".new-c").mkdir()
    assert Records(nested, number, "replica.json").read() == {"a": 1, "b": 1}


def test_a_record_that_is_missing_in_its_folder_is_not_passed_over(nested: Path) -> None:
    (nested / "c").mkdir()
    with pytest.raises(FileNotFoundError):
        Records(nested, number, "replica.json").read()


def test_a_file_that_cannot_be_read_is_said_again_and_again(flat: Path) -> None:
    records = Records(flat, number)
    (flat / "b.json").write_text("{", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(ValueError):
            records.read()


def test_no_folder_is_a_new_cluster(tmp_path: Path) -> None:
    records = Records(tmp_path / "none", number)
    assert records.read() == {}
    (tmp_path / "none").mkdir()
    write_json(tmp_path / "none" / "a.json", {"n": 1})
    assert records.read() == {"a": 1}
