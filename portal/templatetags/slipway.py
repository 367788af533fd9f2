"""Filters and tags that all templates may use without `{% load %}`.

They turn values into markup and never read rows or the clock of anything but the page itself.
"""

from datetime import datetime
from typing import Any

from django import template
from django.forms import BoundField, CheckboxInput, CheckboxSelectMultiple, RadioSelect
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from portal.access import allows
from portal.models import Role

register = template.Library()

# Symbols of static/img/icons.svg; a test holds the two to each other.
ICONS = frozenset({
    "overview", "service", "model", "environment", "cluster", "people", "audit", "admin",
    "menu", "close", "sun", "moon", "auto", "copy", "check", "plus", "play", "pause", "stop",
    "refresh", "trash", "edit", "download", "upload", "search", "filter", "link", "key", "eye",
    "eye-off", "clock", "warning", "info", "error", "arrow-right", "arrow-left",
    "chevron-right", "chevron-down", "external", "user", "logout", "lock", "rocket", "undo",
    "log", "chart", "terminal", "file", "folder", "gauge", "wrap", "history", "settings",
    "flask", "code", "dot", "more", "s-ok", "s-bad", "s-warn", "s-move", "s-wait", "s-idle",
    "s-unknown",
})  # fmt: skip

# State word (lower case) -> (tone, shape). The shape tells states apart where colours do not.
_OK, _BAD, _WARN = ("ok", "s-ok"), ("bad", "s-bad"), ("warn", "s-warn")
_MOVE, _WAIT = ("info", "s-move"), ("idle", "s-wait")
_IDLE, _UNKNOWN = ("idle", "s-idle"), ("idle", "s-unknown")
_STATES: dict[str, tuple[str, str]] = {
    **dict.fromkeys(
        ("healthy", "succeeded", "ready", "pass", "passed", "ok", "done", "active", "on", "enabled",
         "connected", "in_rotation", "fresh", "current", "applied"),
        _OK,
    ),
    **dict.fromkeys(
        ("failed", "crashed", "fail", "error", "failure", "unreachable", "offline", "lost", "refused",
         "broken"),
        _BAD,
    ),
    **dict.fromkeys(
        ("unhealthy", "unschedulable", "warning", "stale", "degraded", "late", "prevented"), _WARN
    ),
    **dict.fromkeys(
        ("transitioning", "running", "rolling", "rolling out", "building", "starting", "loading",
         "pulling", "deploying", "deleting", "applying", "zipping", "hashing", "image", "pushing",
         "preparing", "detaching", "removing"),
        _MOVE,
    ),
    **dict.fromkeys(("queued", "scheduling", "waiting", "pending", "draining"), _WAIT),
    **dict.fromkeys(
        ("stopped", "removed", "cancelled", "skipped", "inactive", "off", "disabled", "out", "none",
         "deactivated", "unused", "not built"),
        _IDLE,
    ),
}  # fmt: skip


@register.simple_tag
def icon(name: str, label: str = "", css: str = "") -> SafeString:
    """One symbol of the sprite; hidden from screen readers unless it has a `label`."""
    symbol = name if name in ICONS else "dot"
    href = f"{static('img/icons.svg')}#{symbol}"
    classes = f"icon {css}".strip()
    if label:
        return format_html(
            '<svg class="{}" role="img" aria-label="{}"><use href="{}"></use></svg>',
            classes,
            label,
            href,
        )
    return format_html(
        '<svg class="{}" aria-hidden="true" focusable="false"><use href="{}"></use></svg>',
        classes,
        href,
    )


def tone_of(state: object) -> str:
    """`ok`, `bad`, `warn`, `info` or `idle` for a state word."""
    return _STATES.get(str(state).strip().lower(), _UNKNOWN)[0]


@register.filter
def tone(state: object) -> str:
    return tone_of(state)


@register.filter
def badge(state: object) -> SafeString:
    """A pill with colour, shape and word. Nothing known is shown as unknown, never as fine."""
    word = "" if state is None else str(state).strip()
    word = word or "unknown"
    colour, shape = _STATES.get(word.lower(), _UNKNOWN)
    shown = word.replace("_", " ")
    return format_html(
        '<span class="badge badge-{}">{}{}</span>',
        colour,
        icon(shape),
        shown[:1].upper() + shown[1:],
    )


# below (seconds), one unit (seconds), its word; static/js/app.js ticks with the same table
_AGO = (
    (60, 1, "s"),
    (3600, 60, "min"),
    (86_400, 3600, "h"),
    (86_400 * 45, 86_400, "days"),
    (86_400 * 500, 86_400 * 30.44, "months"),
    (float("inf"), 86_400 * 365.25, "years"),
)


def ago_words(seconds: float) -> str:
    """`just now`, `12 s ago`, `3 min ago`, `in 2 h`, … for a difference in seconds."""
    past = seconds >= 0
    size = abs(seconds)
    if size < 5:
        return "just now"
    unit, word = next((unit, word) for limit, unit, word in _AGO if size < limit)
    # what lasts 12 h should not be said to end "in 11 h" a moment later
    count = int(size // unit) if past else int(size / unit + 0.5)
    if count == 1 and len(word) > 3:
        word = word.removesuffix("s")
    return f"{count} {word} ago" if past else f"in {count} {word}"


@register.filter(expects_localtime=True)
def ago(value: datetime | None) -> SafeString | str:
    """A `<time>` that says how long ago; the exact time is on hover. None is "never"."""
    if not isinstance(value, datetime):
        return format_html('<span class="muted">{}</span>', "never")
    if timezone.is_naive(value):
        value = timezone.make_aware(value)
    local = timezone.localtime(value)
    seconds = (timezone.now() - value).total_seconds()
    return format_html(
        '<time datetime="{}" title="{}" data-ago>{}</time>',
        value.isoformat(timespec="seconds"),
        local.strftime("%Y-%m-%d %H:%M:%S %Z"),
        ago_words(seconds),
    )


@register.filter
def duration(value: object) -> str:
    """Seconds (or a timedelta) as `120 ms`, `1.4 s`, `3 min 5 s`, `2 h 4 min`, `3 days 1 h`."""
    if value is None or value == "":
        return "–"
    total = getattr(value, "total_seconds", None)
    try:
        seconds = float(total() if total else value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "–"
    sign = "-" if seconds < 0 else ""
    seconds = abs(seconds)
    if seconds == 0:
        return "0 s"
    if seconds < 0.9995:
        return f"{sign}{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{sign}{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    for size, unit, below, lower in (
        (86_400, "days", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            first, rest = divmod(whole, size)
            second = rest // below
            name = "day" if unit == "days" and first == 1 else unit
            return f"{sign}{first} {name}" + (f" {second} {lower}" if second else "")
    return f"{sign}{whole} s"


@register.filter
def filesize(value: object) -> str:
    """Bytes in IEC units: `812 B`, `1.4 KiB`, `3.0 GiB`."""
    try:
        size = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "–"
    if abs(size) < 1024:
        return f"{size:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        if abs(size) < 1023.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} PiB"


@register.filter
def can(user: object, role: str) -> bool:
    """Whether the person has at least the role: `{% if user|can:"deployer" %}`."""
    return allows(user, Role(role))


@register.inclusion_tag("components/field.html")
def formfield(field: BoundField | str | None, wide: bool = False) -> dict[str, Any]:
    """Label, control, help and errors of one field, tied together for screen readers."""
    if not isinstance(field, BoundField):
        raise template.TemplateSyntaxError("formfield: this form has no such field")
    widget = field.field.widget
    kind = "text"
    if isinstance(widget, (RadioSelect, CheckboxSelectMultiple)):
        kind = "group"
    elif isinstance(widget, CheckboxInput):
        kind = "check"
    return {
        "field": field,
        "kind": kind,
        "wide": wide,
        "required": field.field.required and kind != "check",
        "hidden": field.is_hidden,
    }


@register.inclusion_tag("components/copybutton.html")
def copybutton(text: object, label: str = "Copy") -> dict[str, Any]:
    """A button that copies `text`. The text is in the page: not for secrets that are still hidden."""
    return {"text": text, "label": label}


@register.simple_tag
def sparkline(
    values: object, width: int = 120, height: int = 28, label: str = "", css: str = ""
) -> SafeString:
    """A line of figures as inline SVG; None is a gap, not zero. No figures at all is a flat dotted line."""
    points = list(values) if isinstance(values, (list, tuple)) else []
    top = max((float(v) for v in points if v is not None), default=0.0) or 1.0
    step = width / max(len(points) - 1, 1)
    parts: list[str] = []
    area: list[str] = []
    run: list[tuple[float, float]] = []

    def close() -> None:
        if not run:
            return
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in run)
        parts.append(f"M{line}" if len(run) > 1 else f"M{line} h1")
        area.append(f"M{run[0][0]:.1f},{height} L{line} L{run[-1][0]:.1f},{height} Z")
        run.clear()

    for index, value in enumerate(points):
        if value is None:
            close()
        else:
            run.append((index * step, height - 2 - (height - 4) * float(value) / top))
    close()
    classes = f"spark {css}".strip()
    if not parts:
        return format_html(
            '<svg class="{} spark-none" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" '
            'aria-label="{}"><path class="spark-line" d="M0,{} H{}"></path></svg>',
            classes, width, height, label or "no figures", height - 2, width,
        )  # fmt: skip
    return format_html(
        '<svg class="{}" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<path class="spark-area" d="{}"></path><path class="spark-line" d="{}"></path></svg>',
        classes, width, height, label or "recent figures", " ".join(area), " ".join(parts),
    )  # fmt: skip
