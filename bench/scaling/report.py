"""Rows to a table, to the goal's figures, to JSON and to a picture."""

import json
from collections.abc import Sequence
from pathlib import Path

from bench.scaling.runs import Row

# What rivals are judged by: an oracle is no policy that anybody could run.
RIVALS = ("kpa", "hpa", "ray", "fixed")
OURS, AGAINST = "slipway", "kpa"
FEWER, HOURS = 5.0, 1.05


def table(rows: Sequence[Row]) -> str:
    lines = [
        f"{'trace':<22}{'load':>5}{'start':>6}  {'policy':<8}{'rejected':>9}"
        f"{'p50':>8}{'p95':>8}{'p99':>8}{'hours':>10}{'/oracle':>9}{'actions':>9}"
    ]
    before = None
    for row in rows:
        case = (row.trace, row.load, row.start_s)
        name = f"{row.trace:<22}{row.load:>5}{row.start_s:>4} s" if case != before else " " * 33
        before = case
        lines.append(
            f"{name}  {row.policy:<8}{row.rejected_share:>9.3%}{1000 * row.wait_p50_s:>6.0f}ms"
            f"{1000 * row.wait_p95_s:>6.0f}ms{1000 * row.wait_p99_s:>6.0f}ms"
            f"{row.replica_hours:>10.2f}{row.vs_oracle:>9.2f}{row.actions:>9}"
        )
    return "\n".join(lines)


def cases(rows: Sequence[Row]) -> dict[tuple[str, int, int], dict[str, Row]]:
    found: dict[tuple[str, int, int], dict[str, Row]] = {}
    for row in rows:
        found.setdefault((row.trace, row.load, row.start_s), {})[row.policy] = row
    return found


def beaten(rows: Sequence[Row]) -> list[tuple[tuple[str, int, int], str]]:
    """Where a rival rejected less than ours and took fewer replica-hours too."""
    return [
        (case, name)
        for case, by in cases(rows).items()
        for name in RIVALS
        if by[name].rejected_share < by[OURS].rejected_share
        and by[name].replica_hours < by[OURS].replica_hours
    ]


def fewer_and_hours(rows: Sequence[Row]) -> tuple[float, float]:
    """How many times fewer than KPA ours rejected, and replica-hours over KPA's; both of means."""
    ours = [row for row in rows if row.policy == OURS]
    other = [row for row in rows if row.policy == AGAINST]
    hours = sum(row.replica_hours for row in ours) / sum(row.replica_hours for row in other)
    rejected = sum(row.rejected_share for row in ours)
    share = sum(row.rejected_share for row in other)
    return (share / rejected if rejected else float("inf")), hours


def summary(rows: Sequence[Row]) -> str:
    policies = list(dict.fromkeys(row.policy for row in rows))
    lines = [f"{'mean of all':<12}{'rejected':>9}{'hours':>11}{'/kpa':>7}{'mean of ratios':>16}"]
    other = {case: by[AGAINST].replica_hours for case, by in cases(rows).items()}
    base = sum(row.replica_hours for row in rows if row.policy == AGAINST)
    for name in policies:
        own = [row for row in rows if row.policy == name]
        rejected = sum(row.rejected_share for row in own) / len(own)
        hours = sum(row.replica_hours for row in own)
        each = [row.replica_hours / other[row.trace, row.load, row.start_s] for row in own]
        lines.append(
            f"{name:<12}{rejected:>9.3%}{hours / len(own):>11.2f}{hours / base:>7.2f}"
            f"{sum(each) / len(each):>16.2f}"
        )
    fewer, hours = fewer_and_hours(rows)
    reached = "reached" if fewer >= FEWER and hours <= HOURS else "not reached"
    lines.append("")
    lines.append(
        f"goal: {FEWER:.0f} x fewer rejected than kpa at {HOURS} x its replica-hours: {reached}; "
        f"{fewer:.1f} x fewer at {hours:.2f} x"
    )
    worse = beaten(rows)
    lines.append(f"goal: nowhere beaten on both: {'reached' if not worse else 'not reached'}")
    lines += [
        f"  {trace} at {load}, start {start} s: by {name}" for (trace, load, start), name in worse
    ]
    return "\n".join(lines)


# What `--json` tells of a row; the table has more.
KEYS = (
    "trace", "load", "start_s", "policy", "rejected_share", "wait_p95_s", "replica_hours",
    "vs_oracle", "actions",
)  # fmt: skip


def as_json(rows: Sequence[Row]) -> str:
    return json.dumps({"rows": [{key: getattr(row, key) for key in KEYS} for row in rows]})


def plot(rows: Sequence[Row], path: Path) -> None:
    """One small chart a trace and start time: rejected against replica-hours over the oracle's."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    traces = list(dict.fromkeys(row.trace for row in rows))
    starts = sorted({row.start_s for row in rows})
    figure = make_subplots(
        rows=len(traces), cols=len(starts), vertical_spacing=0.25 / len(traces),
        subplot_titles=[f"{trace}, start {start} s" for trace in traces for start in starts],
    )  # fmt: skip
    # Okabe and Ito's colours, and a sign each: told apart without colour too
    looks = {
        "slipway": ("#0072B2", "star"), "kpa": ("#D55E00", "circle"), "hpa": ("#009E73", "square"),
        "ray": ("#CC79A7", "diamond"), "fixed": ("#000000", "x"), "oracle": ("#E69F00", "cross"),
    }  # fmt: skip
    for name, (colour, sign) in looks.items():
        for i, trace in enumerate(traces):
            for j, start in enumerate(starts):
                own = [
                    row for row in rows
                    if (row.policy, row.trace, row.start_s) == (name, trace, start)
                ]  # fmt: skip
                figure.add_trace(
                    go.Scatter(
                        x=[row.vs_oracle for row in own],
                        y=[100 * row.rejected_share for row in own],
                        text=[f"{name}, load {row.load}" for row in own],
                        mode="markers", marker={"color": colour, "symbol": sign, "size": 9},
                        name=name, legendgroup=name, showlegend=i == j == 0,
                    ),
                    row=i + 1, col=j + 1,
                )  # fmt: skip
    figure.update_xaxes(title_text="replica-hours / oracle's")
    figure.update_yaxes(title_text="rejected %")
    figure.update_layout(height=300 * len(traces), title_text="Lower left is better")
    figure.write_html(path, include_plotlyjs=True)
