"""Reads pip requirements: one line each, with the number of the line that is wrong.

PURE. Knows what a requirements file may hold here: named requirements and index options. Files it
would point to (`-r`, `-c`, `-e .`, `./folder`) are refused, since only this text travels.
"""

import re
import shlex
from dataclasses import dataclass
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from deployments.errors import InvalidInput

FIELD = "pip_requirements"

# Options of a requirements file that mean the same on every machine; True takes a value.
_OPTIONS = {
    "--index-url": True,
    "--extra-index-url": True,
    "--find-links": True,
    "--trusted-host": True,
    "--no-binary": True,
    "--only-binary": True,
    "--no-index": False,
    "--pre": False,
    "--prefer-binary": False,
    "--require-hashes": False,
}
_SHORT = {"-i": "--index-url", "-f": "--find-links"}
_FILES = ("-r", "--requirement", "-c", "--constraint", "-e", "--editable")
_COMMENT = re.compile(r"(^|\s)#.*$")
_OPTION_END = re.compile(r"[=\s]")
_SINGLE_EQUALS = re.compile(r"^([A-Za-z0-9][\w.\-]*(?:\[[^]]*\])?)\s*=\s*([0-9][\w.*+!]*)$")


@dataclass(frozen=True, slots=True)
class PipRequirement:
    """One requirement. `line` counts from 1; `hashes` are pip's `--hash` values."""

    line: int
    requirement: Requirement
    hashes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def normal(self) -> str:
        """The same text for the same meaning: name, extras, specifiers and hashes in fixed order."""
        wanted = self.requirement
        extras = ",".join(sorted(canonicalize_name(extra) for extra in wanted.extras))
        text = self.name + (f"[{extras}]" if extras else "")
        text += f" @ {wanted.url}" if wanted.url else str(wanted.specifier)
        if wanted.marker:
            text += f" ; {wanted.marker}"
        return text + "".join(f" --hash={value}" for value in self.hashes)


@dataclass(frozen=True, slots=True)
class PipDefinition:
    """`options` keep their order (the first index wins); requirements have none."""

    options: tuple[str, ...] = ()
    requirements: tuple[PipRequirement, ...] = ()


def parse_pip(text: str) -> PipDefinition:
    """The requirements in a requirements file's text. Raises InvalidInput with the line."""
    return from_lines(_logical_lines(text), field=FIELD)


def from_lines(lines: list[tuple[int, str]], *, field: str) -> PipDefinition:
    """The same for lines that already have their numbers (conda's `pip:` list)."""
    options: list[str] = []
    requirements: list[PipRequirement] = []
    for number, line in lines:
        if line.startswith("-"):
            options.append(_option(number, line, field))
        else:
            requirements.append(_requirement(number, line, field))
    return PipDefinition(tuple(options), tuple(requirements))


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """Lines without comments, those that end in a backslash joined; with their first line's number."""
    found: list[tuple[int, str]] = []
    pending, start = "", 0
    for number, raw in enumerate(text.lstrip("\ufeff").splitlines(), start=1):
        line = _COMMENT.sub("", raw).strip()
        start = start or number
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        whole = (pending + line).strip()
        if whole:
            found.append((start, whole))
        pending, start = "", 0
    if pending.strip():
        found.append((start, pending.strip()))
    return found


def _option(number: int, line: str, field: str) -> str:
    head, _, value = _OPTION_END.sub(" ", line, count=1).partition(" ")
    head, value = _SHORT.get(head, head), value.strip()
    if head in _FILES or head[:2] in ("-r", "-c", "-e"):
        raise InvalidInput(
            f'Line {number}: "{line}" points to a file, which is not here. Write its requirements '
            "into this text.",
            field=field,
        )
    if head not in _OPTIONS:
        raise InvalidInput(
            f'Line {number}: the option "{head}" is not one that an environment takes; it takes '
            f"{', '.join(sorted(_OPTIONS))}.",
            field=field,
        )
    if _OPTIONS[head] != bool(value):
        needs = "needs a value" if _OPTIONS[head] else "takes no value"
        raise InvalidInput(f'Line {number}: "{head}" {needs}.', field=field)
    _refuse_password(number, value, field)
    return f"{head} {value}".strip()


def _requirement(number: int, line: str, field: str) -> PipRequirement:
    text, *rest = re.split(r"\s(?=--)", line, maxsplit=1)
    hashes = _hashes(number, rest[0] if rest else "", field)
    if mistake := _SINGLE_EQUALS.match(text.strip()):
        raise InvalidInput(
            f'Line {number}: pip needs two equals signs: "{mistake[1]}=={mistake[2]}".', field=field
        )
    try:
        wanted = Requirement(text.strip())
    except InvalidRequirement as error:
        if "://" in text or text.startswith((".", "/")):
            raise InvalidInput(
                f'Line {number}: "{text}" has no name. Write "name @ {text}" with an address that '
                "the cluster can reach.",
                field=field,
            ) from error
        reason = str(error).splitlines()[0]
        raise InvalidInput(f'Line {number}: "{text}": {reason}.', field=field) from error
    if wanted.url:
        _refuse_password(number, wanted.url, field)
    return PipRequirement(number, wanted, hashes)


def _hashes(number: int, text: str, field: str) -> tuple[str, ...]:
    values = []
    for word in shlex.split(text) if text else []:
        if not word.startswith("--hash="):
            raise InvalidInput(
                f'Line {number}: only "--hash=" may follow a requirement, not "{word}".',
                field=field,
            )
        values.append(word.removeprefix("--hash="))
    return tuple(sorted(values))


def _refuse_password(number: int, text: str, field: str) -> None:
    """Definitions are shown on pages and kept for ever: no password may be in one."""
    try:
        address = urlsplit(text.removeprefix("git+"))
    except ValueError:
        return
    if address.password or (address.username and address.scheme in ("http", "https")):
        raise InvalidInput(
            f"Line {number}: the address holds a password or a token, which everyone who may look "
            "would see. Put it into the worker's pip or uv configuration, or a netrc file.",
            field=field,
        )
