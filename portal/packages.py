"""What is in a built environment, as a page shows it. Reads stored lists only; asks no scanner."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from deployments.environments.models import BuildState, EnvironmentBuild
from deployments.images import findings, scan
from deployments.images.findings import Finding
from deployments.images.models import ImageBuild
from deployments.images.packages import Package
from deployments.images.scan import Scan
from portal.forms.packages import IMAGE, VENV

MOST_ROWS = 500  # of a table; the document that is downloaded has all
KINDS = {"pypi": "Python", "deb": "Debian", "apk": "Alpine", "conda": "conda"}


@dataclass(frozen=True, slots=True)
class Standing:
    """One build of a hash with what is known of it. `of` is "venv" or "image"."""

    of: str
    label: str
    build: EnvironmentBuild | ImageBuild
    scan: Scan

    @property
    def counts(self) -> list[tuple[str, int]] | None:
        """(severity, how many), the worst first; None: not scanned."""
        found = self.scan.vulnerabilities
        return None if found is None else list(findings.counts(found).items())

    @property
    def packages(self) -> int | None:
        """How many are installed; None: not listed."""
        return len(listing.packages) if (listing := self.scan.listing) is not None else None


@dataclass(frozen=True, slots=True)
class PackageRow:
    package: Package
    kind: str
    worst: str  # the worst severity known of it, or empty
    count: int


def standings(environment_hash: str) -> list[Standing]:
    """What was built for a hash: on this machine, as an image, both or neither."""
    found = []
    venv = EnvironmentBuild.objects.filter(hash=environment_hash, state=BuildState.READY).first()
    if venv is not None:
        found.append(Standing(VENV, "Virtual environment", venv, scan.kept(venv)))
    image = ImageBuild.objects.filter(hash=environment_hash).exclude(state=BuildState.REMOVED)
    if (row := image.first()) is not None:
        found.append(Standing(IMAGE, "Image", row, scan.kept(row)))
    return found


def matching(found: Sequence[Finding], text: str, severity: str) -> list[Finding]:
    """Findings of this severity ("" any) that hold the text in a name."""
    wanted = text.strip().lower()
    return [
        item
        for item in found
        if severity in ("", item.severity)
        and any(wanted in name.lower() for name in (item.id, item.package, *item.aliases))
    ]


def package_rows(standing: Standing, text: str) -> list[PackageRow]:
    """Installed packages whose name holds the text, those with findings first."""
    listing = standing.scan.listing
    if listing is None:
        return []
    known = standing.scan.vulnerabilities or ()
    of_package: Counter[tuple[str, str]] = Counter()
    worst: dict[tuple[str, str], str] = {}
    for item in known:  # the worst come first
        of_package[item.package, item.version] += 1
        worst.setdefault((item.package, item.version), item.severity)
    wanted = text.strip().lower()
    rows = [
        PackageRow(
            package,
            KINDS.get(package.kind, package.kind),
            worst.get((package.name, package.version), ""),
            of_package[package.name, package.version],
        )
        for package in listing.packages
        if wanted in package.name.lower()
    ]
    rows.sort(key=lambda row: -row.count)
    return rows
