"""One size's figures as text."""

from typing import Any

_PARTS = {
    "steady": "nothing changes",
    "pods_replaced": "20 pods replaced a second",
    "scaled": "one scale a second",
    "services_added": "one service added a second",
}
_ROWS = (
    ("loop, % of a core", "loop_cpu_percent"),
    ("HAProxy, % of a core", "haproxy_cpu_percent"),
    ("turn p50 ms", "turn_p50_ms"),
    ("turn p99 ms", "turn_p99_ms"),
    ("CPU of a turn p50 ms", "turn_cpu_p50_ms"),
    ("CPU of a turn p99 ms", "turn_cpu_p99_ms"),
    ("ready -> slot p50 ms", "lag_p50_ms"),
    ("ready -> slot p99 ms", "lag_p99_ms"),
    ("turns to a slot p50", "lag_turns_p50"),
    ("turns to a slot p99", "lag_turns_p99"),
    ("loop MiB", "loop_rss_mib"),
    ("HAProxy MiB", "haproxy_rss_mib"),
    ("reloads a minute", "reloads_a_minute"),
    ("old workers, most", "old_workers_most"),
    ("events a second", "events_a_second"),
    ("bytes an event", "bytes_an_event"),
)


def table(found: dict[str, Any]) -> str:
    """A line a figure, a column a part."""
    parts = [name for name in _PARTS if name in found]
    width = max(len(_PARTS[name]) for name in parts) + 2
    lines = [" " * 24 + "".join(_PARTS[name].rjust(width) for name in parts)]
    for words, key in _ROWS:
        cells = "".join(str(found[name].get(key, "")).rjust(width) for name in parts)
        lines.append(f"{words:24}{cells}")
    return "\n".join(lines)


def show(found: dict[str, Any]) -> None:
    print(f"\n{found['services']:,} services, {found['replicas']:,} pods")
    if "not_routed" in found:
        print(found["not_routed"])
    else:
        print(table(found))
    for name in ("start", "look", "restart", "largest_bytes", "servers"):
        if name in found:
            told = ", ".join(f"{key} {value}" for key, value in found[name].items())
            print(f"{name}: {told}")
