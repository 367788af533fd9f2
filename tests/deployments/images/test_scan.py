"""Scanning with a real server of OSV's API and real executables that speak as trivy and grype do."""

import dataclasses
import json
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from deployments.environments.models import BuildState, EnvironmentBuild
from deployments.errors import PermanentError, TemporaryError
from deployments.images import scan
from deployments.images.findings import Finding
from deployments.images.packages import Listing, Package, System
from deployments.images.sbom import document
from tests.deployments.images import osv_server

LISTING = Listing(
    (
        Package("deb", "libssl3", "3.0.11", source="openssl", source_version="3.0.11"),
        Package("pypi", "jinja2", "3.1.2"),
        Package("pypi", "numpy", "1.26.4"),
    ),
    System("debian", "12"),
)
HIGH = Finding("CVE-1", "numpy", "1.26.4", "high", "1.26.5")


def sbom() -> dict:
    return document(LISTING, subject="x", kind="application", at=timezone.now())


@pytest.fixture
def configure(settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Choose the scanner; nothing else is on the path."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def choose(scanner: str = "auto", osv_url: str = "") -> None:
        settings.ENV = dataclasses.replace(settings.ENV, scanner=scanner, osv_url=osv_url)

    choose()
    return choose


def executable(folder: Path, name: str, answer: object, *, code: int = 0, said: str = "") -> None:
    """A program that checks what it is given as the real one would, and answers."""
    file = folder / name
    file.write_text(
        f"""\
#!/usr/bin/python3
import json, sys
path = sys.argv[-1].removeprefix("sbom:")
bom = json.load(open(path))
assert bom["bomFormat"] == "CycloneDX", bom
assert "json" in sys.argv, sys.argv
print({said!r}, file=sys.stderr)
print({json.dumps(answer)!r})
sys.exit({code})
"""
    )
    file.chmod(0o755)


def test_osv_is_asked_in_one_batch_and_every_page_is_read(configure) -> None:
    lines: list[str] = []
    with osv_server.serving() as server:
        configure(osv_url=server.url)
        found = scan.ask(sbom(), lines.append)
    assert [(item.id, item.severity, item.fixed) for item in found.vulnerabilities or ()] == [
        ("CVE-2024-22195", "critical", "3.1.3")
    ]
    assert found.scanner == f"OSV at {server.url.removeprefix('http://')}"
    assert [query["package"] for query in server.queries] == [
        {"ecosystem": "Debian:12", "name": "openssl"},
        {"ecosystem": "PyPI", "name": "jinja2"},
        {"ecosystem": "PyPI", "name": "numpy"},
        {"ecosystem": "PyPI", "name": "jinja2"},
    ]
    assert lines == [f"Known vulnerabilities, by {found.scanner}: 1 critical."]


@pytest.mark.parametrize("code", [302, 404, 429, 500])
def test_a_server_that_refuses_leaves_it_unknown(configure, code: int) -> None:
    with osv_server.serving() as server:
        server.fail = code
        configure(osv_url=server.url)
        found = scan.ask(sbom(), lambda line: None)
    assert found.vulnerabilities is None
    assert f"answered {code}" in found.problem


def test_a_server_that_is_away_leaves_it_unknown(configure) -> None:
    with osv_server.serving() as server:
        configure(osv_url=server.url)
    found = scan.ask(sbom(), lambda line: None)
    assert (found.vulnerabilities, found.scanner) == (None, "")
    assert "could not be asked" in found.problem


def test_trivy_on_the_path_is_asked(configure, tmp_path: Path) -> None:
    item = {
        "VulnerabilityID": "CVE-1",
        "PkgName": "numpy",
        "InstalledVersion": "1.26.4",
        "FixedVersion": "1.26.5",
        "Severity": "HIGH",
    }
    executable(tmp_path, "trivy", {"SchemaVersion": 2, "Results": [{"Vulnerabilities": [item]}]})
    found = scan.ask(sbom(), lambda line: None)
    assert found.scanner == "trivy"
    assert found.vulnerabilities == (HIGH,)


def test_grype_is_asked_where_there_is_no_trivy(configure, tmp_path: Path) -> None:
    executable(tmp_path, "grype", {"matches": []})
    found = scan.ask(sbom(), lambda line: None)
    assert (found.scanner, found.vulnerabilities) == ("grype", ())


def test_a_scanner_that_fails_says_why(configure, tmp_path: Path) -> None:
    executable(tmp_path, "trivy", {}, code=1, said="FATAL no database")
    found = scan.ask(sbom(), lambda line: None)
    assert found.vulnerabilities is None
    assert found.problem == "trivy failed with code 1: FATAL no database"


def test_a_scanner_that_babbles_is_no_empty_report(configure, tmp_path: Path) -> None:
    executable(tmp_path, "grype", ["hello"])
    found = scan.ask(sbom(), lambda line: None)
    assert found.vulnerabilities is None
    assert "cannot be read" in found.problem


def test_none_asks_nobody(configure, tmp_path: Path) -> None:
    executable(tmp_path, "trivy", {"SchemaVersion": 2})
    configure(scanner="none")
    found = scan.ask(sbom(), lambda line: None)
    assert (found.vulnerabilities, found.problem, scan.describe(found)) == (None, "", "not scanned")


def test_a_virtual_environment_is_listed(configure, tmp_path: Path) -> None:
    packages = tmp_path / "venv/lib/python3.11/site-packages"
    (packages / "numpy-1.26.4.dist-info").mkdir(parents=True)
    (packages / "numpy-1.26.4.dist-info/METADATA").write_text("Name: numpy\nVersion: 1.26.4\n")
    lines: list[str] = []
    found = scan.inspect_folder(tmp_path / "venv", lines.append, subject="abc")
    assert found.listing is not None
    assert found.listing.packages == (Package("pypi", "numpy", "1.26.4"),)
    assert lines[0] == "1 package is installed."


@pytest.mark.parametrize("severity", ["", "critical"])
def test_a_cluster_takes_what_is_not_as_bad(severity: str) -> None:
    scan.refuse(scan.Scan(sbom(), "trivy", timezone.now(), (HIGH,)), severity)


@pytest.mark.parametrize("severity", ["high", "medium", "low"])
def test_a_cluster_refuses_and_names_the_worst(severity: str) -> None:
    with pytest.raises(PermanentError) as caught:
        scan.refuse(scan.Scan(sbom(), "trivy", timezone.now(), (HIGH,)), severity)
    assert caught.value.code == "VulnerabilitiesFound"
    assert "CVE-1 (high) in numpy 1.26.4, fixed in 1.26.5" in caught.value.message


def test_a_cluster_that_refuses_refuses_what_nobody_scanned() -> None:
    scan.refuse(scan.Scan(None), "")
    with pytest.raises(PermanentError, match="no scanner is configured"):
        scan.refuse(scan.Scan(sbom()), "low")
    with pytest.raises(PermanentError, match="not listed"):
        scan.refuse(scan.Scan(None), "low")
    with pytest.raises(TemporaryError, match="gave no answer: away"):
        scan.refuse(scan.Scan(sbom(), problem="away"), "low")


@pytest.fixture
def build(db: None, tmp_path: Path) -> EnvironmentBuild:
    packages = tmp_path / "venv/lib/python3.11/site-packages/jinja2-3.1.2.dist-info"
    packages.mkdir(parents=True)
    (packages / "METADATA").write_text("Name: Jinja2\nVersion: 3.1.2\n")
    return EnvironmentBuild.objects.create(
        hash="a" * 64, state=BuildState.READY, location=str(tmp_path / "venv")
    )


def test_an_environment_is_listed_scanned_and_refused_once(configure, build) -> None:
    with osv_server.serving() as server:
        configure(osv_url=server.url)
        for _ in range(2):
            with pytest.raises(PermanentError, match="CVE-2024-22195"):
                scan.vet(build, "high", lambda line: None)
        assert len(server.queries) == 2  # its two pages, once
    stored = scan.kept(EnvironmentBuild.objects.get())
    assert scan.describe(stored) == "1 critical"


def test_an_old_answer_is_asked_again_and_outlives_a_server_that_is_away(configure, build) -> None:
    with osv_server.serving() as server:
        configure(osv_url=server.url)
        scan.vet(build, "", lambda line: None)
        EnvironmentBuild.objects.update(scanned_at=timezone.now() - scan.FRESH - timedelta(hours=1))
        build.refresh_from_db()
        server.fail = 500
        scan.vet(build, "", lambda line: None)
    stored = scan.kept(EnvironmentBuild.objects.get())
    assert scan.describe(stored) == "1 critical"
    assert "answered 500" in stored.problem


def test_an_environment_that_was_built_anew_has_no_old_findings(configure, build) -> None:
    with osv_server.serving() as server:
        configure(osv_url=server.url)
        scan.vet(build, "", lambda line: None)
        server.fail = 500
        other = scan.ask(sbom(), lambda line: None)
    scan.keep(build, other)
    assert scan.kept(EnvironmentBuild.objects.get()).vulnerabilities is None


def test_asking_again_needs_a_list_and_a_scanner(configure, build) -> None:
    with pytest.raises(PermanentError, match="not listed"):
        scan.rescan(build)
    scan.vet(build, "", lambda line: None)
    with pytest.raises(PermanentError, match="No scanner"):
        scan.rescan(build)
