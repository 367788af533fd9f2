"""The router as a folder for kustomize."""

import io
import stat

import pytest
import yaml
from django.core.management import CommandError, call_command

from deployments.drivers import kubernetes_manifests as manifests
from deployments.drivers import kubernetes_router as router
from deployments.types import KubeSettings, Purpose

SETTINGS = KubeSettings("models", Purpose.DENSE_PROD, router_image="example/router:1")


def test_it_holds_what_attaching_makes_and_no_secret():
    files = manifests.folder(SETTINGS, "far", budgets="policy/v1")
    made = [*yaml.safe_load_all(files["router.yaml"]), *yaml.safe_load_all(files["nodes.yaml"])]
    attached = router.objects(SETTINGS, "far", "a token", budgets="policy/v1")
    attached += router.cluster_objects("models", "far")
    assert {item["kind"] for item in made} == {place.body["kind"] for place in attached} - {
        "Secret"
    }
    assert "a token" not in "".join(files.values())
    [secret] = yaml.safe_load(files["kustomization.yaml"])["secretGenerator"]
    assert (secret["name"], secret["files"]) == (router.PEERS_SECRET, ["token=peers.token"])


def test_it_begins_with_as_many_pods_as_its_purpose_has_at_least():
    files = manifests.folder(SETTINGS, "far", budgets="policy/v1")
    [deployment] = [
        item for item in yaml.safe_load_all(files["router.yaml"]) if item["kind"] == "Deployment"
    ]
    assert deployment["spec"]["replicas"] == 3
    assert deployment["metadata"]["namespace"] == "models"


def test_the_command_keeps_the_token_it_made_before_for_its_owner_alone(tmp_path):
    asked = ("router_manifests", str(tmp_path / "router"), "--image", "example/router:1")
    call_command(*asked, stdout=io.StringIO())
    token = tmp_path / "router" / manifests.TOKEN_FILE
    first = token.read_text()
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    call_command(*asked, stdout=io.StringIO())
    assert token.read_text() == first


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CommandError, match="could not be written"):
        call_command(
            "router_manifests", str(tmp_path / "file"), "--image", "x", stdout=io.StringIO()
        )
