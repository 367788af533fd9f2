"""Project folders as people give them."""

import io
import zipfile

import pytest

from deployments.errors import InvalidInput, NotFound
from deployments.services import sources

pytestmark = pytest.mark.django_db


def zipped(**files: str) -> io.BytesIO:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/"), text)
    return io.BytesIO(data.getvalue())


def test_a_zip_a_folder_and_text_of_the_same_files_are_one_content():
    text = "def run(data): ..."
    first = sources.from_zip(zipped(**{"score.py": text, "lib__a.py": "a"}))
    second = sources.from_files(
        [("proj/lib/a.py", io.BytesIO(b"a")), ("proj/score.py", io.BytesIO(text.encode()))]
    )
    third = sources.from_text({"score.py": text, "lib/a.py": "a"})
    assert first == second == third
    assert sources.listing(first) == [("lib/a.py", 1), ("score.py", len(text))]


@pytest.mark.parametrize("name", ["../x.py", "/etc/x.py", "a/../../x.py", "a\\x.py", "a\nb.py", ""])
def test_a_path_that_leaves_the_folder_is_refused(name):
    archive = zipped(ok="1")
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(zipfile.ZipInfo(name or " "), "x")
    archive.seek(0)
    for give in (
        lambda: sources.from_zip(archive),
        lambda: sources.from_files([(name, io.BytesIO(b"x"))]),
        lambda: sources.from_text({name: "x"}),
    ):
        with pytest.raises(InvalidInput) as caught:
            give()
        assert caught.value.field == "source"


def test_what_is_no_zip_or_empty_is_refused():
    for data in (b"", b"no zip", zipped().getvalue()):
        with pytest.raises(InvalidInput) as caught:
            sources.from_zip(io.BytesIO(data))
        assert caught.value.field == "source"


def test_a_file_given_twice_is_refused():
    with pytest.raises(InvalidInput):
        sources.from_files([("a.py", io.BytesIO(b"1")), ("./a.py", io.BytesIO(b"2"))])


def test_more_than_allowed_is_refused(monkeypatch):
    monkeypatch.setattr(sources, "MOST_BYTES", 10)
    sources.from_files([("a", io.BytesIO(b"x" * 10))])
    with pytest.raises(InvalidInput):
        sources.from_files([("a", io.BytesIO(b"x" * 11))])
    monkeypatch.setattr(sources, "MOST_FILES", 1)
    with pytest.raises(InvalidInput):
        sources.from_files([("a", io.BytesIO(b"1")), ("b", io.BytesIO(b"2"))])


def test_an_edited_file_makes_a_new_content_and_leaves_the_old(client):
    first = sources.from_text({"score.py": "old", "keep.txt": "kept"})
    second = sources.with_text(first, {"score.py": "new\r\nlines"})
    assert sources.read_text(first, "score.py") == "old"
    assert sources.read_text(second, "score.py") == "new\nlines"
    assert sources.read_text(second, "keep.txt") == "kept"


def test_reading_what_is_not_there_or_not_text():
    source = sources.from_zip(zipped(**{"a.py": "a"}))
    with pytest.raises(NotFound):
        sources.read_text(source, "b.py")
    binary = sources.from_files([("a.bin", io.BytesIO(b"\xff\xfe\x00"))])
    with pytest.raises(InvalidInput):
        sources.read_text(binary, "a.bin")


def test_a_missing_entry_script_is_told_what_is_there():
    source = sources.from_zip(zipped(**{"app__main.py": "x", "readme.md": "y"}))
    (problem,) = sources.entry_script_problems(source, "main.py")
    assert problem.field == "entry_script"
    assert "app/main.py" in problem.message
    assert sources.entry_script_problems(source, "app/main.py") == []
