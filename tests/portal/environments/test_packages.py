"""What is in an environment, as its page shows it; and what a cluster refuses."""

import dataclasses
from dataclasses import asdict

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from deployments.audit.models import AuditEntry
from deployments.clusters.models import Cluster, Sku
from deployments.environments.changes import create_environment
from deployments.environments.models import BuildState, Environment, EnvironmentBuild
from deployments.images.findings import Finding
from deployments.images.packages import Listing, Package
from deployments.images.sbom import document
from portal.models import User

FOUND = (
    Finding("CVE-1", "jinja2", "3.1.2", "critical", "3.1.3", "https://example.com/1", "Scripts"),
    Finding("CVE-2", "numpy", "1.26", "unknown"),
)
PACKAGES = (
    Package("pypi", "jinja2", "3.1.2", "BSD"),
    Package("pypi", "numpy", "1.26"),
    Package("pypi", "six", "1.16"),
)


@pytest.fixture
def environment(db: None) -> Environment:
    return create_environment(None, name="bare", pip_requirements="six\n")


@pytest.fixture(autouse=True)
def no_scanner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "ENV", dataclasses.replace(settings.ENV, scanner="none"))


def build(environment: Environment, **more: object) -> EnvironmentBuild:
    sbom = document(Listing(PACKAGES), subject="x", kind="application", at=timezone.now())
    values = {"hash": environment.hash, "state": BuildState.READY, "sbom": sbom, **more}
    return EnvironmentBuild.objects.create(**values)


def scanned(environment: Environment) -> EnvironmentBuild:
    return build(
        environment,
        scanner="trivy",
        scanned_at=timezone.now(),
        vulnerabilities=[asdict(item) for item in FOUND],
    )


def page(person: User, environment: Environment, query: str = "") -> str:
    client = Client()
    client.force_login(person)
    url = reverse("environment-packages", args=[environment.name, environment.version])
    return client.get(f"{url}{query}").content.decode()


def test_findings_are_counted_the_unknown_ones_too(viewer: User, environment: Environment) -> None:
    scanned(environment)
    text = page(viewer, environment)
    assert "1 critical" in text
    assert "0 high" in text
    assert "1 unknown" in text
    assert 'href="https://example.com/1"' in text


@pytest.mark.parametrize(
    ("query", "there", "away"),
    [
        ("?severity=critical", "CVE-1", "CVE-2"),
        ("?severity=unknown", "CVE-2", "CVE-1"),
        ("?q=numpy", "CVE-2", "CVE-1"),
        ("?q=cve-1", "CVE-1", "CVE-2"),
    ],
)
def test_findings_are_filtered(
    viewer: User, environment: Environment, query: str, there: str, away: str
) -> None:
    scanned(environment)
    text = page(viewer, environment, query)
    assert there in text
    assert away not in text


def test_where_nobody_looked_the_page_says_so_and_never_none(
    viewer: User, environment: Environment
) -> None:
    build(environment)
    text = page(viewer, environment)
    assert "no scanner is configured, so nothing is known" in text
    assert "not scanned" in text
    assert "0 critical" not in text
    assert "knows of none" not in text


def test_a_scanner_that_found_nothing_is_named(viewer: User, environment: Environment) -> None:
    build(environment, scanner="trivy", scanned_at=timezone.now(), vulnerabilities=[])
    text = page(viewer, environment)
    assert "trivy knows of none" in text
    assert "0 critical" in text


def test_the_list_is_taken_away_as_cyclonedx(viewer: User, environment: Environment) -> None:
    scanned(environment)
    client = Client()
    client.force_login(viewer)
    answer = client.get(reverse("environment-sbom", args=["bare", 1, "venv"]))
    assert answer.json()["bomFormat"] == "CycloneDX"
    assert 'filename="bare-1-venv.cdx.json"' in answer["content-disposition"]
    assert client.get(reverse("environment-sbom", args=["bare", 1, "image"])).status_code == 404


def test_asking_again_takes_a_deployer(
    viewer: User, deployer: User, environment: Environment
) -> None:
    scanned(environment)
    url = reverse("environment-rescan", args=["bare", 1, "venv"])
    client = Client()
    client.force_login(viewer)
    assert client.post(url).status_code == 403
    client.force_login(deployer)
    answer = client.post(url, follow=True)
    assert "No scanner is configured" in answer.content.decode()
    assert EnvironmentBuild.objects.get().scanner == "trivy"


@pytest.fixture
def cluster(db: None) -> Cluster:
    sku, _ = Sku.objects.get_or_create(name="this machine", defaults={"family": "CPU"})
    return Cluster.objects.create(name="local", sku=sku, router_url="http://127.0.0.1:1")


def test_an_administrator_chooses_what_a_cluster_refuses(
    deployer: User, administrator: User, cluster: Cluster
) -> None:
    url = reverse("cluster-refuse", args=["local"])
    client = Client()
    client.force_login(deployer)
    assert client.post(url, {"refuse_severity": "high"}).status_code == 403
    client.force_login(administrator)
    client.post(url, {"refuse_severity": "dreadful"})
    assert Cluster.objects.get().refuse_severity == ""
    answer = client.post(url, {"refuse_severity": "high"}, follow=True)
    assert Cluster.objects.get().refuse_severity == "high"
    assert (
        "Every deployment to this cluster is refused until there is one" in answer.content.decode()
    )
    (entry,) = AuditEntry.objects.filter(action="cluster.refuse_severity")
    assert entry.after == {"refuse_severity": "high"}
