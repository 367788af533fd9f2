"""The CycloneDX document, held to what the 1.5 schema requires of the fields we write."""

import json
import re
from datetime import UTC, datetime

from deployments.images.packages import Listing, Package, System
from deployments.images.sbom import document, listing_of

AT = datetime(2026, 11, 22, 20, 0, tzinfo=UTC)
LISTING = Listing(
    (
        Package("deb", "libssl3", "3.0.15", source="openssl", source_version="3.0.15"),
        Package("pypi", "numpy", "1.26.4", "BSD-3-Clause"),
        Package("pypi", "numpy", "1.26.4", "another copy, another licence"),
    ),
    System("debian", "12", "Debian 12"),
    ("its RPM packages: their database is not read",),
)


def made() -> dict:
    return document(LISTING, subject="abc", kind="container", at=AT)


def test_the_document_follows_the_schema() -> None:
    found = json.loads(json.dumps(made()))
    assert found["bomFormat"] == "CycloneDX"
    assert found["specVersion"] == "1.5"
    assert isinstance(found["version"], int)
    assert re.fullmatch(
        r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        found["serialNumber"],
    )
    assert set(found) == {
        "$schema",
        "bomFormat",
        "specVersion",
        "serialNumber",
        "version",
        "metadata",
        "components",
    }
    references = [item["bom-ref"] for item in found["components"]]
    assert len(references) == len(set(references))
    for item in found["components"]:
        assert item["type"] in ("library", "operating-system")
        assert item["name"]
        assert set(item) <= {
            "bom-ref",
            "type",
            "name",
            "version",
            "purl",
            "licenses",
            "properties",
            "description",
        }
        for said in item.get("licenses", []):
            assert set(said) == {"license"}
            assert set(said["license"]) == {"name"}


def test_the_same_list_makes_the_same_document() -> None:
    assert made() == made()
    other = document(LISTING, subject="abd", kind="container", at=AT)
    assert other["serialNumber"] != made()["serialNumber"]


def test_a_document_reads_back_as_its_list() -> None:
    assert listing_of(made()) == LISTING
