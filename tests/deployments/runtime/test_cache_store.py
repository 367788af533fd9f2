"""What is kept on a node's disk, and what goes when there is no room."""

import hashlib
import os
import threading
from pathlib import Path

import pytest

from deployments.runtime.cache_store import Coming, NotHere, Store


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def keep(store: Store, data: bytes) -> str:
    claim, coming = store.claim_or_begin(sha(data))
    with claim:
        assert coming is not None
        store.begins(coming, len(data))
        coming.add(data)
        assert store.ends(sha(data), coming) is None
    return sha(data)


def given_up(store: Store, sha256: str, coming: Coming) -> None:
    store.ends(sha256, coming, NotHere(502, "given up"))


def made(folder: Path, limit: int = 100) -> Store:
    return Store(folder, limit, spare=0.0)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    store = made(tmp_path)
    first, second = keep(store, b"a" * 40), keep(store, b"b" * 40)
    store._kept[first].used, store._kept[second].used = 1.0, 2.0
    read = store.claim(first)
    assert read is not None
    read.close()
    third = keep(store, b"c" * 40)
    assert names(tmp_path) == {first, third}
    assert store.used() == 80


def test_what_just_fits_removes_nothing(tmp_path: Path) -> None:
    store = made(tmp_path)
    kept = {keep(store, b"a" * 50), keep(store, b"b" * 50)}
    assert names(tmp_path) == kept
    kept = keep(store, b"c")
    assert kept in names(tmp_path)
    assert len(names(tmp_path)) == 2


def test_what_somebody_reads_stays_and_nothing_goes_for_what_would_not_fit(tmp_path: Path) -> None:
    store = made(tmp_path)
    first, second = keep(store, b"a" * 60), keep(store, b"b" * 30)
    with store.claim(first):
        claim, coming = store.claim_or_begin("0" * 64)
        with claim, pytest.raises(NotHere) as refused:
            store.begins(coming, 41)
        store.ends("0" * 64, coming, refused.value)
        assert refused.value.status == 507
        assert names(tmp_path) == {first, second}
    third = keep(store, b"c" * 41)
    assert third in names(tmp_path)


def test_what_comes_has_its_room_from_the_moment_that_it_begins(tmp_path: Path) -> None:
    store = made(tmp_path)
    one, coming = store.claim_or_begin("1" * 64)
    other, late = store.claim_or_begin("2" * 64)
    with one, other:
        store.begins(coming, 60)
        with pytest.raises(NotHere):
            store.begins(late, 41)
        store.begins(late, 40)
        given_up(store, "1" * 64, coming)
        given_up(store, "2" * 64, late)


def test_a_disk_that_fills_up_takes_room_from_the_limit(tmp_path: Path) -> None:
    store = Store(tmp_path, 1 << 60, spare=1.0)  # all of the disk is to be left free
    claim, coming = store.claim_or_begin("1" * 64)
    with claim, pytest.raises(NotHere):
        store.begins(coming, 1)
    given_up(store, "1" * 64, coming)


def test_two_that_ask_share_one_that_brings_and_read_while_it_comes(tmp_path: Path) -> None:
    store, data = made(tmp_path), b"x" * 90
    first, coming = store.claim_or_begin(sha(data))
    second, none = store.claim_or_begin(sha(data))
    assert none is None
    store.begins(coming, len(data))
    assert second.size(1) == 90
    coming.add(data[:50])
    chunks = second.chunks(10, 5.0)
    assert next(chunks) == data[10:50]
    rest: list[bytes] = []
    reader = threading.Thread(target=lambda: rest.extend(chunks))
    reader.start()
    coming.add(data[50:])
    store.ends(sha(data), coming)
    reader.join(5)
    assert b"".join(rest) == data[50:]
    assert b"".join(first.chunks(0, 1.0)) == data
    first.close()
    second.close()
    assert store._claims == {}


def test_wrong_bytes_get_no_name_and_their_readers_hear_of_it(tmp_path: Path) -> None:
    store = made(tmp_path)
    claim, coming = store.claim_or_begin(sha(b"right"))
    store.begins(coming, 5)
    coming.add(b"wrong")
    failed = store.ends(sha(b"right"), coming)
    assert failed is not None
    assert failed.status == 502
    with claim, pytest.raises(NotHere):
        list(claim.chunks(0, 1.0))
    assert names(tmp_path) == set()
    keep(store, b"right")  # and it may be brought again


def test_what_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    store = made(tmp_path)
    claim, coming = store.claim_or_begin("1" * 64)
    with claim:
        with pytest.raises(NotHere):
            claim.size(0.01)
        store.begins(coming, 10)
        with pytest.raises(NotHere):
            list(claim.chunks(0, 0.01))
    given_up(store, "1" * 64, coming)


def test_an_empty_content_is_one(tmp_path: Path) -> None:
    store = made(tmp_path)
    kept = keep(store, b"")
    with store.claim(kept) as claim:
        assert list(claim.chunks(0, 1.0)) == []


def test_one_that_starts_again_knows_what_it_has_and_sweeps_halves(tmp_path: Path) -> None:
    store = made(tmp_path)
    first, second = keep(store, b"a" * 40), keep(store, b"b" * 40)
    os.utime(tmp_path / first, (2, 2))
    os.utime(tmp_path / second, (1, 1))
    (tmp_path / "1111.part").touch()  # and the process is killed
    again = made(tmp_path)
    assert names(tmp_path) == {first, second}
    third = keep(again, b"c" * 40)
    assert names(tmp_path) == {first, third}


def test_what_somebody_doubts_is_verified_and_goes_if_it_is_wrong(tmp_path: Path) -> None:
    store = made(tmp_path)
    good, bad = keep(store, b"good"), keep(store, b"fine")
    (tmp_path / bad).chmod(0o644)
    (tmp_path / bad).write_bytes(b"fin.")
    assert not store.doubt(bad)  # it was verified just now
    for kept in store._kept.values():
        kept.sound = float("-inf")
    assert store.doubt(bad)
    assert not store.doubt(good)
    assert not store.doubt("0" * 64)
    assert names(tmp_path) == {good}
    assert store.claim(bad) is None


def test_what_went_without_our_doing_is_brought_again(tmp_path: Path) -> None:
    store = made(tmp_path)
    kept = keep(store, b"gone")
    (tmp_path / kept).unlink()
    claim, coming = store.claim_or_begin(kept)
    claim.close()
    assert coming is not None
    given_up(store, kept, coming)
