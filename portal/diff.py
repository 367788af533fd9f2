"""What differs between two flat or nested JSON objects, line by line.

PURE.
"""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Line:
    """One key. `kind` is added, removed or changed; the values are shown as text, None is absent."""

    key: str
    kind: str
    before: str | None
    after: str | None


_ABSENT = object()


def _text(value: Any) -> str | None:
    if value is _ABSENT:
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or (not value and prefix):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat.update(_flat(item, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def diff(before: dict[str, Any] | None, after: dict[str, Any] | None) -> list[Line]:
    """The lines that differ, in the order of the keys; equal ones are left out."""
    old, new = _flat(before or {}), _flat(after or {})
    lines = []
    for key in [*old, *(key for key in new if key not in old)]:
        was, now = old.get(key, _ABSENT), new.get(key, _ABSENT)
        if was is now or was == now:
            continue
        kind = "added" if was is _ABSENT else "removed" if now is _ABSENT else "changed"
        lines.append(Line(key, kind, _text(was), _text(now)))
    return lines
