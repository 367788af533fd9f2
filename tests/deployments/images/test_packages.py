"""What installers leave behind, read without running anything."""

import json

import pytest

from deployments.images.packages import Collector, Package, System, purl, wanted

STATUS = """\
Package: libssl3
Status: install ok installed
Architecture: amd64
Source: openssl
Version: 3.0.15-1~deb12u1
Description: toolkit
 a second line: with a colon

Package: gone
Status: deinstall ok config-files
Version: 1.0

Package: base-files
Status: install ok installed
Version: 12.4+deb12u8
Source: base-files (12.4)
Architecture: all
"""
RELEASE = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n'
METADATA = (
    "Metadata-Version: 2.1\nName: Scikit_Learn\nVersion: 1.5.2\n"
    "License: BSD\n text goes on\n\nName: no\n"
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("usr/lib/python3/dist-packages/six-1.16.0.egg-info", True),
        ("opt/v/lib/python3.11/site-packages/numpy-1.26.dist-info/METADATA", True),
        ("opt/v/lib/python3.11/site-packages/numpy-1.26.dist-info/RECORD", False),
        ("opt/conda/conda-meta/zlib-1.3-h1.json", True),
        ("opt/conda/conda-meta/history", False),
        ("var/lib/dpkg/status", True),
        ("var/lib/dpkg/status.d/tzdata", True),
        ("var/lib/dpkg/status-old", False),
        ("lib/apk/db/installed", True),
        ("home/lib/apk/db/installed", False),
    ],
)
def test_only_lists_of_installers_are_read(path: str, expected: bool) -> None:
    assert wanted(path) is expected


def test_packages_of_all_kinds_are_listed_once_and_in_order() -> None:
    collector = Collector()
    collector.add("usr/lib/os-release", RELEASE.encode())
    collector.add("var/lib/dpkg/status", STATUS.encode())
    for place in ("usr", "opt"):
        path = f"{place}/lib/python3.11/site-packages/scikit_learn-1.5.2.dist-info/METADATA"
        collector.add(path, METADATA.encode())
    record = {"name": "zlib", "version": "1.3.1", "license": "Zlib"}
    collector.add("opt/conda/conda-meta/zlib.json", json.dumps(record).encode())
    listing = collector.listing()
    assert [(item.kind, item.name, item.version) for item in listing.packages] == [
        ("conda", "zlib", "1.3.1"),
        ("deb", "base-files", "12.4+deb12u8"),
        ("deb", "libssl3", "3.0.15-1~deb12u1"),
        ("pypi", "scikit-learn", "1.5.2"),
    ]
    assert listing.system == System("debian", "12", "Debian GNU/Linux 12 (bookworm)")
    assert listing.missing == ()


def test_what_a_debian_package_was_built_from_is_known() -> None:
    collector = Collector()
    collector.add("var/lib/dpkg/status", STATUS.encode())
    base, ssl = collector.listing().packages
    assert (ssl.source, ssl.source_version) == ("openssl", "3.0.15-1~deb12u1")
    assert (base.source, base.source_version) == ("base-files", "12.4")


def test_a_system_without_a_list_is_unknown_and_not_empty() -> None:
    assert Collector().listing().missing == (
        "packages of its system: it has no list of dpkg or apk",
    )
    with_rpm = Collector()
    with_rpm.add("var/lib/rpm/rpmdb.sqlite", b"\x00\x01")
    assert with_rpm.listing().missing == ("its RPM packages: their database is not read",)
    assert Collector().listing(of_image=False).missing == ()


def test_alpines_list_is_read() -> None:
    collector = Collector()
    collector.add(
        "lib/apk/db/installed", b"P:musl\nV:1.2.4-r2\nA:x86_64\no:musl\nL:MIT\n\nP:half\n\n"
    )
    (found,) = collector.listing().packages
    assert found == Package(
        "apk", "musl", "1.2.4-r2", "MIT", source="musl", source_version="1.2.4-r2", arch="x86_64"
    )


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00", b"Name: only\n", b"{"])
def test_files_that_say_nothing_are_left_out(data: bytes) -> None:
    collector = Collector()
    collector.add("a/b-1.dist-info/METADATA", data)
    collector.add("c/conda-meta/b.json", data)
    collector.add("var/lib/dpkg/status", data)
    assert collector.listing().packages == ()


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        (Package("pypi", "numpy", "1.26.4"), "pkg:pypi/numpy@1.26.4"),
        (Package("pypi", "torch", "2.1.0+cpu"), "pkg:pypi/torch@2.1.0%2Bcpu"),
        (
            Package("deb", "libstdc++6", "12.2.0-14", arch="amd64"),
            "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14?arch=amd64&distro=debian-12",
        ),
    ],
)
def test_package_urls_are_escaped(package: Package, expected: str) -> None:
    assert purl(package, System("debian", "12")) == expected
