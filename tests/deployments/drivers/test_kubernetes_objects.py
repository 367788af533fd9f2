"""A ServiceSpec becomes objects; the three purposes differ."""

import base64
import json
from dataclasses import replace

import pytest
import yaml

from deployments.codec import from_json
from deployments.drivers import kubernetes_names as names
from deployments.drivers import kubernetes_objects as objects
from deployments.drivers.kubernetes_objects import Place
from deployments.types import (
    ContainerSpec,
    EnvironmentSpec,
    FileSpec,
    KubeSettings,
    ModelSpec,
    Purpose,
    Resources,
    RevisionSpec,
    Scaling,
    ServiceSpec,
    Toleration,
    VersionSpec,
)

REVISION = RevisionSpec(
    service="iris",
    number=3,
    source=FileSpec("project.zip", "a" * 64, 10),
    entry_script="score.py",
    models=(ModelSpec("iris", 1, (FileSpec("model.pkl", "b" * 64, 20),)),),
    environment=EnvironmentSpec("h", "registry/env:1", {"TOKEN": "hidden"}),
    resources=Resources(cpu=0.5, memory_gb=1, cpu_limit=2, memory_gb_limit=1.5),
)
SPEC = ServiceSpec("iris", (VersionSpec("default", REVISION, Scaling(minimum=2)),))


def place(purpose: Purpose = Purpose.FAST_PROD, **more: object) -> Place:
    settings = KubeSettings("models", purpose, router_image="registry/router:1")
    return Place(replace(settings, **more), "one", pulls=("slipway-pull",))


def by_kind(where: Place, spec: ServiceSpec = SPEC) -> dict[str, dict]:
    owner = {"metadata": {"name": "slipway-service-iris", "uid": "u1"}}
    return {item["kind"]: item for item in objects.of_service(spec, where, owner)}


def pod(where: Place, spec: ServiceSpec = SPEC) -> dict:
    return by_kind(where, spec)["Deployment"]["spec"]["template"]["spec"]


def test_fast_prod_asks_for_all_that_it_may_use_and_spreads() -> None:
    asked = objects.resources(REVISION.resources, place().settings)
    assert asked["requests"] == asked["limits"] == {"cpu": "2000m", "memory": "1536Mi"}
    spread = pod(place())["topologySpreadConstraints"]
    assert {item["whenUnsatisfiable"] for item in spread} == {"ScheduleAnyway"}
    # limits were not given: what it asks for is what it may use
    plain = objects.resources(Resources(), place().settings)
    assert plain == {
        "requests": {"cpu": "100m", "memory": "512Mi"},
        "limits": {"cpu": "100m", "memory": "512Mi"},
    }


def test_dense_prod_is_burstable_and_packs() -> None:
    where = place(Purpose.DENSE_PROD)
    asked = objects.resources(REVISION.resources, where.settings)
    assert asked["requests"] == {"cpu": "500m", "memory": "1024Mi"}
    assert asked["limits"] == {"cpu": "2000m", "memory": "1536Mi"}
    assert "podAffinity" in pod(where)["affinity"]
    assert "topologySpreadConstraints" not in pod(where)
    assert "PodDisruptionBudget" in by_kind(where)


def test_dev_test_has_no_budget_and_goes_anywhere() -> None:
    where = place(Purpose.DEV_TEST)
    assert set(by_kind(where)) == {"Service", "Deployment"}
    assert not {"affinity", "topologySpreadConstraints"} & set(pod(where))
    assert objects.resources(Resources(), where.settings) == {
        "requests": {"cpu": "100m", "memory": "512Mi"}
    }


@pytest.mark.parametrize(("minimum", "there"), [(1, False), (2, True)])
def test_a_budget_is_for_two_replicas_or_more(minimum: int, there: bool) -> None:
    spec = ServiceSpec("iris", (VersionSpec("default", REVISION, Scaling(minimum=minimum)),))
    found = by_kind(place(), spec)
    assert ("PodDisruptionBudget" in found) is there
    if there:
        assert found["PodDisruptionBudget"]["apiVersion"] == "policy/v1"
        older = replace(place(), budgets="policy/v1beta1")
        assert by_kind(older)["PodDisruptionBudget"]["apiVersion"] == "policy/v1beta1"


def test_accelerators_are_asked_for_by_the_clusters_resource() -> None:
    where = place(accelerator="amd.com/xilinx_u250")
    asked = objects.resources(Resources(gpu=2), where.settings)
    assert asked["requests"]["amd.com/xilinx_u250"] == "2"
    assert asked["limits"]["amd.com/xilinx_u250"] == "2"


def test_models_go_where_the_sku_says() -> None:
    where = place(
        node_selector={"agentpool": "gpu"},
        tolerations=(Toleration("sku", "gpu", "NoSchedule"), Toleration("spot")),
    )
    found = pod(where)
    assert found["nodeSelector"] == {"agentpool": "gpu"}
    assert found["tolerations"] == [
        {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Exists"},
    ]
    assert found["imagePullSecrets"] == [{"name": "slipway-pull"}]


@pytest.mark.parametrize(
    "revision",
    [REVISION, replace(REVISION, container=ContainerSpec("own:1", 8000))],
    ids=["ours", "a person's own"],
)
def test_every_container_keeps_to_the_restricted_standard(revision: RevisionSpec) -> None:
    found = pod(place(), ServiceSpec("iris", (VersionSpec("default", revision),)))
    assert found["automountServiceAccountToken"] is False
    assert found["securityContext"]["runAsNonRoot"] is True
    assert found["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*found["initContainers"], *found["containers"]):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
    assert found["terminationGracePeriodSeconds"] == 90


def test_nothing_that_is_applied_says_how_many() -> None:
    """Or whoever applies would undo what the autoscaler decided."""
    assert "replicas" not in by_kind(place())["Deployment"]["spec"]


def test_an_update_takes_no_replica_away_before_it_brought_one() -> None:
    strategy = by_kind(place())["Deployment"]["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": "25%"}


def test_pods_start_anew_for_another_revision_and_for_nothing_else() -> None:
    def template(spec: ServiceSpec) -> dict:
        return by_kind(place(), spec)["Deployment"]["spec"]["template"]

    version = SPEC.versions[0]
    other_share = replace(SPEC, versions=(replace(version, traffic_percent=5),), generation=9)
    assert template(other_share) == template(SPEC)
    newer = replace(REVISION, number=4)
    assert template(replace(SPEC, versions=(replace(version, revision=newer),))) != template(SPEC)


def test_all_of_a_service_goes_with_its_secret() -> None:
    for item in by_kind(place()).values():
        (owner,) = item["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("Secret", "u1")


def test_the_secret_is_the_services_truth() -> None:
    secret = objects.service_secret(SPEC, place())
    text = base64.b64decode(secret["data"][names.SPEC_KEY])
    assert from_json(ServiceSpec, json.loads(text)) == SPEC


def test_only_the_router_reaches_models() -> None:
    policy = next(item for item in objects.shared(place()) if item["kind"] == "NetworkPolicy")
    (rule,) = policy["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {names.PART: "router"}}}]
    assert policy["spec"]["podSelector"] == {"matchLabels": {names.PART: "model"}}


def test_what_is_taken_away_holds_no_secret() -> None:
    text = objects.to_yaml(SPEC, place())
    parts = list(yaml.safe_load_all(text))
    assert [item["kind"] for item in parts] == [
        "ServiceAccount", "NetworkPolicy", "Secret", "Secret", "Service", "Deployment",
        "PodDisruptionBudget",
    ]  # fmt: skip
    assert "hidden" not in text
    assert base64.b64encode(b"hidden").decode() not in text
    assert not any("data" in item for item in parts)


def test_registries_passwords_are_as_nodes_take_them() -> None:
    secret = objects.pull_secret({"registry:5000": ("u", "p")}, place())
    text = base64.b64decode(secret["data"][".dockerconfigjson"])
    assert json.loads(text)["auths"]["registry:5000"]["auth"] == base64.b64encode(b"u:p").decode()


def test_only_what_we_asked_for_is_compared() -> None:
    wanted = by_kind(place())["Deployment"]

    def standing() -> dict:
        made = json.loads(json.dumps(wanted))
        made["metadata"] |= {"uid": "u2", "annotations": {"their": "own"}}
        made["spec"]["replicas"] = 7
        container = made["spec"]["template"]["spec"]["containers"][0]
        container["resources"] = {
            "requests": {"cpu": "2", "memory": "1536Mi"},
            "limits": {"cpu": "2", "memory": "1610612736"},
        }
        made["spec"]["template"]["spec"]["containers"].append({"name": "sidecar"})
        return made

    bare = {**wanted, "metadata": {"labels": wanted["metadata"]["labels"]}}
    assert list(objects.differences(bare, standing())) == []
    changed = standing()
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = "other:1"
    assert list(objects.differences(bare, changed)) == [
        "spec.template.spec.containers[model].image"
    ]
    gone = standing()
    del gone["spec"]["strategy"]
    assert list(objects.differences(bare, gone)) == ["spec.strategy"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100m", 0.1),
        ("2", 2),
        ("512Mi", 512 * 2**20),
        ("1e3", 1000),
        ("1G", 1e9),
        (None, 0),
        ("1Ki", 1024),
    ],
)
def test_quantities(text: object, value: float) -> None:
    assert objects.quantity(text) == pytest.approx(value)
