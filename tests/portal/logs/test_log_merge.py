"""Several logs become one, by time, a prefix of each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.log_merge import Line, Part, as_text, merge, plain


def part(source: str, *times: float, ended: bool = True) -> Part:
    return Part([Line(at, source, "", f"{source}{at}") for at in times], ended)


def sources(lines: list[Line]) -> str:
    return "".join(line.source for line in lines)


def test_lines_come_in_the_order_of_time() -> None:
    lines, taken = merge([part("a", 1, 4), part("b", 2, 3, 5)], 10)
    assert sources(lines) == "abbab"
    assert taken == [2, 3]


def test_at_the_same_time_the_earlier_part_comes_first() -> None:
    assert sources(merge([part("a", 1), part("b", 1)], 10)[0]) == "ab"


def test_it_ends_where_a_part_that_has_more_ends() -> None:
    lines, taken = merge([part("a", 1, 2, ended=False), part("b", 1.5, 3, 4)], 10)
    assert sources(lines) == "aba"
    assert taken == [2, 1]


def test_it_ends_at_the_limit_and_not_before() -> None:
    assert merge([part("a", 1, 2, 3)], 2)[1] == [2]
    assert merge([part("a", 1, 2, 3)], 3)[1] == [3]
    assert merge([], 3) == ([], [])


def test_a_clock_that_went_back_does_not_reorder_one_log() -> None:
    lines, _ = merge([part("a", 5, 1), part("b", 3)], 10)
    assert [line.text for line in lines] == ["b3", "a5", "a1"]


@given(st.lists(st.lists(st.integers(0, 20), max_size=8), max_size=4), st.integers(1, 5))
def test_page_after_page_gives_every_line_exactly_once(logs, limit) -> None:  # type: ignore[no-untyped-def]
    at = [0] * len(logs)
    seen: list[str] = []
    for _ in range(100):
        parts = [
            Part(
                [Line(t, str(i), "", f"{i}-{n}") for n, t in enumerate(log)][at[i] : at[i] + 3],
                ended=at[i] + 3 > len(log),
            )
            for i, log in enumerate(logs)
        ]
        lines, taken = merge(parts, limit)
        seen += [line.text for line in lines]
        at = [a + t for a, t in zip(at, taken, strict=True)]
        if all(a == len(log) for a, log in zip(at, logs, strict=True)):
            break
    assert sorted(seen) == sorted(f"{i}-{n}" for i, log in enumerate(logs) for n in range(len(log)))
    for index in range(len(logs)):
        own = [int(text.split("-")[1]) for text in seen if text.startswith(f"{index}-")]
        assert own == sorted(own)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain ünï\tcode", "plain ünï\tcode"),
        ("\x1b[1;31mred\x1b[0m text", "red text"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link", "link"),
        ("10%\r50%\r100%", "100%"),
        ("windows\r", "windows"),
        ("a\x00b", "a\ufffdb"),
        ("\x1b[2K\x1b[1Gdone", "done"),
    ],
)
def test_a_line_is_shown_as_a_terminal_leaves_it(raw: str, shown: str) -> None:
    assert plain(raw) == shown


def test_a_downloaded_line_has_its_time_source_and_stream() -> None:
    line = Line(1763812800.5, "diabetes-r1-a", "stderr", "boom")
    assert as_text(line) == "2025-11-22T12:00:00.500Z [diabetes-r1-a] ! boom\n"
