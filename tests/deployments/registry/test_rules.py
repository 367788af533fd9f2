"""What a version may look like, and where each refusal points."""

import pytest

from deployments.errors import InvalidInput
from deployments.registry import rules
from deployments.registry.models import Framework


@pytest.mark.parametrize(
    ("paths", "hint"),
    [
        (["model.pkl"], Framework.SCIKIT_LEARN),
        (["a/Model.JOBLIB", "readme.md"], Framework.SCIKIT_LEARN),
        (["net.onnx", "labels.txt"], Framework.ONNX),
        (["saved/saved_model.pb", "saved/variables/x.index"], Framework.TENSORFLOW),
        (["other.pb"], None),
        (["model.pkl", "net.onnx"], None),
        (["model.bin"], None),
        ([], None),
    ],
)
def test_file_names_suggest_a_framework(paths, hint):
    assert rules.framework_hint(paths) == hint


def test_a_chosen_framework_wins_over_the_names():
    assert rules.checked_framework("Onnx", ["model.pkl"]) == Framework.ONNX


def test_no_framework_and_no_hint_is_custom():
    assert rules.checked_framework("", ["model.bin"]) == Framework.CUSTOM


def test_an_unknown_framework_is_refused():
    with pytest.raises(InvalidInput) as caught:
        rules.checked_framework("PyTorch", [])
    assert caught.value.field == "framework"


def test_the_content_hash_ignores_order_and_tells_paths_and_contents_apart():
    base = rules.content_hash([("a", "1"), ("b", "2")])
    assert base == rules.content_hash([("b", "2"), ("a", "1")])
    assert base != rules.content_hash([("a", "2"), ("b", "1")])
    assert base != rules.content_hash([("a", "1"), ("c", "2")])


@pytest.mark.parametrize("name", ["a", "Model_1.2-x", "9", "x" * 255])
def test_good_names(name):
    assert rules.checked_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a/b", "ä", "a\n", "x" * 256])
def test_bad_names(name):
    with pytest.raises(InvalidInput) as caught:
        rules.checked_name(name)
    assert caught.value.field == "name"


def test_no_files_are_refused():
    with pytest.raises(InvalidInput, match="at least one file"):
        rules.checked_paths([])


def test_the_most_files_are_taken_and_one_more_is_refused():
    paths = [f"f{i}" for i in range(rules.MAX_FILES)]
    assert len(rules.checked_paths(paths)) == rules.MAX_FILES
    with pytest.raises(InvalidInput, match="10,001 files"):
        rules.checked_paths([*paths, "one-more"])


@pytest.mark.parametrize("paths", [["a", "a"], ["a", "./a"], ["a/b", "a"], ["a", "a/b/c"]])
def test_paths_that_clash_are_refused(paths):
    with pytest.raises(InvalidInput, match="'a'") as caught:
        rules.checked_paths(paths)
    assert caught.value.field == "files"


def test_tags_come_from_lines_and_go_back():
    tags = rules.parsed_tags("team = vision\n\nurl=http://x/?a=b\nold\n")
    assert tags == {"team": "vision", "url": "http://x/?a=b", "old": ""}
    assert rules.parsed_tags(rules.tags_as_text(tags)) == tags


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=1\n=2", "Line 2 has no name"),
        ("a=1\na=2", "Line 2: the tag 'a' is given twice"),
        (f"{'n' * 101}=1", "too long"),
        (f"n={'v' * 251}", "too long"),
        ("\n".join(f"t{i}" for i in range(51)), "at most 50"),
    ],
)
def test_bad_tags_say_where(text, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        rules.parsed_tags(text)
    assert caught.value.field == "tags"


def test_sample_input_may_be_empty_or_json():
    assert rules.checked_sample_input("  \n") == ""
    assert rules.checked_sample_input('{"data": [1]}') == '{"data": [1]}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n  "data": [1, 2,]\n}', "line 2, column 17"),
        ("{'data': 1}", "line 1, column 2"),
        ('{"x": NaN}', "NaN is not a JSON value"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_bad_sample_input_says_line_and_column(text, message):
    with pytest.raises(InvalidInput, match=message) as caught:
        rules.checked_sample_input(text)
    assert caught.value.field == "sample_input"


@pytest.mark.parametrize("text", ["1.9.1", " 2.20.0rc1 ", ""])
def test_good_framework_versions(text):
    assert rules.checked_framework_version(text) == text.strip()


@pytest.mark.parametrize("text", ["1.9 or so", "x" * 41, "1\t2"])
def test_bad_framework_versions(text):
    with pytest.raises(InvalidInput):
        rules.checked_framework_version(text)
