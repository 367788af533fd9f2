"""How an environment's packages are cut into layers, so that the next one shares most of them.

PURE. A large package has a layer of its own, small ones share a few, chosen by their names; what belongs to
no package comes last. Two environments that have a package in the same version then have that layer in
common, and it is neither pushed, nor pulled, nor stored twice. For that a layer must be the same to the
byte: times of files are set to one moment, and compiled files are not checked by the time of their source.

The cutting itself runs in the builder container (`SCRIPT`), by the base image's Python.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PREFIX = "/opt/slipway"  # where the packages are in the image
FOLDER = "/opt/slipway-layers"  # where each layer's tree is, in the image that the builder leaves
LABEL = "slipway.layers"  # of an image: its layers as `text` writes them
_SAID = "Layers:"
_LAYER = re.compile(r"([a-z0-9][a-z0-9._-]{0,80})=([0-9a-f]{16})")


@dataclass(frozen=True, slots=True)
class Layer:
    """Its folder's name, and a digest of what is in it: two that are equal are the same to the byte."""

    name: str
    digest: str


def said(lines: Iterable[str]) -> tuple[Layer, ...]:
    """The layers that the script said it made; none when it made none."""
    for line in reversed(list(lines)):
        if line.startswith(_SAID):
            return parse(line.removeprefix(_SAID))
    return ()


def parse(text: str) -> tuple[Layer, ...]:
    """Layers from a label, or from what the script says; words that are none are left out."""
    found = (_LAYER.fullmatch(word) for word in text.split())
    return tuple(Layer(match[1], match[2]) for match in found if match)


def text(layers: Iterable[Layer]) -> str:
    return " ".join(f"{layer.name}={layer.digest}" for layer in layers)


def ordered(layers: Sequence[Layer], others: Iterable[Sequence[Layer]]) -> tuple[Layer, ...]:
    """The same layers, those first with which one of the `others` begins, in its order: an Engine that
    has that image need not make them again."""
    there = frozenset(layers)
    longest: Sequence[Layer] = ()
    for other in others:
        count = next((n for n, item in enumerate(other) if item not in there), len(other))
        if count > len(longest):
            longest = other[:count]
    first = dict.fromkeys(longest)
    return (*first, *(layer for layer in layers if layer not in first))


# Raises nothing on an odd environment: what it cannot place stays in the last layer.
SCRIPT = f"""
import csv, hashlib, os, pathlib, re, zlib

LARGE, MOST, SHARED = 4 << 20, 24, 8
MOMENT = (315532800, 315532800)  # 1980: the first that a zip file can hold
prefix, folder = pathlib.Path("{PREFIX}"), pathlib.Path("{FOLDER}")
site = next(prefix.glob("lib/python*/site-packages"))

def belongings(info):
    found = []
    with open(info / "RECORD", newline="", encoding="utf-8") as record:
        for row in csv.reader(record):
            path = pathlib.Path(os.path.normpath(site / row[0])) if row else prefix
            if prefix in path.parents:
                found.append(path)
                if path.suffix == ".py":
                    found += path.parent.glob(f"__pycache__/{{path.stem}}.*.pyc")
    return [path for path in dict.fromkeys(found) if path.is_symlink() or path.is_file()]

packages, owned = {{}}, set()
for info in sorted(site.glob("*.dist-info")):
    try:
        files = [path for path in belongings(info) if path not in owned]
    except (OSError, UnicodeError, csv.Error):
        continue
    owned.update(files)
    name = re.sub(r"[^a-z0-9]+", "-", info.name.split("-")[0].lower()).strip("-")
    if name:
        packages[name] = files
sizes = {{name: sum(path.lstat().st_size for path in files) for name, files in packages.items()}}
large = sorted(name for name in sizes if sizes[name] >= LARGE)
large = sorted(sorted(large, key=sizes.get)[-MOST:])
layers = {{name: packages.pop(name) for name in large}}
for name in sorted(packages):
    layers.setdefault(f"small.{{zlib.crc32(name.encode()) % SHARED}}", []).extend(packages[name])
for name, files in layers.items():
    for path in files:
        place = folder / name / path.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
for parent, folders, files in os.walk(site, topdown=False):
    if not os.listdir(parent):
        os.rmdir(parent)  # its files are elsewhere now
rest = folder / "rest" / prefix.relative_to("/")
rest.parent.mkdir(parents=True)
prefix.rename(rest)
for parent, folders, files in os.walk(folder, topdown=False):
    for name in (*folders, *files):
        os.utime(os.path.join(parent, name), MOMENT, follow_symlinks=False)

def digest(tree):
    whole = hashlib.sha256()
    for path in sorted(tree.rglob("*")):
        state = path.lstat()
        whole.update(f"{{path.relative_to(tree)}}\\0{{state.st_mode}}\\0{{state.st_size}}\\0".encode())
        if path.is_symlink():
            whole.update(os.readlink(path).encode())
        elif path.is_file():
            whole.update(path.read_bytes())
    return whole.hexdigest()[:16]

shared = sorted(name for name in layers if name not in large)
print("{_SAID}", *(f"{{name}}={{digest(folder / name)}}" for name in (*large, *shared, "rest")), flush=True)
"""
