"""The part of the load generator that says what is right; no socket, no clock."""

import pytest

from tests.e2e.load import Failure, Reader, Report, Stream, Ticks, due, judge, quantile


def test_only_200_with_the_number_that_was_asked_for_is_right():
    assert judge(200, b'{"n": 7, "by": 3}', 7) == ("3", "")
    assert judge(200, b'{"n": 8, "by": 3}', 7)[1] == """another body: b'{"n": 8, "by": 3}'"""
    assert "another body" in judge(200, b"", 7)[1]
    assert "another body" in judge(200, b"[7]", 7)[1]
    assert judge(503, b'{"error": 1}', 7) == ("", '{"error": 1}')


def test_arrivals_keep_their_times_whatever_happened_before():
    assert due(500, 0.0, 0) == 1
    assert due(500, 0.0019, 1) == 0
    assert due(500, 0.0021, 1) == 1
    assert due(500, 1.0, 1) == 500
    assert due(500, 1.0, 501) == 0


def test_quantiles():
    ordered = [float(number) for number in range(1, 101)]
    assert quantile(ordered, 0.5) == 51
    assert quantile(ordered, 0.99) == 100
    assert quantile(ordered, 1.0) == 100
    assert quantile([], 0.5) == 0


def test_a_stream_is_whole_when_every_tick_came_in_order_and_on_time():
    ticks = Ticks(3)
    for number in range(3):
        ticks.take(f"data: {number} 100.0", 100.2)
        ticks.take("", 100.2)
    ticks.end("")
    assert (ticks.trouble, ticks.seen) == ("", 3)
    assert ticks.latest == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("lines", "end", "trouble"),
    [
        (["0 100.0", "2 100.0"], "", "tick 2 came where 1 should have"),
        (["0 100.0", "0 100.0"], "", "tick 0 came where 1 should have"),
        (["0 98.0", "1 100.0"], "", "tick 0 was 2.00 s under way"),
        (["0 100.0"], "", "it ended after 1 of 2 ticks"),
        (["0 100.0", "1 100.0"], "it was cut", "it was cut after 2 of 2 ticks"),
    ],
)
def test_a_stream_that_is_not_whole_says_why(lines, end, trouble):
    ticks = Ticks(2)
    for line in lines:
        ticks.take(f"data: {line}", 100.0)
    ticks.end(end)
    assert ticks.trouble == trouble


def test_an_answer_is_whole_with_the_last_byte_of_its_body():
    reader = Reader()
    assert not reader.begun
    assert reader.feed(b"HTTP/1.1 502 Bad Gateway\r\nContent-Le") is None
    assert reader.begun
    assert reader.feed(b"ngth: 4\r\n\r\nab") is None
    assert reader.feed(b"cd") == b"abcd"
    assert (reader.code, reader.close) == (502, False)


def test_an_answer_may_ask_for_the_connection_to_be_closed():
    reader = Reader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 0\r\n\r\n") == b""
    assert reader.close


def test_the_figures_fit_on_one_line_and_the_trouble_names_each_failure():
    report = Report(
        requests=10,
        seconds=2.0,
        failures=[Failure(4, 1.5, 0.02, "used connection", 503, "overloaded")],
        streams=[Stream(1.0, 60, 240, 240, 0.1, ""), Stream(1.0, 5, 1, 20, 0.0, "it was cut")],
    )
    assert "10 requests in 2 s, 1 failed; 2 streams (longest 60 s), 1 cut" in report.line
    assert "\n" not in report.line
    said = report.trouble()
    assert "1 x 503 overloaded" in said
    assert "#4 used connection: 503 overloaded after 20 ms" in said
    assert "stream of 5 s: it was cut" in said
