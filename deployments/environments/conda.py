"""Reads a conda environment file (`environment.yml`), with the line of whatever is wrong.

PURE. The YAML is composed into nodes, not loaded: nothing in it is executed, `3.10` stays the text it
is, and each node knows its line.
"""

import difflib
import re
from dataclasses import dataclass

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from deployments.environments.pip import PipDefinition, from_lines
from deployments.errors import InvalidInput

FIELD = "conda_yaml"

_KEYS = ("name", "channels", "dependencies", "prefix")
_PACKAGE = re.compile(
    r"^(?:(?P<channel>[A-Za-z0-9_.\-/:]+)::)?(?P<name>[A-Za-z0-9_][A-Za-z0-9_.\-]*)\s*(?P<rest>.*)$"
)
_VERSION = r"[A-Za-z0-9_*][A-Za-z0-9_.*+!\-]*"
_CLAUSE = re.compile(rf"^(?:==|=|!=|>=|<=|~=|>|<)?{_VERSION}$")
_WITH_BUILD = re.compile(rf"^(?P<version>={{0,2}}{_VERSION})[= ](?P<build>[A-Za-z0-9_.*]+)$")


@dataclass(frozen=True, slots=True)
class CondaPackage:
    """One dependency. `spec` has no spaces: "" any, "=1.2" fuzzy, "==1.2", ">=1,<2", "1.2|1.3"."""

    line: int
    text: str
    name: str
    spec: str = ""
    build: str = ""
    channel: str = ""

    @property
    def normal(self) -> str:
        channel = f"{self.channel}::" if self.channel else ""
        return f"{channel}{self.name} {self.spec} {self.build}".strip()


@dataclass(frozen=True, slots=True)
class CondaDefinition:
    """`channels` keep their order: the first that has a package wins. Packages have none."""

    channels: tuple[str, ...] = ()
    packages: tuple[CondaPackage, ...] = ()
    pip: PipDefinition = PipDefinition()


def parse_conda(text: str) -> CondaDefinition:
    """The definition in a conda file's text; empty text is an empty definition.

    Raises InvalidInput with the line.
    """
    root = _compose(text)
    if root is None:
        return CondaDefinition()
    if not isinstance(root, MappingNode):
        raise _wrong(root, "the file must be a mapping with `channels:` and `dependencies:`")
    parts = _parts(root)
    channels = tuple(dict.fromkeys(_texts(parts.get("channels"), "channels")))
    packages: list[CondaPackage] = []
    pip_lines: list[tuple[int, str]] = []
    for node in _items(parts.get("dependencies"), "dependencies"):
        if isinstance(node, MappingNode):
            pip_lines += _pip_lines(node)
        elif isinstance(node, ScalarNode):
            packages.append(_package(node))
        else:
            raise _wrong(node, "a dependency is a line such as `- numpy=1.26`, or `- pip:`")
    return CondaDefinition(channels, tuple(packages), from_lines(pip_lines, field=FIELD))


def _compose(text: str) -> Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = _in_words(error.problem or error.context or "it is not YAML")
        if mark is None:
            raise InvalidInput(f"This is not YAML: {reason}.", field=FIELD) from error
        lines = text.splitlines()
        shown = lines[mark.line].strip() if mark.line < len(lines) else "end of the file"
        raise InvalidInput(
            f'Line {mark.line + 1}, column {mark.column + 1}: {reason}, at "{shown}".', field=FIELD
        ) from error
    except yaml.YAMLError as error:
        raise InvalidInput(f"This is not YAML: {error}.", field=FIELD) from error


def _in_words(reason: str) -> str:
    """The parser's reason; in plain words where it speaks of its own tokens."""
    if reason.startswith("expected <block end>"):
        return "this line is not indented like the lines it belongs to"
    if "'\\t'" in reason:
        return "there is a tab; YAML is indented with spaces"
    return reason


def _parts(root: MappingNode) -> dict[str, Node]:
    parts: dict[str, Node] = {}
    for key, value in root.value:
        word = key.value if isinstance(key, ScalarNode) else ""
        if word not in _KEYS:
            if word == "variables":
                raise _wrong(key, "write variables under Environment variables, not in this file")
            close = difflib.get_close_matches(word, _KEYS, n=1)
            hint = f"; write `{close[0]}`" if close else ""
            raise _wrong(key, f"`{word}` is not a key of a conda file{hint}")
        if word in parts:
            raise _wrong(key, f"`{word}` is there twice")
        parts[word] = value
    return parts


def _items(node: Node | None, what: str) -> list[Node]:
    if node is None or (isinstance(node, ScalarNode) and node.value in ("", "null", "~")):
        return []
    if not isinstance(node, SequenceNode):
        raise _wrong(node, f"`{what}` must be a list, each entry on a line that starts with `- `")
    return list(node.value)


def _texts(node: Node | None, what: str) -> list[str]:
    texts = []
    for item in _items(node, what):
        if not isinstance(item, ScalarNode) or not item.value.strip():
            raise _wrong(item, f"each entry of `{what}` must be a name")
        texts.append(item.value.strip())
    return texts


def _pip_lines(node: MappingNode) -> list[tuple[int, str]]:
    keys = [key.value if isinstance(key, ScalarNode) else "" for key, _ in node.value]
    if keys != ["pip"]:
        raise _wrong(node, "only `pip:` may hold a list of its own")
    lines = []
    for item in _items(node.value[0][1], "pip"):
        if not isinstance(item, ScalarNode) or not item.value.strip():
            raise _wrong(
                item, "each entry of `pip` must be a requirement such as `scikit-learn==1.5`"
            )
        lines.append((item.start_mark.line + 1, " ".join(item.value.split())))
    return lines


def _package(node: ScalarNode) -> CondaPackage:
    text = " ".join(node.value.split())
    match = _PACKAGE.match(text)
    if match is None:
        raise _wrong(node, f'"{text}" is not a package; write a line such as `- numpy=1.26`')
    spec, build = _spec(match["rest"])
    if spec is None:
        raise _wrong(
            node, f'the version of "{text}" cannot be read; write `{match["name"]}=1.2` or a range'
        )
    return CondaPackage(
        line=node.start_mark.line + 1,
        text=text,
        name=match["name"].lower(),
        spec=spec,
        build=build,
        channel=match["channel"] or "",
    )


def _spec(rest: str) -> tuple[str | None, str]:
    """A version specification without spaces, and the build string; None when it cannot be read."""
    rest = re.sub(r"\s*([,|=<>!~]+)\s*", r"\1", rest.strip())
    if not rest:
        return "", ""
    if rest.startswith("[") and rest.endswith("]"):
        return rest.replace(" ", ""), ""
    if found := _WITH_BUILD.match(rest):
        return found["version"], found["build"]
    choices = []
    for choice in rest.split("|"):
        clauses = choice.split(",")
        if not all(_CLAUSE.match(clause) for clause in clauses):
            return None, ""
        choices.append(",".join(sorted(set(clauses))))
    return "|".join(sorted(set(choices))), ""


def _wrong(node: Node, reason: str) -> InvalidInput:
    return InvalidInput(f"Line {node.start_mark.line + 1}: {reason}.", field=FIELD)
