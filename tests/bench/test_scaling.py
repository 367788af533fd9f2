"""`bench/autoscaler`: what it may be asked, how traces are read and loaded, what its figures mean."""

import json
from pathlib import Path

import pytest

from bench.scaling import __main__ as command
from bench.scaling import report, runs, traces
from bench.scaling.runs import Row


def row(policy: str, rejected: float, hours: float, trace: str = "t", load: int = 5) -> Row:
    return Row(trace, load, 20, policy, rejected, 0.0, 0.1, 0.2, hours, hours / 2, 3, "generated")


def case(ours: tuple[float, float], **others: tuple[float, float]) -> list[Row]:
    rivals = dict.fromkeys(report.RIVALS, (1.0, 100.0)) | others
    return [row("slipway", *ours), *(row(name, *found) for name, found in rivals.items())]


def test_both_column_sets_are_read_and_a_requests_time_is_its_tokens(tmp_path: Path) -> None:
    azure = tmp_path / "azure.csv"
    azure.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 23:59:59.9799600,1000,10\n2023-11-17 00:00:01.0799600,0,0\n"
    )
    mooncake = tmp_path / "mooncake.csv"
    mooncake.write_text("timestamp_ms,input_tokens,output_tokens\n1500,0,0\n400,1000,10\n")
    for path in (azure, mooncake):
        trace = traces.read(path)
        assert trace.arrivals == pytest.approx([0.0, 1.1])
        assert trace.services == pytest.approx([0.25, 0.05])
        assert (trace.name, trace.seconds) == (path.stem, 2.0)


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", "timestamp_ms,input_tokens,output_tokens\nx,1,1\n"]
)
def test_what_is_no_trace_is_told_by_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.csv"
    path.write_text(text)
    with pytest.raises(traces.TraceError, match=r"broken\.csv"):
        traces.read(path)


def test_a_missing_file_is_told_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(traces.TraceError, match="No such file"):
        traces.read(tmp_path / "none.csv")


def test_a_trace_is_brought_to_a_load_by_shifted_copies_and_says_so() -> None:
    trace = traces.Trace("t", [0.0, 50.0, 99.0], [10.0, 10.0, 10.0], 100.0)
    loaded = traces.brought_to(trace, 1.2)
    assert loaded.load == pytest.approx(1.2)
    assert loaded.arrivals == [
        0.0,
        14.0,
        15.0,
        29.0,
        30.0,
        44.0,
        45.0,
        50.0,
        65.0,
        80.0,
        95.0,
        99.0,
    ]
    assert loaded.how == "4 copies over 60 s"
    assert traces.brought_to(trace, 0.1).how == "as recorded"


@pytest.mark.parametrize("name", traces.SHAPES)
def test_a_shape_has_the_load_it_is_named_for_and_is_the_same_each_time(name: str) -> None:
    trace = traces.generated(name, 20, 1200)
    assert trace.load == pytest.approx(20, rel=0.05)
    assert trace == traces.generated(name, 20, 1200)
    assert trace.arrivals == sorted(trace.arrivals)


@pytest.mark.parametrize("name", traces.SHAPES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_seed_varies_the_shape_and_keeps_its_load(name: str, seed: int) -> None:
    trace = traces.generated(name, 20, 1200, seed)
    assert trace.load == pytest.approx(20, rel=0.08)
    assert trace.name == f"{name}-{seed}"
    assert trace.arrivals != traces.generated(name, 20, 1200).arrivals


def test_the_halves_of_a_trace_are_all_of_it() -> None:
    trace = traces.Trace("t", [0.0, 4.9, 5.0, 9.0], [1.0, 2.0, 3.0, 4.0], 10.0)
    first, second = traces.part(trace, "first"), traces.part(trace, "second")
    assert (first.arrivals, first.services, first.seconds) == ([0.0, 4.9], [1.0, 2.0], 5.0)
    assert (second.arrivals, second.services) == ([0.0, 4.0], [3.0, 4.0])
    assert (first.name, second.name) == ("t-first", "t-second")


def test_the_quick_run_is_shorter_and_leaves_the_largest_load_out() -> None:
    quick = command.tasks(command.arguments(["--quick"]))
    full = command.tasks(command.arguments([]))
    assert {task.load for task in full} - {task.load for task in quick} == {500}
    assert {task.seconds for task in quick} == {1200.0}
    assert {task.start_seconds for task in full} == {2, 20, 60}
    assert {task.source for task in full} == set(traces.SHAPES)


def test_an_option_that_makes_no_sense_is_refused() -> None:
    for words in (["--jobs", "0"], ["--load", "7"], ["--only", "zigzag"]):
        with pytest.raises(SystemExit):
            command.arguments(words)


def test_times_fewer_and_hours_are_of_means_over_all() -> None:
    rows = case((0.01, 10.0), kpa=(0.03, 8.0)) + [
        row("slipway", 0.0, 1.0, load=50), row("kpa", 0.02, 2.0, load=50),
    ]  # fmt: skip
    assert report.fewer_and_hours(rows) == pytest.approx((5.0, 1.1))


@pytest.mark.parametrize(
    ("rival", "beats"),
    [
        ((0.009, 9.9), True),
        ((0.01, 9.9), False),  # as many rejected is not better
        ((0.009, 10.0), False),
    ],
)
def test_beaten_is_better_on_both(rival: tuple[float, float], beats: bool) -> None:
    rows = case((0.01, 10.0), ray=rival)
    assert report.beaten(rows) == ([(("t", 5, 20), "ray")] if beats else [])


def test_the_oracle_beats_nobody() -> None:
    assert not report.beaten([*case((0.01, 10.0)), row("oracle", 0.0, 1.0)])


def test_one_run_gives_a_row_for_each_policy_a_table_json_and_a_picture(tmp_path: Path) -> None:
    rows = runs.run(runs.Task("square", 5, 2, 240.0))
    assert [item.policy for item in rows] == list(runs.SCALERS)
    assert rows[-1].vs_oracle == 1
    assert "mean of all" in report.summary(rows)
    assert len(report.table(rows).splitlines()) == 7
    found = json.loads(report.as_json(rows))
    assert list(found) == ["rows"]
    assert set(found["rows"][0]) == {
        "trace", "load", "start_s", "policy", "rejected_share", "wait_p95_s", "replica_hours",
        "vs_oracle", "actions",
    }  # fmt: skip
    report.plot(rows, tmp_path / "plot.html")
    assert "slipway" in (tmp_path / "plot.html").read_text()
