"""The settings as a table, for `docs/settings.md` and `manage.py settings_table`."""

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from portal.env import CHECKOUT, Env


def markdown() -> str:
    """One row a variable: name, what it takes, default, what it is for."""
    rows = ["| variable | takes | default | what it is for |", "|---|---|---|---|"]
    for item in fields(Env):
        meta = item.metadata
        default = {} if item.default is MISSING else item.default
        name = f"`{meta['name']}`"
        if meta["secret"]:
            name += f" or `{meta['name']}_FILE`"
        rows.append(f"| {name} | {_takes(item.type, meta)} | {_shown(default)} | {meta['help']} |")
    return "\n".join(rows) + "\n"


def _takes(kind: Any, meta: Any) -> str:
    if meta["choices"]:
        return ", ".join(f"`{choice}`" for choice in meta["choices"])
    if kind is bool:
        return "`True`, `False`"
    if kind in (int, float):
        low, high = meta["low"], meta["high"]
        if high is not None:
            return f"{low} to {high}"
        return f"at least {low}" if low is not None else "a number"
    if kind is Path:
        return "a folder"
    if kind is str:
        return "text"
    return "texts with commas" if kind == tuple[str, ...] else "a JSON object"


def _shown(default: Any) -> str:
    if isinstance(default, Path):
        return f"`{default.relative_to(CHECKOUT)}/`"
    if isinstance(default, tuple):
        return f"`{','.join(default)}`" if default else "none"
    if default in ("", {}):
        return "none"
    return f"`{default}`"
