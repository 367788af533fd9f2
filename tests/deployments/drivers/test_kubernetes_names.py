"""Names that Kubernetes takes, and that no two things share."""

import re
from pathlib import Path

import pytest

from deployments.drivers import kube_file
from deployments.drivers import kubernetes_names as names
from deployments.drivers.kube_file import KubeFile, Login
from deployments.errors import Unavailable
from deployments.types import KubeSettings, KubeSpec, Purpose, Toleration

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def test_plain_names_are_kept() -> None:
    assert names.deployment("iris", "default") == "iris-default"
    assert names.files_secret("iris", 3) == "slipway-files-iris-r3"
    assert names.service_secret("iris") == "slipway-service-iris"
    assert names.deployment("a-b", "c") == "a-b-c"


def test_no_two_versions_share_a_deployment() -> None:
    assert names.deployment("a-b", "c") != names.deployment("a", "b-c")


def test_whatever_is_given_becomes_a_label() -> None:
    for service, version in (("s" * 32, "v" * 40), ("iris", "V_1.2"), ("iris", "-"), ("iris", "é")):
        name = names.deployment(service, version)
        assert LABEL.fullmatch(name), name
        assert len(name) <= 46
        for value in names.selector(service, version).values():
            assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?", value)


def test_what_is_empty_is_no_label() -> None:
    found = names.labels(names.MARKER)
    assert names.SERVICE not in found
    assert found[names.PART] == "marker"
    assert names.query(part="model", service="iris") == (
        "slipway.dev/part=model,slipway.dev/service=iris"
    )


def test_how_a_cluster_is_reached_is_its_owners_alone(tmp_path: Path) -> None:
    value = KubeFile(
        KubeSpec("https://10.0.0.1", token="secret"),
        KubeSettings("models", Purpose.FAST_PROD, tolerations=(Toleration("gpu"),)),
        {"registry:5000": Login("u", "p")},
    )
    kube_file.write(tmp_path / "new", value)
    assert kube_file.read(tmp_path / "new") == value
    assert kube_file.path_of(tmp_path / "new").stat().st_mode & 0o777 == 0o600
    kube_file.forget(tmp_path / "new")
    with pytest.raises(Unavailable):
        kube_file.read(tmp_path / "new")
