"""What of a cluster's `RouterSpec` HAProxy is started with, and what is changed while it runs.

PURE. A spec ends up in three places: in the configuration's text (ports, custom lines), in files beside
it (the certificate, the keys that tokens are checked with), and in maps. A change of the text or of the
token keys needs a reload, for HAProxy reads both only when it starts; another certificate does not.

Custom lines come back here too: HAProxy complains about lines of the whole text, a person wrote a few of
them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from deployments.clusters.custom import AREA_WORDS, AREAS, Remark
from deployments.types import CustomLines, RouterSpec
from router.haproxy.render import RouterConfig

SITE = "site.pem"  # key and chain, as HAProxy reads them
MOST_TOKEN_KEYS = 2
_SAID_AT_MOST = 2000  # characters of HAProxy's words


@dataclass(frozen=True, slots=True)
class Status:
    """How far the router follows its settings, for the admin API. Times are epoch seconds.

    `generation` is the one HAProxy runs with, `wanted` the cluster's; `problem` says why they differ, in
    HAProxy's words, and is empty while they do not or while the router is about to follow.
    """

    generation: int
    wanted: int
    problem: str = ""
    tls_not_after: float | None = None


def token_file(index: int) -> str:
    """The file of the token key at this index, the newest being 0."""
    return f"token-{index + 1}.pem"


def site(spec: RouterSpec) -> str:
    """The certificate's file: key and chain without an empty line. Empty without TLS."""
    if spec.tls is None:
        return ""
    lines = f"{spec.tls.key}\n{spec.tls.chain}\n".splitlines()
    return "".join(f"{line}\n" for line in lines if line.strip())


def files(spec: RouterSpec) -> dict[str, str]:
    """What stands beside the configuration for this spec."""
    made = {
        token_file(index): f"{key.public_pem.strip()}\n"
        for index, key in enumerate(spec.token_keys[:MOST_TOKEN_KEYS])
    }
    if spec.tls is not None:
        made[SITE] = site(spec)
    return made


def configured(config: RouterConfig, spec: RouterSpec, tls_port: int) -> RouterConfig:
    """The configuration with what the spec says of it."""
    keys = spec.token_keys[:MOST_TOKEN_KEYS]
    return replace(
        config,
        tls_port=tls_port if spec.tls is not None else None,
        plain_http=spec.tls is None or spec.tls.plain_http,
        custom=spec.custom,
        token_keys=tuple(key.kid for key in keys),
    )


def needs_reload(before: RouterSpec, after: RouterSpec) -> bool:
    """Whether HAProxy has to be started anew to have the one in the place of the other."""
    return _at_start(before) != _at_start(after)


def _at_start(spec: RouterSpec) -> tuple[object, ...]:
    tls = None if spec.tls is None else spec.tls.plain_http
    return tls, spec.custom, spec.token_keys[:MOST_TOKEN_KEYS]


def fallbacks(asked: RouterSpec | None, kept: RouterSpec | None) -> list[RouterSpec]:
    """What HAProxy is started with: the first of these that it takes.

    What the cluster asks for, what ran before, the former without a person's lines, and at last
    nothing at all: serving comes before settings.
    """
    found: list[RouterSpec] = []
    for spec in (
        asked,
        kept,
        asked and replace(asked, custom=CustomLines()),
        RouterSpec(token_keys=asked.token_keys if asked else ()),
        RouterSpec(),
    ):
        if spec is not None and spec not in found:
            found.append(spec)
    return found


# ---- HAProxy's words about a person's lines -------------------------------------------------------

_ABOUT = re.compile(r"^\[(ALERT|WARNING)\]\s*\(\d+\)\s*: (?:config : )?(.*)$")
_LINE = re.compile(r"parsing \[[^\]]*:(\d+)\]\s*:?\s*")
_PATH = re.compile(r"[^\s\[\]']*/\.check-[^/\s]*/")
_SECTIONS = ("global", "defaults", "frontend", "backend")
REPLICA_DEFAULTS = "replicas"  # the name of the defaults that all backends of replicas have
_SUMMARY = ("Error(s) found in configuration file", "Fatal errors found in configuration")


def remarks(said: str, text: str, lines: CustomLines) -> list[Remark]:
    """HAProxy's alerts and warnings about `text`, those about a person's lines with their numbers.

    Alerts come first. What it says of the router's own lines keeps its words, without our paths.
    """
    alerts: list[Remark] = []
    warnings: list[Remark] = []
    where = _places(text, lines)
    for row in said.splitlines():
        found = _ABOUT.match(row.strip())
        if found is None or any(word in found[2] for word in _SUMMARY):
            continue
        message = _PATH.sub("", found[2])
        at = _LINE.search(message)
        area, number = where.get(int(at[1]), ("", 0)) if at else ("", 0)
        if area and at:
            message = (message[: at.start()] + message[at.end() :]).strip()
        (alerts if found[1] == "ALERT" else warnings).append(
            Remark(area, number, message[:_SAID_AT_MOST])
        )
    return alerts + warnings


def told(message: str, evidence: str) -> str:
    """A refusal with HAProxy's own alerts out of its evidence, as a person may read it."""
    alerts = [
        _PATH.sub("", found[2])
        for row in evidence.splitlines()
        if (found := _ABOUT.match(row.strip()))
        and found[1] == "ALERT"
        and not any(word in found[2] for word in _SUMMARY)
    ]
    if not alerts:
        return message
    return f"{message.partition(': [ALERT]')[0].rstrip('.')}: {'; '.join(alerts[:3])}"[
        :_SAID_AT_MOST
    ]


def _places(text: str, lines: CustomLines) -> Mapping[int, tuple[str, int]]:
    """Number of a line of the text -> the area and the number of the person's line that stands there.

    The lines of an area stand together, in order, in one or more sections of their kind.
    """
    rows = [row.strip() for row in text.splitlines()]
    kinds = _kinds(rows)
    found: dict[int, tuple[str, int]] = {}
    for area in AREAS:
        wanted = [line.strip() for line in getattr(lines, area)]
        if not any(wanted):
            continue
        for start in range(len(rows) - len(wanted) + 1):
            if kinds[start] == AREA_WORDS[area] and rows[start : start + len(wanted)] == wanted:
                for index in range(len(wanted)):
                    found[start + index + 1] = (area, index + 1)
    return found


def _kinds(rows: Sequence[str]) -> list[str]:
    """For each row the kind of section it stands in. What replicas inherit is a backend's."""
    kind, kinds = "", []
    for row in rows:
        words = row.split()
        if words and words[0] in _SECTIONS:
            kind = "backend" if words[:2] == ["defaults", REPLICA_DEFAULTS] else words[0]
        kinds.append(kind)
    return kinds
