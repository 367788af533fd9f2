"""What is in an image or a virtual environment, what is known against it, and whether a cluster takes it.

For the build of an image, between build and push:

    found = scan.inspect(client, image_id, say, subject=environment.hash)
    scan.keep(build, found)                       # onto the ImageBuild row
    scan.refuse(found, cluster.refuse_severity)   # raises before the push

`inspect` lists and asks the scanner; a scanner that fails makes it no error. An EnvironmentBuild has the same
fields as an ImageBuild.

For what was built before, at each deployment: `scan.vet(build, cluster.refuse_severity, say)`: asks again
when the last answer is older than `FRESH`, keeps it, and refuses. An image that was found in a registry and
never listed needs `inspect` first, where a cluster refuses any severity.

Nothing of an image is run. No list, no scanner or no answer is "cannot tell": `vulnerabilities` is None then,
and a cluster that refuses a severity refuses that too.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils import timezone

from deployments.clusters.models import Severity
from deployments.environments.models import EnvironmentBuild
from deployments.errors import PermanentError, SlipwayError, TemporaryError
from deployments.images import findings, scanners
from deployments.images.findings import Finding
from deployments.images.models import ImageBuild
from deployments.images.packages import MOST_BYTES, Collector, Listing, wanted
from deployments.images.sbom import document, listing_of
from deployments.signals import announce

FRESH = timedelta(hours=24)  # for how long a scanner's answer is taken without asking again
REFUSED, CANNOT_TELL = "VulnerabilitiesFound", "ScanFailed"
_NAMED = 3  # of what is refused, in the cause
Say = Callable[[str], None]
Build = ImageBuild | EnvironmentBuild


@dataclass(frozen=True, slots=True)
class Scan:
    """A list and what is known of it.

    `scanner` is empty where none is configured or it gave no answer (`problem` says why);
    `vulnerabilities` is None then, which is not "none found".
    """

    sbom: dict[str, Any] | None
    scanner: str = ""
    scanned_at: datetime | None = None
    vulnerabilities: tuple[Finding, ...] | None = None
    problem: str = ""

    @property
    def listing(self) -> Listing | None:
        return listing_of(self.sbom) if self.sbom else None


def inspect(client: Any, image: str, say: Say, *, subject: str = "") -> Scan:
    """List an image's packages through the Engine (`deployments.engine.client.connect`) and ask the scanner.

    `image` is an id or a reference the Engine has; `say` gets lines for the build's log; `subject` is the
    name in the document. Raises SlipwayError only when the Engine cannot give the image's files.
    """
    # docker's client library is slow to import, and process clusters never need it
    from deployments.engine import files

    collector = Collector()
    for path, data in files.read(client, image, wanted, most_bytes=MOST_BYTES):
        collector.add(path, data)
    return _scanned(collector.listing(), subject or image, "container", say)


def inspect_folder(venv: Path, say: Say, *, subject: str) -> Scan:
    """The same for a virtual environment of this machine."""
    collector = Collector()
    for file in sorted(venv.glob("lib/python*/site-packages/*-info/*")):
        if wanted(file.as_posix()):
            collector.add(file.as_posix(), file.read_bytes())
    return _scanned(collector.listing(of_image=False), subject, "application", say)


def _scanned(listing: Listing, subject: str, kind: str, say: Say) -> Scan:
    count = len(listing.packages)
    said = f"{count:,} package{'s are' if count != 1 else ' is'} installed"
    say(f"{said}; not listed: {'; '.join(listing.missing)}." if listing.missing else f"{said}.")
    return ask(document(listing, subject=subject, kind=kind, at=timezone.now()), say)


def ask(sbom: dict[str, Any], say: Say) -> Scan:
    """What the scanner knows of a document. A scanner that fails makes a Scan with its `problem`."""
    scanner = scanners.configured(settings.ENV.scanner, settings.ENV.osv_url)
    if scanner is None:
        say("No scanner is configured: whether there are known vulnerabilities is not known.")
        return Scan(sbom)
    try:
        found = findings.ordered(scanner.scan(sbom))
    except SlipwayError as error:
        say(f"Not scanned: {error.message}")
        return Scan(sbom, problem=error.message)
    counted = findings.counts(found)
    told = ", ".join(f"{count} {severity}" for severity, count in counted.items() if count)
    say(f"Known vulnerabilities, by {scanner.name}: {told or 'none'}.")
    return Scan(sbom, scanner.name, timezone.now(), found)


def keep(build: Build, scan: Scan) -> None:
    """Store it with the row. An answer that did not come leaves the one before as it is."""
    values: dict[str, Any] = {"sbom": scan.sbom, "scan_problem": scan.problem}
    if not scan.problem or build.sbom is None or not same_packages(build.sbom, scan.sbom):
        known = scan.vulnerabilities
        values |= {
            "scanner": scan.scanner,
            "scanned_at": scan.scanned_at,
            "vulnerabilities": None if known is None else [asdict(item) for item in known],
        }
    type(build).objects.filter(pk=build.pk).update(**values)
    for name, value in values.items():
        setattr(build, name, value)
    announce("environment", build.hash)


def same_packages(one: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    """Whether two documents list the same."""
    if one is None or other is None:
        return False
    return bool(one.get("components") == other.get("components"))


def kept(build: Build) -> Scan:
    """What is stored with a row."""
    raw = build.vulnerabilities
    found = None if raw is None else tuple(_finding(item) for item in raw)
    return Scan(build.sbom, build.scanner, build.scanned_at, found, build.scan_problem)


def _finding(raw: dict[str, Any]) -> Finding:
    names = Finding.__dataclass_fields__
    values = {name: value for name, value in raw.items() if name in names}
    return Finding(**(values | {"aliases": tuple(values.get("aliases", ()))}))


def vet(build: Build, severity: str, say: Say) -> None:
    """List a virtual environment that was not listed yet, ask the scanner when its answer is old, and refuse.

    Raises PermanentError or TemporaryError where the cluster refuses; never otherwise.
    """
    if build.sbom is None and isinstance(build, EnvironmentBuild) and build.location:
        keep(build, inspect_folder(Path(build.location), say, subject=build.hash))
    elif build.sbom is not None and _is_old(build):
        keep(build, ask(build.sbom, say))
    refuse(kept(build), severity)


def _is_old(build: Build) -> bool:
    if scanners.configured(settings.ENV.scanner, settings.ENV.osv_url) is None:
        return False
    return build.scanned_at is None or build.scanned_at < timezone.now() - FRESH


def rescan(build: Build) -> Scan:
    """Ask the scanner now. Raises PermanentError where there is no list or no scanner."""
    if build.sbom is None:
        raise PermanentError("Its packages are not listed yet; build it first.")
    if scanners.configured(settings.ENV.scanner, settings.ENV.osv_url) is None:
        raise PermanentError(
            "No scanner is configured. Set SLIPWAY_OSV_URL, or install trivy or grype where "
            "Slipway's worker runs."
        )
    found = ask(build.sbom, lambda line: None)
    keep(build, found)
    return found


def refuse(scan: Scan, severity: str) -> None:
    """Raise unless a cluster that refuses `severity` and worse ("" refuses nothing) takes this.

    PermanentError names the worst; TemporaryError: the scanner gave no answer, which is no "yes".
    A finding of unknown severity is let through, and shown.
    """
    if not severity:
        return
    word = Severity(severity).label.lower()
    if scan.vulnerabilities is None:
        if scan.problem:
            raise TemporaryError(
                f"This cluster refuses {word} vulnerabilities, and the scanner gave no answer: "
                f"{scan.problem}",
                delay=30,
                code=CANNOT_TELL,
            )
        why = "its packages are not listed" if scan.sbom is None else "no scanner is configured"
        raise PermanentError(
            f"This cluster refuses {word} vulnerabilities, and whether there are any is not known: "
            f"{why}. Configure a scanner (docs/packages.md), or let the cluster take everything.",
            code=CANNOT_TELL,
        )
    bad = [item for item in scan.vulnerabilities if findings.at_least(item.severity, severity)]
    if not bad:
        return
    worst = "; ".join(_named(item) for item in bad[:_NAMED])
    more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
    raise PermanentError(
        f"This cluster refuses {word} vulnerabilities, and {scan.scanner} knows {len(bad)} of them: "
        f"{worst}{more}. Ask for fixed versions in the environment, then deploy again.",
        code=REFUSED,
        evidence="\n".join(_named(item) + (f" {item.link}" if item.link else "") for item in bad),
    )


def _named(item: Finding) -> str:
    fixed = f"fixed in {item.fixed}" if item.fixed else "no fixed version is known"
    return f"{item.id} ({item.severity}) in {item.package} {item.version}, {fixed}"


def describe(scan: Scan) -> str:
    """One line for a list: "2 critical, 5 high", "none known", "not scanned"."""
    if scan.vulnerabilities is None:
        return "not scanned"
    counted = findings.counts(scan.vulnerabilities)
    told = [f"{count} {severity}" for severity, count in counted.items() if count]
    return ", ".join(told) or "none known"
