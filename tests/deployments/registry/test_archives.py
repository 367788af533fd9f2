"""Paths and zips from outside are made safe or refused."""

import io
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.errors import InvalidInput
from deployments.registry.archives import LONGEST_PATH, safe_relative_path, unpack_zip


@pytest.mark.parametrize(
    ("given_path", "safe"),
    [
        ("a", "a"),
        ("a/b/c.txt", "a/b/c.txt"),
        ("./a//b/./c", "a/b/c"),
        ("a/", "a"),
        ("..a/b..", "..a/b.."),
        ("with space/ünï", "with space/ünï"),
        ("x" * 255, "x" * 255),
        ("/".join(["abc"] * 200), "/".join(["abc"] * 200)),  # 799 bytes
    ],
)
def test_good_paths(given_path, safe):
    assert safe_relative_path(given_path) == safe


@pytest.mark.parametrize(
    "path",
    ["", " ", "/", ".", "./.", "/etc/passwd", "../a", "a/../b", "a/..", "..", "C:/x", "c:x", "a\\b",
     "..\\a", "a\0b", "a\nb", "a\u202eb", "x" * 256, "ü" * 128, "/".join(["abc"] * 200) + "/x"],
)  # fmt: skip
def test_bad_paths(path):
    with pytest.raises(InvalidInput):
        safe_relative_path(path)


@given(st.text(max_size=60))
def test_a_path_that_is_taken_stays_in_its_folder(text):
    try:
        path = safe_relative_path(text)
    except InvalidInput:
        return
    folder = Path("/folder")
    assert (folder / path).resolve().is_relative_to(folder)
    assert (folder / path).resolve() != folder
    assert len(path.encode()) <= LONGEST_PATH
    assert safe_relative_path(path) == path


def _zip(*entries: tuple[str | zipfile.ZipInfo, bytes], how: int = zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    buffer.seek(0)
    return buffer


def test_a_plain_zip_is_unpacked(tmp_path):
    source = _zip(("src/", b""), ("src/score.py", b"x = 1"), ("./readme", b"hi"))
    assert unpack_zip(source, tmp_path / "out", max_bytes=7, max_files=2) == [
        "readme",
        "src/score.py",
    ]
    assert (tmp_path / "out/src/score.py").read_bytes() == b"x = 1"


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "a\\..\\evil", "C:evil"])
def test_path_tricks_are_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(InvalidInput):
        unpack_zip(_zip(("fine", b"1"), (name, b"2")), tmp_path / "out", max_bytes=9, max_files=9)
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(InvalidInput, match="link"):
        unpack_zip(_zip((link, b"/etc/passwd")), tmp_path, max_bytes=99, max_files=9)


def test_a_bomb_is_refused_before_a_byte_is_written(tmp_path):
    source = _zip(("big", b"\0" * 1_000_000))
    assert len(source.getvalue()) < 2000
    with pytest.raises(InvalidInput, match="more than 999,999 bytes"):
        unpack_zip(source, tmp_path / "out", max_bytes=999_999, max_files=9)
    assert not (tmp_path / "out").exists()
    unpack_zip(source, tmp_path / "again", max_bytes=1_000_000, max_files=9)


def test_a_bomb_that_lies_about_its_size_is_stopped(tmp_path):
    raw = bytearray(_zip(("big", b"\0" * 1_000_000)).getvalue())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = raw.index(signature) + offset
        raw[at : at + 4] = (10).to_bytes(4, "little")
    with pytest.raises(InvalidInput):
        unpack_zip(io.BytesIO(bytes(raw)), tmp_path, max_bytes=500, max_files=9)
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) <= 500


def test_too_many_files_are_refused(tmp_path):
    entries = [(f"f{i}", b"") for i in range(4)]
    unpack_zip(_zip(*entries[:3]), tmp_path / "fits", max_bytes=9, max_files=3)
    with pytest.raises(InvalidInput, match="4 files"):
        unpack_zip(_zip(*entries), tmp_path / "out", max_bytes=9, max_files=3)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("a", "a"), ("a", "./a"), ("a", "a/b")])
def test_a_path_given_twice_is_refused(tmp_path, names):
    with pytest.raises(InvalidInput, match="more than once"):
        unpack_zip(_zip(*((n, b"") for n in names)), tmp_path, max_bytes=9, max_files=9)


def test_what_is_no_zip_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="not a zip"):
        unpack_zip(io.BytesIO(b"hello"), tmp_path, max_bytes=9, max_files=9)


def test_a_damaged_zip_is_refused(tmp_path):
    raw = bytearray(_zip(("a", b"hello hello hello"), how=zipfile.ZIP_STORED).getvalue())
    at = raw.index(b"hello")
    raw[at : at + 5] = b"HELLO"
    with pytest.raises(InvalidInput, match="damaged"):
        unpack_zip(io.BytesIO(bytes(raw)), tmp_path, max_bytes=99, max_files=9)


def test_an_encrypted_zip_is_refused(tmp_path):
    raw = bytearray(_zip(("a", b"hello"), how=zipfile.ZIP_STORED).getvalue())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(signature) + offset] |= 1
    with pytest.raises(InvalidInput, match="encrypted"):
        unpack_zip(io.BytesIO(bytes(raw)), tmp_path, max_bytes=99, max_files=9)
