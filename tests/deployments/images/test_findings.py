"""Three tellers of vulnerabilities, one form."""

import pytest

from deployments.images import findings
from deployments.images.findings import Finding
from deployments.images.packages import Package, System

DEBIAN = System("debian", "12")
OPENSSL = Package("deb", "libssl3", "3.0.11-1", source="openssl", source_version="3.0.11-1")
JINJA = Package("pypi", "jinja2", "3.1.2")


@pytest.mark.parametrize(
    ("vector", "score", "severity"),
    [
        # the specification's own examples and well known entries
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 9.8, "critical"),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", 10.0, "critical"),
        ("CVSS:3.0/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H", 7.5, "high"),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", 6.1, "medium"),
        ("CVSS:3.1/AV:L/AC:H/PR:L/UI:N/S:U/C:L/I:N/A:N", 2.5, "low"),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N", 0.0, "unknown"),
        ("CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N", None, "unknown"),
        ("7.5", None, "unknown"),
        ("CVSS:3.1/AV:N", None, "unknown"),
    ],
)
def test_a_cvss_3_vector_has_the_score_of_the_specification(
    vector: str, score: float | None, severity: str
) -> None:
    assert findings.base_score(vector) == score
    assert findings.severity_of_vector(vector) == severity


def test_trivys_words_are_read() -> None:
    report = {
        "SchemaVersion": 2,
        "Results": [
            {"Target": "Python", "Class": "lang-pkgs"},
            {
                "Target": "debian",
                "Vulnerabilities": [
                    {
                        "VulnerabilityID": "CVE-2024-1",
                        "PkgName": "libssl3",
                        "InstalledVersion": "3.0.11-1",
                        "FixedVersion": "3.0.15-1",
                        "Severity": "HIGH",
                        "PrimaryURL": "https://avd.example/cve-2024-1",
                        "Title": "openssl: a  flaw",
                    }
                ],
            },
        ],
    }
    assert findings.from_trivy(report) == [
        Finding(
            "CVE-2024-1",
            "libssl3",
            "3.0.11-1",
            "high",
            "3.0.15-1",
            "https://avd.example/cve-2024-1",
            "openssl: a flaw",
        )
    ]


def test_grypes_words_are_read() -> None:
    report = {
        "matches": [
            {
                "vulnerability": {
                    "id": "GHSA-x",
                    "dataSource": "https://github.com/advisories/GHSA-x",
                    "severity": "Negligible",
                    "fix": {"versions": ["3.1.4"], "state": "fixed"},
                },
                "relatedVulnerabilities": [{"id": "CVE-2024-2"}],
                "artifact": {"name": "jinja2", "version": "3.1.2", "type": "python"},
            }
        ]
    }
    (found,) = findings.from_grype(report)
    assert (found.id, found.severity, found.fixed) == ("GHSA-x", "low", "3.1.4")
    assert found.aliases == ("CVE-2024-2",)


@pytest.mark.parametrize("report", [[], {}, {"matches": None}, {"Results": []}])
def test_what_is_not_a_report_is_not_read_as_an_empty_one(report: object) -> None:
    with pytest.raises(ValueError, match="not trivy"):
        findings.from_trivy(report)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not grype"):
        findings.from_grype(report)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("package", "system", "expected"),
    [
        (JINJA, DEBIAN, ("PyPI", "jinja2", "3.1.2")),
        (OPENSSL, DEBIAN, ("Debian:12", "openssl", "3.0.11-1")),
        (OPENSSL, System("ubuntu", "22.04"), ("Ubuntu:22.04:LTS", "openssl", "3.0.11-1")),
        (OPENSSL, System("ubuntu", "23.10"), ("Ubuntu:23.10", "openssl", "3.0.11-1")),
        (Package("apk", "musl", "1"), System("alpine", "3.18.4"), ("Alpine:v3.18", "musl", "1")),
        (OPENSSL, System(), None),
        (Package("conda", "zlib", "1.3"), DEBIAN, None),
    ],
)
def test_osv_is_asked_in_its_own_ecosystems(
    package: Package, system: System, expected: tuple[str, str, str] | None
) -> None:
    query = findings.osv_query(package, system)
    if expected is None:
        assert query is None
        return
    assert query is not None
    assert (query["package"]["ecosystem"], query["package"]["name"], query["version"]) == expected


def test_an_osv_record_names_the_least_fixed_version_that_is_newer() -> None:
    record = {
        "id": "GHSA-h5c8-rqwp-cp95",
        "aliases": ["CVE-2024-22195"],
        "summary": "Jinja vulnerable to XSS",
        "database_specific": {"severity": "MODERATE"},
        "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N"}],
        "affected": [
            {
                "package": {"ecosystem": "PyPI", "name": "Jinja2"},
                "ranges": [
                    {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.11.3"}]},
                    {"type": "ECOSYSTEM", "events": [{"introduced": "3.0"}, {"fixed": "3.1.3"}]},
                    {"type": "GIT", "events": [{"fixed": "deadbeef"}]},
                ],
            },
            {
                "package": {"ecosystem": "npm", "name": "jinja2"},
                "ranges": [{"type": "SEMVER", "events": [{"fixed": "9"}]}],
            },
        ],
        "references": [
            {"type": "WEB", "url": "javascript:alert(1)"},
            {"type": "ADVISORY", "url": "https://github.com/advisories/GHSA-h5c8-rqwp-cp95"},
        ],
    }
    found = findings.from_osv(record, JINJA, DEBIAN)
    assert found == Finding(
        "GHSA-h5c8-rqwp-cp95",
        "jinja2",
        "3.1.2",
        "medium",
        "3.1.3",
        "https://github.com/advisories/GHSA-h5c8-rqwp-cp95",
        "Jinja vulnerable to XSS",
        ("CVE-2024-22195",),
    )
    assert findings.from_osv(record | {"withdrawn": "2024-05-01T00:00:00Z"}, JINJA, DEBIAN) is None


def test_a_record_without_a_severity_is_unknown() -> None:
    found = findings.from_osv({"id": "DSA-1"}, OPENSSL, DEBIAN)
    assert found is not None
    assert found.severity == "unknown"
    assert found.fixed == ""


def test_one_vulnerability_under_two_names_is_one_and_the_worst_is_first() -> None:
    pysec = Finding("PYSEC-1", "jinja2", "3.1.2", "unknown", aliases=("CVE-2024-1",))
    ghsa = Finding("GHSA-1", "jinja2", "3.1.2", "medium", "3.1.3", aliases=("CVE-2024-1",))
    other = Finding("CVE-2024-9", "numpy", "1.0", "critical")
    first, second = findings.ordered([pysec, ghsa, other])
    assert first == other
    assert (second.id, second.severity, second.fixed) == ("CVE-2024-1", "medium", "3.1.3")
    assert second.aliases == ("GHSA-1", "PYSEC-1")


@pytest.mark.parametrize(
    ("severity", "limit", "expected"),
    [
        ("critical", "critical", True),
        ("high", "critical", False),
        ("high", "high", True),
        ("medium", "high", False),
        ("low", "low", True),
        ("unknown", "low", False),
    ],
)
def test_the_limit_itself_is_refused(severity: str, limit: str, expected: bool) -> None:
    assert findings.at_least(severity, limit) is expected
