"""What a Kubernetes cluster's checks come to, from what was seen."""

import pytest
import yaml
from django.conf import settings

from deployments.drivers import kubernetes_checks as checks
from deployments.drivers import kubernetes_probe as probe
from deployments.drivers.kubernetes_checks import RegistryAsked, Size
from deployments.types import CheckStatus, KubeSettings, Purpose, Toleration

PLAIN = Size("this machine")


def node(name="a", cpu="4", memory="16Gi", ready="True", devices=None, **more):
    return {
        "metadata": {"name": name, "labels": more.get("labels", {})},
        "spec": more.get("spec", {}),
        "status": {
            "capacity": {"cpu": cpu, "memory": memory},
            "allocatable": {"cpu": cpu, "memory": memory, **(devices or {})},
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


@pytest.mark.parametrize(
    ("found", "status"), [((1, 19), "fail"), ((1, 20), "pass"), ((1, 34), "pass"), ((2, 0), "pass")]
)
def test_versions_from_1_20_on_are_taken(found, status):
    assert checks.version(found).status == status


@pytest.mark.parametrize(
    "more",
    [
        {"ready": "False"},
        {"ready": "Unknown"},
        {"spec": {"unschedulable": True}},
        {"spec": {"taints": [{"key": "node-role.kubernetes.io/master", "effect": "NoSchedule"}]}},
    ],
)
def test_a_node_that_takes_no_pods_does_not_count(more):
    assert not checks.nodes([node(**more)])[0].usable


def test_a_taint_of_a_pool_does_not_make_a_node_useless():
    taints = [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]
    assert checks.nodes([node(spec={"taints": taints})])[0].usable


def test_production_needs_three_machines_in_azures_words():
    found = checks.purpose(checks.nodes([node("a", "8"), node("b", "8")]), Purpose.FAST_PROD)
    assert found.status is CheckStatus.FAIL
    assert (
        "At least 3 machine(s) are required for cluster with purpose 'FastProd'. "
        "Available machine(s) : 2" in found.evidence
    )
    assert "12 cores" not in found.evidence


@pytest.mark.parametrize(("cpu", "status"), [("4", "pass"), ("3900m", "fail")])
def test_production_needs_twelve_cores_in_azures_words(cpu, status):
    found = checks.purpose(checks.nodes([node("a", cpu), node("b"), node("c")]), Purpose.FAST_PROD)
    assert found.status == status
    assert ("Cluster should have at least 12 cores to operate." in found.evidence) == (
        status == "fail"
    )


def test_a_node_that_is_cordoned_is_no_machine_of_production():
    cordoned = node("c", "8", spec={"unschedulable": True})
    found = checks.purpose(
        checks.nodes([node("a", "8"), node("b", "8"), cordoned]), Purpose.DENSE_PROD
    )
    assert "Available machine(s) : 2" in found.evidence


def test_dev_test_takes_one_node_and_not_none():
    assert checks.purpose(checks.nodes([node()]), Purpose.DEV_TEST).status is CheckStatus.PASS
    assert checks.purpose((), Purpose.DEV_TEST).status is CheckStatus.FAIL


@pytest.mark.parametrize(
    ("cpu", "memory", "status"),
    [("4", "14Gi", "pass"), ("4", "12Gi", "pass"), ("4", "11Gi", "fail"), ("2", "14Gi", "fail")],
)
def test_a_size_is_known_by_what_its_nodes_have_less_what_the_machine_took(cpu, memory, status):
    found = checks.size(checks.nodes([node("a", cpu, memory)]), Size("Standard_D3_v2", 4, 14.0))
    assert found.status == status


def test_a_size_is_known_by_the_providers_label():
    labels = {"node.kubernetes.io/instance-type": "Standard_D3_v2"}
    found = checks.nodes([node("a", "3", "10Gi", labels=labels)])
    assert checks.size(found, Size("Standard_D3_v2", 4, 14.0)).status is CheckStatus.PASS


@pytest.mark.parametrize(("count", "status"), [("2", "pass"), ("1", "fail"), ("0", "fail")])
def test_a_sizes_accelerators_must_be_offered_by_one_node(count, status):
    size = Size("g2-standard-24", 4, 16.0, "nvidia.com/gpu", 2)
    found = checks.nodes([node("a", devices={"nvidia.com/gpu": count})])
    assert checks.devices(found, size).status == status


def test_devices_are_listed_by_node_without_pages_of_memory():
    found = checks.nodes([node("a", devices={"amd.com/xilinx_u250": "1", "hugepages-1Gi": "2"})])
    said = checks.devices(found, PLAIN)
    assert (said.status, said.evidence) == (CheckStatus.PASS, "a: 1 × amd.com/xilinx_u250")


def test_missing_permissions_are_named_by_verb_and_resource():
    asked = checks.permissions(makes_namespace=False)
    missing = [item for item in asked if item.resource in ("secrets", "nodes")]
    said = checks.allowed(asked, missing, "models")
    assert said.status is CheckStatus.FAIL
    assert (
        "in the namespace models: get, list, watch, create, patch, delete secrets" in said.evidence
    )
    assert "in the whole cluster: get, list, watch nodes" in said.evidence
    assert checks.allowed(asked, [], "models").status is CheckStatus.PASS


def test_a_namespace_that_is_missing_must_be_makeable():
    before = set(checks.permissions(makes_namespace=False))
    more = set(checks.permissions(makes_namespace=True)) - before
    assert {item.words for item in more} == {"create namespaces", "delete namespaces"}


def test_a_review_names_the_subresource_and_the_namespace():
    asked = checks.Permission("patch", "deployments/scale", "apps")
    assert checks.review(asked, "models")["spec"]["resourceAttributes"] == {
        "verb": "patch",
        "group": "apps",
        "resource": "deployments",
        "subresource": "scale",
        "namespace": "models",
    }
    whole = checks.Permission("list", "nodes", namespaced=False)
    assert "namespace" not in checks.review(whole, "models")["spec"]["resourceAttributes"]


def test_the_role_to_copy_holds_just_what_is_asked_for():
    objects = list(yaml.safe_load_all(checks.role_yaml("models")))
    held = {
        (rule["apiGroups"][0], rule["resources"][0], verb, each["kind"] == "Role")
        for each in objects
        for rule in each.get("rules", ())
        for verb in rule["verbs"]
    }
    asked = checks.permissions(makes_namespace=False)
    assert held == {(item.group, item.resource, item.verb, item.namespaced) for item in asked}
    assert [each["kind"] for each in objects] == [
        "Role",
        "RoleBinding",
        "ClusterRole",
        "ClusterRoleBinding",
    ]


def test_the_page_has_the_role_and_every_check_as_the_code_has_them():
    page = (settings.CHECKOUT / "docs" / "clusters.md").read_text()
    assert checks.role_yaml("slipway") in page
    for name in checks.NAMES:
        assert f"| {name.format(address='…')} |" in page


def test_a_marker_of_somebody_else_says_by_whom_and_since_when():
    marker = {"mark": "1", "cluster": "prod", "portal": "here", "by": "ada", "since": "2026-11-01"}
    assert checks.free(None, "", "models").status is CheckStatus.PASS
    assert checks.free(marker, "1", "models").status is CheckStatus.PASS
    said = checks.free(marker, "2", "models")
    assert said.status is CheckStatus.FAIL
    assert "as prod of the portal here, by ada, since 2026-11-01" in said.evidence


# ---- the pod that tries ---------------------------------------------------------------------------

THERE = RegistryAsked("r.example:5000", "slipway", "r.example:5000/slipway/env:1")
EMPTY = RegistryAsked("r.example:5000", "slipway")


def waiting(reason, message=""):
    state = {"waiting": {"reason": reason, "message": message}}
    return {"spec": {"nodeName": "n"}, "status": {"containerStatuses": [{"state": state}]}}


def ended(message, code=0):
    state = {"terminated": {"exitCode": code, "reason": "Error", "message": message}}
    status = {"podIP": "10.0.0.9", "containerStatuses": [{"state": state}]}
    return {"spec": {"nodeName": "n"}, "status": status}


@pytest.mark.parametrize(
    ("registry", "words", "status"),
    [
        (EMPTY, "env:slipway-probe: not found", "pass"),
        (EMPTY, "manifest unknown", "pass"),
        (EMPTY, "pull access denied", "unknown"),
        (EMPTY, "dial tcp 10.0.0.1:5000: connect: connection refused", "fail"),
        (EMPTY, "lookup r.example: no such host", "fail"),
        (THERE, "not found", "fail"),
        (THERE, "401 Unauthorized", "fail"),
        (THERE, "http: server gave HTTP response to HTTPS client", "fail"),
    ],
)
def test_a_pull_that_fails_tells_whether_the_registry_was_reached(registry, words, status):
    seen = probe.seen(waiting("ErrImagePull", words))
    assert seen.ended
    assert probe.registry_check(registry, seen, seconds=1.0).status == status


def test_a_back_off_is_waited_through_for_the_registrys_own_words():
    seen = probe.seen(waiting("ImagePullBackOff", "Back-off pulling image"))
    assert not seen.ended


def test_the_registrys_words_are_found_among_the_pods_events():
    events = [
        {"reason": "Pulling", "message": "Pulling image"},
        {"reason": "Failed", "message": "Error: ErrImagePull"},
        {"reason": "Failed", "message": 'Failed to pull image "r/x": no such host'},
        {"reason": "BackOff", "message": "Back-off pulling image"},
    ]
    assert probe.pull_words(events) == 'Failed to pull image "r/x": no such host'
    assert probe.pull_words(events[:1]) == ""


def test_a_pod_without_a_place_leaves_the_registry_unknown():
    status = {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}]}
    seen = probe.seen({"spec": {}, "status": status})
    said = probe.registry_check(THERE, seen, seconds=1.0)
    assert (said.status, "0/3 nodes" in said.evidence) == (CheckStatus.UNKNOWN, True)


def test_a_pods_word_decides_what_it_reached():
    message = (
        '{"a pod reaches the model store": [false, "connect to p:80: refused"], "x": [true, "x:1"]}'
    )
    seen = probe.seen(ended(message))
    assert seen.address == "10.0.0.9"
    assert probe.registry_check(THERE, seen, seconds=2.0).status is CheckStatus.PASS
    store = probe.target_check(checks.STORE, seen)
    assert store.status is CheckStatus.FAIL
    assert store.evidence == "from a pod on n: connect to p:80: refused"
    assert "SLIPWAY_NODE_URL" in store.remedy
    assert probe.target_check("x", seen).status is CheckStatus.PASS


def test_a_pod_that_could_not_speak_leaves_it_unknown():
    seen = probe.seen(ended("exec: python3: not found", 127))
    said = probe.target_check(checks.STORE, seen)
    assert (said.status, "python3" in said.evidence) == (CheckStatus.UNKNOWN, True)


def test_the_pod_is_restricted_and_ends_by_itself():
    settings = KubeSettings(
        "models",
        node_selector={"pool": "gpu"},
        tolerations=(Toleration("gpu"), Toleration("sku", "x", "NoSchedule")),
    )
    made = probe.pod("p", "i", cluster="k", settings=settings, targets={"x": "api"})
    spec = made["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["activeDeadlineSeconds"] == probe.POD_SECONDS
    assert spec["restartPolicy"] == "Never"
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert spec["nodeSelector"] == {"pool": "gpu"}
    assert spec["tolerations"] == [
        {"key": "gpu", "operator": "Exists"},
        {"key": "sku", "operator": "Equal", "value": "x", "effect": "NoSchedule"},
    ]


def test_what_the_pod_runs_is_a_program_whose_word_fits_a_termination_message(tmp_path):
    """Run here, with its message in a file: one target that answers nobody, one that has no name."""
    import json
    import subprocess
    import sys

    said = tmp_path / "said"
    text = probe._TRY.replace("/dev/termination-log", str(said))
    targets = {"refused": "http://127.0.0.1:1/healthz", "nowhere": "http://nowhere.invalid/"}
    subprocess.run(
        [sys.executable, "-I", "-S", "-c", text],
        env={"SLIPWAY_TRY": json.dumps(targets)},
        check=True,
        timeout=60,
    )
    found = probe._said(said.read_text())
    assert found["refused"][0] is False
    assert found["refused"][1].startswith("connect to 127.0.0.1:1")
    assert found["nowhere"][1].startswith("resolve nowhere.invalid")


def test_a_password_is_in_no_words_of_a_registry():
    assert "geheim" not in repr(RegistryAsked("r", username="u", password="geheim"))
