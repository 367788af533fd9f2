"""What the router's loop keeps between its runs: one small JSON file, written by rename.

All of it can be found again without the file (from HAProxy's maps and slots, and by learning anew);
the file only makes that exact. A file that cannot be read is therefore said and left behind.
"""

import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

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


def load(path: Path) -> RouterState:
    """The kept state, or an empty one."""
    try:
        return from_json(RouterState, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return RouterState()
    except (OSError, ValueError, TypeError) as error:
        log.warning("%s cannot be read (%s); the router learns its state anew", path, error)
        return RouterState()


def save(path: Path, state: RouterState) -> None:
    """Replace the file in one step."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    with beside.open("w", encoding="utf-8") as file:
        json.dump(to_json(state), file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
