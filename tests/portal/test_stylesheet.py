"""The tokens: readable in light and dark, and the same dark whichever way it was chosen."""

import re
from pathlib import Path

import pytest
from django.conf import settings

STYLES = Path(settings.CHECKOUT) / "static/css"
TEXT = (STYLES / "app.css").read_text()


def _tokens(opening: str) -> dict[str, str]:
    block = TEXT.partition(opening)[2].partition("}")[0]
    return dict(re.findall(r"(--[\w-]+):\s*([^;]+);", block))


LIGHT = _tokens(":root {")
DARK_CHOSEN = _tokens(':root[data-theme="dark"] {')
DARK_SYSTEM = _tokens(':root:not([data-theme="light"]) {')
DARK = {**LIGHT, **DARK_CHOSEN}


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


PAIRS = [
    *(
        (text, ground)
        for text in ("text", "muted", "accent")
        for ground in ("bg", "surface", "surface-2")
    ),
    ("accent-text", "accent"),
    ("accent-strong", "accent-soft"),
    *((tone, f"{tone}-soft") for tone in ("ok", "warn", "bad", "info", "idle")),
    *((tone, "surface") for tone in ("ok", "warn", "bad", "info", "idle")),
    *(("text", f"{tone}-soft") for tone in ("ok", "warn", "bad", "info")),
    ("code-text", "code-bg"),
    ("rail-text", "rail"),
    ("rail-muted", "rail"),
]


@pytest.mark.parametrize("pair", PAIRS, ids=" on ".join)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_is_readable_on_its_ground(pair: tuple[str, str], theme: str) -> None:
    """WCAG AA: 4.5 to 1."""
    tokens = LIGHT if theme == "light" else DARK
    text, ground = (tokens[f"--{name}"] for name in pair)
    assert _contrast(text, ground) >= 4.5


def test_dark_by_choice_and_dark_by_the_system_are_the_same() -> None:
    assert DARK_CHOSEN
    assert DARK_CHOSEN == DARK_SYSTEM


def test_the_sheets_of_the_rooms_use_tokens_that_exist() -> None:
    """A sheet may define names of its own; what it does not define must be one of app.css's."""
    known = set(re.findall(r"(--[\w-]+)\s*:", TEXT))
    for sheet in STYLES.glob("*.css"):
        text = sheet.read_text()
        own = set(re.findall(r"(--[\w-]+)\s*:", text))
        # a second argument of var() is what to do without the name
        used = set(re.findall(r"var\((--[\w-]+)\)", text))
        assert used - known - own == set(), sheet.name
