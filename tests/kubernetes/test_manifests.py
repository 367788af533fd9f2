"""The router's manifests as kubectl and the API server take them."""

import io
import subprocess

import pytest
from django.core.management import call_command

from deployments.kube.api import Kube
from tests.kubernetes import cluster

pytestmark = pytest.mark.kubernetes


def test_kubectl_takes_the_folder_as_it_is(tmp_path):
    kube = Kube(cluster.spec())
    policy = "v1" if kube.has("policy/v1", "poddisruptionbudgets") else "v1beta1"
    with cluster.namespace(kube, "manifests") as name:
        call_command(
            "router_manifests", str(tmp_path), "--image", "example/router:1", "--namespace", name,
            "--purpose", "FastProd", "--policy", policy, stdout=io.StringIO(),
        )  # fmt: skip
        done = subprocess.run(
            ["kubectl", "apply", "-k", str(tmp_path), "--dry-run=server"],
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    kube.close()
    assert done.returncode == 0, done.stderr
    assert "deployment.apps/slipway-router created" in done.stdout
    assert "secret/slipway-router-peers created" in done.stdout
