"""What is installed in an image or a virtual environment, read from the lists that installers leave behind.

PURE. Nothing of an image is run: its files are looked at by name (`wanted`) and by content (`Collector`).
Python's packages are in METADATA files, Debian's in dpkg's status, Alpine's in apk's list, conda's in
`conda-meta`. A list that is not there is unknown, not empty: `Listing.missing` says what could not be told.
"""

import json
import re
from dataclasses import dataclass, field
from email.parser import HeaderParser
from urllib.parse import quote

MOST_BYTES = 16 * 2**20  # of one list; dpkg's status of a large system has a few
_LONGEST = 300  # characters of a name, a version or a licence
_PYTHON = re.compile(r"\.(?:dist-info/METADATA|egg-info/PKG-INFO|egg-info)$")
_CONDA = re.compile(r"(?:^|/)conda-meta/[^/]+\.json$")
_DPKG = re.compile(r"^var/lib/dpkg/status(?:\.d/[^/]+)?$")
_APK = "lib/apk/db/installed"
_RPM = re.compile(r"^(?:var|usr)/lib/(?:sysimage/)?rpm/(?:rpmdb\.sqlite|Packages(?:\.db)?)$")
_RELEASE = ("etc/os-release", "usr/lib/os-release")


@dataclass(frozen=True, slots=True)
class Package:
    """One installed package. `kind` is a package URL's type: pypi, deb, apk or conda.

    `source` and `source_version` are what a Debian or Alpine package was built from: advisories name that.
    """

    kind: str
    name: str
    version: str
    license: str = ""
    source: str = ""
    source_version: str = ""
    arch: str = ""


@dataclass(frozen=True, slots=True)
class System:
    """The distribution, as /etc/os-release names it; empty where there is none."""

    id: str = ""
    version: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """Packages in order, the distribution, and what could not be listed, in words."""

    packages: tuple[Package, ...]
    system: System = System()
    missing: tuple[str, ...] = ()


def wanted(path: str) -> bool:
    """Whether this file (POSIX, relative to the root) says anything of what is installed."""
    return bool(
        path in _RELEASE
        or path == _APK
        or _DPKG.match(path)
        or _PYTHON.search(path)
        or _CONDA.search(path)
        or _RPM.match(path)
    )


@dataclass(slots=True)
class Collector:
    """Takes files one by one, in any order; `listing()` is what they came to."""

    _found: dict[Package, None] = field(default_factory=dict)
    _system: System = System()
    _rpm: bool = False
    _system_list: bool = False

    def add(self, path: str, data: bytes) -> None:
        """Take a file that is `wanted`. One that says nothing readable is left out."""
        text = data[:MOST_BYTES].decode("utf-8", "replace")
        if path in _RELEASE:
            self._system = parse_release(text) or self._system
        elif path == _APK:
            self._take_system(parse_apk(text))
        elif _DPKG.match(path):
            self._take_system(parse_dpkg(text))
        elif _RPM.match(path):
            self._rpm = True
        elif _CONDA.search(path):
            self._take([parse_conda(text)])
        else:
            self._take([parse_metadata(text)])

    def listing(self, *, of_image: bool = True) -> Listing:
        """`of_image` False: a virtual environment, which has no system of its own."""
        missing: list[str] = []
        if of_image and self._rpm:
            missing.append("its RPM packages: their database is not read")
        elif of_image and not self._system_list:
            missing.append("packages of its system: it has no list of dpkg or apk")
        ordered = sorted(self._found, key=lambda item: (item.kind, item.name.lower(), item.version))
        return Listing(tuple(ordered), self._system, tuple(missing))

    def _take(self, packages: list[Package | None]) -> None:
        for package in packages:
            if package is not None:
                self._found[package] = None

    def _take_system(self, packages: list[Package]) -> None:
        self._system_list = True
        self._take([*packages])


def normal(name: str) -> str:
    """A Python package's name as indexes know it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_metadata(text: str) -> Package | None:
    """A Python distribution's METADATA or PKG-INFO."""
    fields = HeaderParser().parsestr(text)
    name, version = str(fields.get("Name") or ""), str(fields.get("Version") or "")
    if not name or not version:
        return None
    said = str(fields.get("License-Expression") or fields.get("License") or "")
    return Package("pypi", normal(_short(name)), _short(version), _one_line(said))


def parse_dpkg(text: str) -> list[Package]:
    """dpkg's status: paragraphs; what was removed and left its configuration is not installed."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        fields = _fields(paragraph)
        name, version = fields.get("package", ""), fields.get("version", "")
        state = fields.get("status", "install ok installed")
        if not name or not version or not state.endswith(" installed"):
            continue
        source, _, its_version = fields.get("source", "").partition(" ")
        found.append(
            Package(
                "deb",
                name,
                version,
                source=source or name,
                source_version=its_version.strip("() ") or version,
                arch=fields.get("architecture", ""),
            )
        )
    return found


def parse_apk(text: str) -> list[Package]:
    """apk's list of what is installed: a letter, a colon and a value a line."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        for line in paragraph.splitlines():
            letter, colon, value = line.partition(":")
            if colon and len(letter) == 1:
                fields.setdefault(letter, _short(value.strip()))
        if fields.get("P") and fields.get("V"):
            found.append(
                Package(
                    "apk",
                    fields["P"],
                    fields["V"],
                    fields.get("L", ""),
                    source=fields.get("o", fields["P"]),
                    source_version=fields["V"],
                    arch=fields.get("A", ""),
                )
            )
    return found


def parse_conda(text: str) -> Package | None:
    """A record of `conda-meta`. Python's own packages are in METADATA as well, under their own name."""
    try:
        raw = json.loads(text)
        name, version = str(raw["name"]), str(raw["version"])
        return Package(
            "conda", _short(name), _short(version), _one_line(str(raw.get("license") or ""))
        )
    except (ValueError, KeyError, TypeError):
        return None


def parse_release(text: str) -> System | None:
    fields = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            fields[name.strip()] = _short(value.strip().strip("'\""))
    if not fields.get("ID"):
        return None
    return System(fields["ID"], fields.get("VERSION_ID", ""), fields.get("PRETTY_NAME", ""))


def purl(package: Package, system: System) -> str:
    """The package URL, which says the same thing to every tool."""
    version = quote(package.version, safe="")
    name = quote(package.name, safe="")
    if package.kind not in ("deb", "apk"):
        return f"pkg:{package.kind}/{name}@{version}"
    vendor = quote(system.id or ("debian" if package.kind == "deb" else "alpine"), safe="")
    said = []
    if package.arch:
        said.append(f"arch={quote(package.arch, safe='')}")
    if system.version:
        said.append(f"distro={quote(f'{system.id}-{system.version}', safe='')}")
    qualifiers = f"?{'&'.join(said)}" if said else ""
    return f"pkg:{package.kind}/{vendor}/{name}@{version}{qualifiers}"


def _fields(paragraph: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in paragraph.splitlines():
        name, colon, value = line.partition(":")
        if colon and not line[:1].isspace():
            found.setdefault(name.lower(), _short(value.strip()))
    return found


def _one_line(text: str) -> str:
    """A licence's name; some packages put its whole text there, which is no name."""
    line = text.strip().splitlines()[0].strip() if text.strip() else ""
    return "" if line == "UNKNOWN" or line.lower().startswith("copyright") else line[:120]


def _short(text: str) -> str:
    return text[:_LONGEST]
