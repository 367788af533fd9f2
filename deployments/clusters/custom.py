"""An administrator's own lines of HAProxy's configuration: read, and held to their sections.

PURE. What HAProxy makes of a line is HAProxy's to say (`haproxy -c`, through the router's admin API).
Here is refused what HAProxy would take but Slipway could not live with: lines that begin another
section, that take its sockets or its user away, that run programs, or that change what exact
concurrency, counting and routing rest on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from deployments.types import CustomLines

AREAS: tuple[str, ...] = tuple(item.name for item in fields(CustomLines))
AREA_WORDS = {
    "global_section": "global",
    "defaults": "defaults",
    "frontend": "frontend",
    "backend": "backend",
}
MOST_LINES = 200  # of one area
LONGEST_LINE = 1000  # characters

# Section keywords of HAProxy 2.8 to 3.2.
_SECTIONS = frozenset(
    (
        *("global", "defaults", "frontend", "backend", "listen", "userlist", "peers", "mailers"),
        *("namespace_list", "resolvers", "cache", "program", "http-errors", "ring", "log-forward"),
        *("log-profile", "fcgi-app", "crt-store", "traces", "acme"),
    )
)
_OWN = "Slipway sets it itself"
_PROGRAMS = "it would run programs inside the router"
# First words that are refused, with the reason.
_EVERYWHERE = {
    "mode": _OWN,
    "disabled": "it would stop the router's work",
    "enabled": _OWN,
    "external-check": _PROGRAMS,
    "id": _OWN,
}
_REFUSED: Mapping[str, Mapping[str, str]] = {
    "global_section": {
        "stats": "the router's own socket and its rights are set by Slipway",
        "chroot": "the router could not reach its sockets and maps any more",
        "user": "the router keeps the user that started it",
        "uid": "the router keeps the user that started it",
        "group": "the router keeps the group that started it",
        "gid": "the router keeps the group that started it",
        "daemon": "Slipway starts, finds and stops the router itself",
        "master-worker": "Slipway starts, finds and stops the router itself",
        "pidfile": "Slipway starts, finds and stops the router itself",
        "nbproc": "exact concurrency needs one process with one thread",
        "nbthread": "exact concurrency needs one process with one thread",
        "thread-groups": "exact concurrency needs one process with one thread",
        "thread-group": "exact concurrency needs one process with one thread",
        "default-path": "maps and certificates are found beside the configuration",
        "crt-base": "maps and certificates are found beside the configuration",
        "description": "Slipway knows the running configuration by it",
        "unix-bind": "it would change the router's own sockets",
        "lua-load": _PROGRAMS,
        "lua-load-per-thread": _PROGRAMS,
        "lua-prepend-path": _PROGRAMS,
        "insecure-fork-wanted": _PROGRAMS,
        "insecure-setuid-wanted": _PROGRAMS,
        "setenv": "a line's meaning must stand in the line",
        "presetenv": "a line's meaning must stand in the line",
        "unsetenv": "a line's meaning must stand in the line",
        "resetenv": "a line's meaning must stand in the line",
    },
    "defaults": {},
    "frontend": {
        "default_backend": "Slipway routes by its maps",
        "use_backend": "Slipway routes by its maps",
    },
    "backend": {
        "balance": "Slipway's queue gives each request to a free replica",
        "dispatch": "replicas come and go by Slipway's hand",
        "server": "replicas come and go by Slipway's hand",
        "server-template": "replicas come and go by Slipway's hand",
        "use-server": "Slipway's queue gives each request to a free replica",
        "stick": "Slipway's queue gives each request to a free replica",
    },
}
# Words that are refused wherever they stand.
_WORDS = {
    "external-check": _PROGRAMS,
    **dict.fromkeys(
        ("track-sc0", "track-sc1", "track-sc2", "track-sc3"),
        "Slipway counts with track-sc0 to track-sc3; write tune.stick-counters 6 in global, and use "
        "track-sc4 or track-sc5",
    ),
}
_WITH_SECOND = ("option", "http-request", "http-response", "tcp-request")
_DISGUISE = frozenset("\\\"'$")


@dataclass(frozen=True, slots=True)
class Remark:
    """What Slipway or HAProxy says of a person's line: its number is from 1. `area` is empty, and `line`
    0, where it is about none of theirs."""

    area: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"Line {self.line}: {self.message}" if self.line else self.message


def read(texts: Mapping[str, str]) -> CustomLines:
    """The lines of four texts by area, without ends of lines. Empty lines at an end are dropped."""
    return CustomLines(
        **{
            area: tuple(line.rstrip() for line in texts.get(area, "").rstrip().splitlines())
            for area in AREAS
        }
    )


def texts(lines: CustomLines) -> dict[str, str]:
    """The inverse of `read`."""
    return {area: "\n".join(getattr(lines, area)) for area in AREAS}


def problems(lines: CustomLines) -> list[Remark]:
    """Every line that is refused, whatever HAProxy would say to it. Empty is good."""
    found: list[Remark] = []
    for area in AREAS:
        given: tuple[str, ...] = getattr(lines, area)
        if len(given) > MOST_LINES:
            found.append(Remark(area, 0, f"At most {MOST_LINES} lines; these are {len(given)}."))
            continue
        for number, line in enumerate(given, start=1):
            if said := _line_problem(area, line):
                found.append(Remark(area, number, said))
    return found


def _line_problem(area: str, line: str) -> str:
    if len(line) > LONGEST_LINE:
        return f"it has {len(line):,} characters; at most {LONGEST_LINE:,} are taken."
    if any(character != "\t" and not character.isprintable() for character in line):
        return "it holds a character that cannot be printed."
    words = line.partition("#")[0].split()
    if not words:
        return ""
    if words[0].startswith("."):
        return "conditions such as .if are not taken: they would reach into other sections."
    if words[0] in ("no", "default"):
        words = words[1:] or [""]
    # HAProxy would read "fron"tend and \\x66rontend as frontend
    named = words[: 2 if words[0] in _WITH_SECOND else 1]
    if _DISGUISE & set("".join(named)):
        return "write its first words plainly, without quotation marks, backslashes and variables."
    first = words[0]
    if first in _SECTIONS:
        return f"“{first}” would begin another section; write lines of {AREA_WORDS[area]} only."
    if reason := _EVERYWHERE.get(first) or _REFUSED[area].get(first):
        return f"“{first}” is not taken: {reason}."
    if reason := next((_WORDS[word] for word in words[1:] if word in _WORDS), None):
        return f"this is not taken: {reason}."
    return ""
