"""Which files of a project folder are sent to replicas. Reads ignore files; changes nothing.

`.amlignore` in the folder's root wins: where it is, `.gitignore` files say nothing. Otherwise each
`.gitignore` rules its own folder and those below it, as git has it. `.git` is never sent.
"""

from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from deployments.errors import PermanentError


@dataclass(frozen=True, slots=True)
class Selection:
    """POSIX paths to send, sorted, and what left the others out ("" when nothing did)."""

    files: tuple[str, ...]
    ignored: int
    rules: str


_Rules = tuple[str, GitIgnoreSpec]  # the folder they rule ("" or "a/b/"), and the patterns


def select(folder: Path) -> Selection:
    """Raises PermanentError for an ignore file that cannot be read."""
    aml = folder / ".amlignore"
    kept: list[str] = []
    if aml.is_file():
        rules, nested = [("", _spec(aml, ".amlignore"))], False
    else:
        rules, nested = [], True
    found_git = _walk(folder, "", rules, nested, kept)
    total = sum(1 for path in folder.rglob("*") if path.is_file())
    named = ".amlignore" if not nested else ".gitignore" if found_git else ""
    return Selection(tuple(sorted(kept)), total - len(kept), named)


def _walk(folder: Path, prefix: str, rules: list[_Rules], nested: bool, kept: list[str]) -> bool:
    """Collect what is kept below `prefix`; whether a .gitignore was met."""
    found = False
    own = folder / prefix / ".gitignore"
    if nested and own.is_file():
        found = True
        rules = [*rules, (prefix, _spec(own, f"{prefix}.gitignore"))]
    for entry in sorted((folder / prefix).iterdir()):
        path = f"{prefix}{entry.name}"
        if entry.is_dir():
            # an ignored folder is not looked into, so nothing below it can be taken back in
            if entry.name != ".git" and not _ignored(f"{path}/", rules):
                found |= _walk(folder, f"{path}/", rules, nested, kept)
        elif not _ignored(path, rules):
            kept.append(path)
    return found


def _ignored(path: str, rules: list[_Rules]) -> bool:
    """The nearest rules that know the path decide."""
    for prefix, spec in reversed(rules):
        verdict = spec.check_file(path[len(prefix) :]).include
        if verdict is not None:
            return verdict
    return False


def _spec(path: Path, name: str) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines(path.read_text(encoding="utf-8").splitlines())
    except (ValueError, OSError) as error:
        raise PermanentError(
            f"{name} cannot be read: {error}. Mend it or leave it out.", code="InvalidIgnoreFile"
        ) from error
