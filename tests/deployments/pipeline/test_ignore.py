"""Which files of a project folder are sent."""

from pathlib import Path

import pytest

from deployments.errors import PermanentError
from deployments.pipeline.archive import write_zip
from deployments.pipeline.ignore import select


def folder(root: Path, **files: str) -> Path:
    """Files by name; "__" stands for "/", a leading "DOT" for "."."""
    for name, text in files.items():
        path = root / name.replace("DOT", ".").replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "kept", "rules"),
    [
        ({"a": "", "b__c": ""}, ["a", "b/c"], ""),
        ({"DOTgitignore": "*.log\n", "a": "", "b__x.log": ""}, [".gitignore", "a"], ".gitignore"),
        ({"DOTamlignore": "*.log\n", "a": "", "x.log": ""}, [".amlignore", "a"], ".amlignore"),
        # .amlignore wins: .gitignore says nothing beside it
        (
            {"DOTamlignore": "*.csv\n", "DOTgitignore": "*.py\n", "a.py": "", "a.csv": ""},
            [".amlignore", ".gitignore", "a.py"],
            ".amlignore",
        ),
        (
            {"DOTgitignore": "*.log\n!keep.log\n", "keep.log": "", "x.log": ""},
            [".gitignore", "keep.log"],
            ".gitignore",
        ),
        # a folder that is left out is not looked into
        (
            {"DOTgitignore": "build/\n!build/a\n", "build__a": "", "c": ""},
            [".gitignore", "c"],
            ".gitignore",
        ),
        ({"DOTgitignore": "/x\n", "x": "", "d__x": ""}, [".gitignore", "d/x"], ".gitignore"),
        # a nearer .gitignore has the last word in its folder
        (
            {"DOTgitignore": "*.csv\n", "d__DOTgitignore": "!*.csv\n", "a.csv": "", "d__a.csv": ""},
            [".gitignore", "d/.gitignore", "d/a.csv"],
            ".gitignore",
        ),
        ({"DOTgit__config": "", "a": ""}, ["a"], ""),
        ({"DOTamlignore": "", "DOTgit__config": "", "a": ""}, [".amlignore", "a"], ".amlignore"),
    ],
)
def test_what_is_kept(tmp_path, files, kept, rules):
    selection = select(folder(tmp_path, **files))
    assert (list(selection.files), selection.rules) == (kept, rules)
    assert selection.ignored == len(files) - len(kept)


def test_an_ignore_file_that_is_not_text_is_named(tmp_path):
    (tmp_path / ".amlignore").write_bytes(b"\xff\xfe")
    with pytest.raises(PermanentError, match="amlignore"):
        select(tmp_path)


def test_the_same_files_make_the_same_bytes(tmp_path):
    import os

    one = folder(tmp_path / "one", a="1", b__c="2")
    two = folder(tmp_path / "two", b__c="2", a="1")
    os.utime(two / "a", (1, 1))
    (two / "a").chmod(0o755)
    for root in (one, two):
        write_zip(root / "z.zip", [(name, root / name) for name in ("b/c", "a")])
    assert (one / "z.zip").read_bytes() == (two / "z.zip").read_bytes()
