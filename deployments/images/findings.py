"""Known vulnerabilities as the scanners tell of them, in one form.

PURE. Three tellers: trivy's JSON (schema 2, trivy 0.20 and newer), grype's JSON (0.40 and newer), and
records of the OSV schema (1.x). A severity nobody told is `unknown`: neither low nor nothing.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from packaging.version import InvalidVersion, Version

from deployments.images.packages import Package, System, normal

UNKNOWN = "unknown"
SEVERITIES = ("critical", "high", "medium", "low", UNKNOWN)  # the worst first
_WORDS = {
    "critical": "critical",
    "high": "high",
    "important": "high",
    "medium": "medium",
    "moderate": "medium",
    "low": "low",
    "negligible": "low",
    "minor": "low",
    "unimportant": "low",
}
_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Finding:
    """A known vulnerability of one installed package. `fixed` names versions, or is empty: none is known."""

    id: str
    package: str
    version: str
    severity: str
    fixed: str = ""
    link: str = ""
    summary: str = ""
    aliases: tuple[str, ...] = ()


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """How many of each severity, the worst first; those of which there are none are 0."""
    counted = Counter(finding.severity for finding in findings)
    return {severity: counted[severity] for severity in SEVERITIES}


def at_least(severity: str, limit: str) -> bool:
    """Whether it is as bad as the limit. What is unknown is not: see `scan.refuse`."""
    return severity != UNKNOWN and SEVERITIES.index(severity) <= SEVERITIES.index(limit)


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The worst first, each once: scanners tell one vulnerability under several names."""
    kept: dict[tuple[str, str, str], Finding] = {}
    for finding in findings:
        names = {finding.id, *finding.aliases}
        same = next(
            (
                key
                for key, other in kept.items()
                if key[:2] == (finding.package, finding.version)
                and names & {other.id, *other.aliases}
            ),
            None,
        )
        if same is None:
            named = _merged(finding, finding)
            kept[finding.package, finding.version, named.id] = named
        else:
            kept[same] = _merged(kept[same], finding)
    return tuple(
        sorted(
            kept.values(),
            key=lambda item: (SEVERITIES.index(item.severity), item.package, item.id),
        )
    )


def _merged(one: Finding, other: Finding) -> Finding:
    worse = min(one.severity, other.severity, key=SEVERITIES.index)
    names = {one.id, other.id, *one.aliases, *other.aliases}
    # the name people search for
    chosen = next((name for name in sorted(names) if name.startswith("CVE-")), one.id)
    return replace(
        one,
        id=chosen,
        severity=worse,
        fixed=one.fixed or other.fixed,
        link=one.link or other.link,
        summary=one.summary or other.summary,
        aliases=tuple(sorted(names - {chosen})),
    )


def severity_word(text: object) -> str:
    return _WORDS.get(str(text or "").strip().lower(), UNKNOWN)


def from_trivy(report: Mapping[str, Any]) -> list[Finding]:
    """`trivy ... --format json`. Raises ValueError for anything else."""
    if not isinstance(report, Mapping) or "SchemaVersion" not in report:
        raise ValueError("this is not trivy's JSON")
    return [
        Finding(
            id=str(item["VulnerabilityID"]),
            package=str(item.get("PkgName", "")),
            version=str(item.get("InstalledVersion", "")),
            severity=severity_word(item.get("Severity")),
            fixed=_short(item.get("FixedVersion")),
            link=_link(item.get("PrimaryURL")),
            summary=_short(item.get("Title")),
        )
        for result in report.get("Results") or []
        for item in result.get("Vulnerabilities") or []
    ]


def from_grype(report: Mapping[str, Any]) -> list[Finding]:
    """`grype ... -o json`. Raises ValueError for anything else."""
    if not isinstance(report, Mapping) or not isinstance(report.get("matches"), list):
        raise ValueError("this is not grype's JSON")
    found = []
    for match in report["matches"]:
        item, artifact = match["vulnerability"], match.get("artifact") or {}
        fix = item.get("fix") or {}
        related = [str(each["id"]) for each in match.get("relatedVulnerabilities") or []]
        found.append(
            Finding(
                id=str(item["id"]),
                package=str(artifact.get("name", "")),
                version=str(artifact.get("version", "")),
                severity=severity_word(item.get("severity")),
                fixed=_short(", ".join(map(str, fix.get("versions") or []))),
                link=_link(item.get("dataSource")),
                summary=_short(item.get("description")),
                aliases=tuple(name for name in related if name != item["id"]),
            )
        )
    return found


def osv_query(package: Package, system: System) -> dict[str, Any] | None:
    """One query of OSV's `/v1/querybatch`; None for what its ecosystems do not cover.

    Advisories of Debian and its like name what a package was built from, not the package.
    """
    if package.kind == "pypi":
        return _query("PyPI", package.name, package.version)
    ecosystem = _ecosystem(system)
    if package.kind in ("deb", "apk") and ecosystem:
        return _query(
            ecosystem, package.source or package.name, package.source_version or package.version
        )
    return None


def _query(ecosystem: str, name: str, version: str) -> dict[str, Any]:
    return {"package": {"ecosystem": ecosystem, "name": name}, "version": version}


def _ecosystem(system: System) -> str:
    major = system.version.partition(".")[0]
    if system.id == "debian" and major:
        return f"Debian:{major}"
    if system.id == "ubuntu" and system.version:
        lts = system.version.endswith(".04") and major.isdigit() and int(major) % 2 == 0
        return f"Ubuntu:{system.version}{':LTS' if lts else ''}"
    if system.id == "alpine" and system.version.count(".") >= 1:
        return "Alpine:v" + ".".join(system.version.split(".")[:2])
    return ""


def from_osv(record: Mapping[str, Any], package: Package, system: System) -> Finding | None:
    """An OSV record for a package it was found for; None for one that was withdrawn."""
    if record.get("withdrawn"):
        return None
    query = osv_query(package, system) or {"package": {"ecosystem": "", "name": package.name}}
    affected = [
        item
        for item in record.get("affected") or []
        if _same_package(item.get("package") or {}, query["package"])
    ]
    return Finding(
        id=str(record["id"]),
        package=package.name,
        version=package.version,
        severity=_osv_severity(record, affected),
        fixed=_osv_fixed(affected, package),
        link=_osv_link(record),
        summary=_short(record.get("summary") or record.get("details")),
        aliases=tuple(str(name) for name in record.get("aliases") or []),
    )


def _same_package(told: Mapping[str, Any], asked: Mapping[str, str]) -> bool:
    ecosystem, name = str(told.get("ecosystem", "")), str(told.get("name", ""))
    if ecosystem.partition(":")[0] != asked["ecosystem"].partition(":")[0]:
        return False
    if ecosystem != "PyPI":
        return name == asked["name"] and ecosystem in (
            asked["ecosystem"],
            ecosystem.partition(":")[0],
        )
    return normal(name) == asked["name"]


def _osv_severity(record: Mapping[str, Any], affected: list[Any]) -> str:
    """The worst that anything in the record says: a word, or CVSS 3's base score. CVSS 4 is not reckoned."""
    said = [severity_word((record.get("database_specific") or {}).get("severity"))]
    for item in affected:
        for where in ("ecosystem_specific", "database_specific"):
            specific = item.get(where) or {}
            said += [
                severity_word(specific.get("severity")),
                severity_word(specific.get("urgency")),
            ]
    scores = [
        *(record.get("severity") or []),
        *(x for a in affected for x in a.get("severity") or []),
    ]
    said += [severity_of_vector(str(item.get("score", ""))) for item in scores]
    said += [severity_word(item.get("score")) for item in scores]  # Ubuntu's are words
    return min(said, key=SEVERITIES.index)


def _osv_fixed(affected: list[Any], package: Package) -> str:
    fixed = [
        str(event["fixed"])
        for item in affected
        for span in item.get("ranges") or []
        if span.get("type") != "GIT"
        for event in span.get("events") or []
        if "fixed" in event
    ]
    if package.kind == "pypi":
        try:
            newer = [text for text in fixed if Version(text) > Version(package.version)]
            return min(newer, key=Version) if newer else ""
        except InvalidVersion:
            pass
    return _short(", ".join(dict.fromkeys(fixed)))


def _osv_link(record: Mapping[str, Any]) -> str:
    links = record.get("references") or []
    for kind in ("ADVISORY", "WEB", "REPORT", "FIX"):
        for item in links:
            if item.get("type") == kind and (found := _link(item.get("url"))):
                return found
    return ""


def _link(text: object) -> str:
    """Only what a page may link to: a scanner's words are not trusted."""
    found = str(text or "").strip()
    return found[:500] if re.match(r"^https?://[^\s\"'<>]+$", found) else ""


def _short(text: object) -> str:
    line = " ".join(str(text or "").split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


# --- CVSS 3 (first.org, specification 3.1, section 7.1) ---------------------------------------------------

_METRICS: dict[str, dict[str, float]] = {
    "AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2},
    "AC": {"L": 0.77, "H": 0.44},
    "UI": {"N": 0.85, "R": 0.62},
    "C": {"H": 0.56, "L": 0.22, "N": 0.0},
    "I": {"H": 0.56, "L": 0.22, "N": 0.0},
    "A": {"H": 0.56, "L": 0.22, "N": 0.0},
}
_PRIVILEGES = {"U": {"N": 0.85, "L": 0.62, "H": 0.27}, "C": {"N": 0.85, "L": 0.68, "H": 0.5}}


def base_score(vector: str) -> float | None:
    """CVSS 3.0 or 3.1's base score of a vector; None for any other text."""
    if not re.match(r"^CVSS:3\.[01]/", vector):
        return None
    told = dict(part.split(":", 1) for part in vector.split("/")[1:] if ":" in part)
    try:
        scope = told["S"]
        value = {name: table[told[name]] for name, table in _METRICS.items()}
        privileges = _PRIVILEGES[scope][told["PR"]]
    except KeyError:
        return None
    impact = 1 - (1 - value["C"]) * (1 - value["I"]) * (1 - value["A"])
    changed = 7.52 * (impact - 0.029) - 3.25 * (impact - 0.02) ** 15
    reached = 6.42 * impact if scope == "U" else changed
    if reached <= 0:
        return 0.0
    ease = 8.22 * value["AV"] * value["AC"] * privileges * value["UI"]
    total = reached + ease if scope == "U" else 1.08 * (reached + ease)
    return _up(min(total, 10.0))


def _up(score: float) -> float:
    """To one digit, upwards, without what floating point adds."""
    whole = round(score * 100_000)
    return whole / 100_000 if whole % 10_000 == 0 else (math.floor(whole / 10_000) + 1) / 10


def severity_of_vector(vector: str) -> str:
    score = base_score(vector)
    if score is None or score == 0:
        return UNKNOWN
    if score >= 9:
        return "critical"
    return "high" if score >= 7 else "medium" if score >= 4 else "low"
