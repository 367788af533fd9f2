"""JSON as a person reads it: indented, with plain lists on one line. Decides only."""

import json
import re
from typing import Any

_PLAIN_LIST = re.compile(r"\[\n\s+([^\[\]{}]*?)\n\s*\]")
_LINE_END = re.compile(r"\n\s+")


def pretty(value: Any) -> str:
    """Indented JSON; a list of plain values stays on its line, so that a row of data is a line."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    # a JSON string holds no bare line end, so what is joined here is layout only
    return _PLAIN_LIST.sub(lambda found: "[" + _LINE_END.sub(" ", found[1]) + "]", text)


def pretty_text(text: str) -> str:
    """The same for JSON that is text already; what is no JSON stays as it is."""
    try:
        return pretty(json.loads(text))
    except ValueError:
        return text
