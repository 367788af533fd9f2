"""What a model version may look like, decided from plain values. Nothing is read or loaded here.

The service function and the forms judge by the same functions, so a form can say before an upload
what the registry would say after it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from deployments.errors import InvalidInput
from deployments.registry.archives import clashing_path, safe_relative_path
from deployments.registry.models import Framework, name_validator

MAX_FILES = 10_000
MAX_TAGS = 50
LONGEST_TAG_NAME = 100
LONGEST_TAG_VALUE = 250
LONGEST_SAMPLE = 1 << 20  # characters

# What file names suggest; the register page reads the same two tables.
SUFFIX_HINTS = {
    ".pkl": Framework.SCIKIT_LEARN,
    ".pickle": Framework.SCIKIT_LEARN,
    ".joblib": Framework.SCIKIT_LEARN,
    ".onnx": Framework.ONNX,
}
NAME_HINTS = {"saved_model.pb": Framework.TENSORFLOW}


def framework_hint(paths: Iterable[str]) -> Framework | None:
    """The framework that file names alone suggest, None where they suggest none or several."""
    hints = set()
    for path in paths:
        name = PurePosixPath(path)
        if name.name in NAME_HINTS:
            hints.add(NAME_HINTS[name.name])
        elif name.suffix.lower() in SUFFIX_HINTS:
            hints.add(SUFFIX_HINTS[name.suffix.lower()])
    return hints.pop() if len(hints) == 1 else None


def content_hash(files: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over the sorted (path, sha256) pairs: equal exactly when paths and contents are."""
    hasher = hashlib.sha256()
    for path, sha256 in sorted(files):
        hasher.update(f"{sha256} {path}\n".encode())
    return hasher.hexdigest()


def checked_name(name: str) -> str:
    """The name, or InvalidInput of the field `name`."""
    if not name_validator.regex.fullmatch(name):  # type: ignore[union-attr]
        raise InvalidInput(str(name_validator.message), field="name")
    return name


def checked_paths(paths: Iterable[str]) -> list[str]:
    """The paths made safe, in the order given, or InvalidInput of the field `files`."""
    given = list(paths)
    if not given:
        raise InvalidInput("Choose at least one file or a folder.", field="files")
    if len(given) > MAX_FILES:
        raise InvalidInput(
            f"{len(given):,} files were chosen; a version holds at most {MAX_FILES:,}. "
            "Pack small files into an archive.",
            field="files",
        )
    try:
        safe = [safe_relative_path(path) for path in given]
    except InvalidInput as error:
        raise InvalidInput(error.message, field="files") from error
    clash = clashing_path(safe)
    if clash is not None:
        raise InvalidInput(
            f"Two of the files are called {clash!r}; remove or rename one of them.", field="files"
        )
    return safe


def checked_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags, or InvalidInput of the field `tags`."""
    if len(tags) > MAX_TAGS:
        raise InvalidInput(f"{len(tags)} tags are too many; use at most {MAX_TAGS}.", field="tags")
    for name, value in tags.items():
        if not name or name != name.strip() or "=" in name or not name.isprintable():
            raise InvalidInput(f"A tag cannot be called {name!r}.", field="tags")
        if len(name) > LONGEST_TAG_NAME or len(value) > LONGEST_TAG_VALUE:
            raise InvalidInput(
                f"The tag {name[:40]!r} is too long: names take {LONGEST_TAG_NAME} characters, "
                f"values {LONGEST_TAG_VALUE}.",
                field="tags",
            )
        if not value.isprintable():
            raise InvalidInput(f"The tag {name!r} has a value of several lines.", field="tags")
    return dict(tags)


def parsed_tags(text: str) -> dict[str, str]:
    """Tags from lines of `name=value`; a line without "=" is a tag without a value."""
    tags: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        name, _, value = line.partition("=")
        name = name.strip()
        if not name:
            raise InvalidInput(f"Line {number} has no name before '='.", field="tags")
        if name in tags:
            raise InvalidInput(f"Line {number}: the tag {name!r} is given twice.", field="tags")
        tags[name] = value.strip()
    return checked_tags(tags)


def tags_as_text(tags: Mapping[str, str]) -> str:
    """The inverse of `parsed_tags`."""
    return "\n".join(f"{name}={value}" if value else name for name, value in tags.items())


def checked_sample_input(text: str) -> str:
    """The text when it is empty or strict JSON, else InvalidInput that says the line and column."""
    if not text.strip():
        return ""
    if len(text) > LONGEST_SAMPLE:
        raise InvalidInput(
            f"The sample is {len(text):,} characters long; at most {LONGEST_SAMPLE:,} are kept.",
            field="sample_input",
        )
    try:
        json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InvalidInput(
            f"This is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.",
            field="sample_input",
        ) from error
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidInput(f"This is not JSON: {reason}.", field="sample_input") from error
    return text


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def checked_framework(framework: str, paths: Iterable[str]) -> Framework:
    """The framework; an empty one is what the file names suggest, else Custom."""
    if not framework:
        return framework_hint(paths) or Framework.CUSTOM
    try:
        return Framework(framework)
    except ValueError as error:
        raise InvalidInput(
            f"{framework!r} is not a framework; use one of {', '.join(Framework.values)}.",
            field="framework",
        ) from error


def checked_framework_version(text: str) -> str:
    """Such as "1.9.1", or InvalidInput."""
    version = text.strip()
    if len(version) > 40 or any(c.isspace() or not c.isprintable() for c in version):
        raise InvalidInput(
            "Write the version as the package has it, such as 1.9.1.", field="framework_version"
        )
    return version
