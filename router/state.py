"""What the router's loop keeps between its runs: one small JSON file, written by rename.

All of it can be found again without the file (from HAProxy's maps and slots, and by learning anew);
the file only makes that exact. A file that cannot be read is therefore said and left behind.
"""

import json
import logging
import os
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from deployments.codec import from_json, to_json
from router.haproxy.render import BackendShape
from router.haproxy.slots import Slot

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RouterState:
    """`backends` is "service/version" -> backend, `slots` those that are not free.

    `start_seconds` is "service/version" -> seconds a replica takes to become ready, as learnt;
    `concurrency` is "service/revision" -> requests a replica takes at a time, kept because the
    cluster's spec tells it of the newest revision only.
    """

    backends: dict[str, str] = field(default_factory=dict)
    shapes: tuple[BackendShape, ...] = ()
    slots: tuple[Slot, ...] = ()
    start_seconds: dict[str, float] = field(default_factory=dict)
    concurrency: dict[str, int] = field(default_factory=dict)
    threads: int = 1  # of HAProxy


def load(path: Path) -> RouterState:
    """The kept state, or an empty one."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        data["slots"] = [_slot(item) for item in data["slots"]]
        return from_json(RouterState, data)
    except FileNotFoundError:
        return RouterState()
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("%s cannot be read (%s); the router learns its state anew", path, error)
        return RouterState()


def save(path: Path, state: RouterState) -> None:
    """Replace the file in one step."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    data = to_json(replace(state, slots=()))
    data["slots"] = [_row(slot) for slot in state.slots]
    with beside.open("w", encoding="utf-8") as file:
        # in one go: writing it piece by piece takes ten times as long
        file.write(json.dumps(data, separators=(",", ":")))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


_SLOT = tuple(item.name for item in fields(Slot))
_row = attrgetter(*_SLOT)  # a slot is a list in the file: there may be ten thousand


def _slot(item: Any) -> Any:
    return item if isinstance(item, dict) else dict(zip(_SLOT, item, strict=True))
