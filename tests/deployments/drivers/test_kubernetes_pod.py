"""What is in a model's pod: pure, from a revision."""

import json

import pytest

from deployments.drivers import kubernetes_pod
from deployments.types import ContainerSpec, EnvironmentSpec, FileSpec, ModelSpec, Probe
from tests.deployments.agent.conftest import a_revision

RESOURCES = {
    "requests": {"cpu": "100m", "memory": "512Mi", "nvidia.com/gpu": "1"},
    "limits": {"nvidia.com/gpu": "1"},
}
OWN = ContainerSpec("registry/own@sha256:1", 8000, "/predict", "/alive", "/ready")


def parts(revision, resources=RESOURCES) -> kubernetes_pod.PodParts:
    return kubernetes_pod.pod_containers(
        revision, files_secret="files-1", router_image="registry/router:1", resources=resources
    )


def all_of(made: kubernetes_pod.PodParts) -> list[dict]:
    return [*made.init_containers, *made.containers]


def url(sha256: str) -> str:
    return f"http://portal/blobs/{sha256}?signature=s"


@pytest.mark.parametrize("own", [None, OWN])
def test_every_container_is_restricted(own):
    made = parts(a_revision(container=own))
    assert made.security_context["runAsNonRoot"] is True
    for container in all_of(made):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert context["readOnlyRootFilesystem"] is (container["image"] != OWN.image)


def test_addresses_of_files_are_seen_by_the_first_container_alone():
    made = parts(a_revision())
    mounted = {
        container["name"]: {mount["name"] for mount in container["volumeMounts"]}
        for container in all_of(made)
    }
    assert "files" in mounted["fetch"]
    assert "files" not in mounted["model"]
    assert "told" not in mounted["fetch"]
    (files,) = [volume for volume in made.volumes if volume["name"] == "files"]
    assert files["secret"]["items"] == [{"key": "files.json", "path": "files.json"}]


def test_the_first_container_knows_its_node_and_whom_to_believe():
    env = {
        item["name"]: item["valueFrom"] for item in parts(a_revision()).init_containers[0]["env"]
    }
    assert env["NODE"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
    # a revision that was staged before there was one starts all the same
    assert env["SLIPWAY_BLOB_CA"]["secretKeyRef"] == {
        "name": "files-1",
        "key": "ca.pem",
        "optional": True,
    }
    assert "ca.pem" not in kubernetes_pod.files_data(a_revision(), url)
    assert kubernetes_pod.files_data(a_revision(), url, ca="PEM")["ca.pem"] == "PEM"


def test_all_volumes_that_are_mounted_are_there():
    for own in (None, OWN):
        made = parts(a_revision(container=own))
        mounted = {mount["name"] for item in all_of(made) for mount in item.get("volumeMounts", [])}
        assert mounted <= {volume["name"] for volume in made.volumes}


def test_fetching_asks_for_what_the_model_asks_for_but_for_no_accelerator():
    made = parts(a_revision())
    assert made.init_containers[0]["resources"] == {
        "requests": {"cpu": "100m", "memory": "512Mi"},
        "limits": {},
    }
    assert made.containers[0]["resources"] == RESOURCES


def test_a_pod_may_take_as_long_to_go_as_the_longest_score():
    made = parts(a_revision(scoring_timeout_ms=90_500))
    command = made.containers[0]["lifecycle"]["preStop"]["exec"]["command"]
    assert command[-2] == "--drain"
    assert 91 < int(command[-1]) < made.grace_seconds
    assert made.grace_seconds == 121


def test_probes_ask_the_gate_and_one_that_loads_is_left_alone():
    revision = a_revision(start_timeout_seconds=600, probe=Probe(period_seconds=7))
    model = parts(revision).containers[0]
    assert model["startupProbe"]["failureThreshold"] == 600
    assert model["readinessProbe"]["httpGet"] == {"port": 5002, "path": "/"}
    assert model["livenessProbe"]["httpGet"] == {"port": 5002, "path": "/live"}
    assert model["livenessProbe"]["periodSeconds"] == 7


def test_the_list_of_files_says_where_each_goes_and_comes_from():
    model = ModelSpec("ridge", 3, (FileSpec("sub/model.pkl", "b" * 64, 12),))
    data = kubernetes_pod.files_data(a_revision(models=(model,)), url)
    source, weights = json.loads(data["files.json"])
    assert (source["path"], source["unpack"]) == ("app", True)
    assert weights == {
        "path": "models/ridge/3/sub/model.pkl",
        "sha256": "b" * 64,
        "size": 12,
        "url": url("b" * 64),
        "unpack": False,
    }
    assert "signature" not in repr(kubernetes_pod.staged_files(a_revision(), url))


def test_the_same_pod_starts_from_it_whatever_its_name():
    told = json.loads(kubernetes_pod.files_data(a_revision(), url)["run.json"])
    assert told["gate"]["tcp"] == {"listen": "0.0.0.0:5001", "health": "0.0.0.0:5002"}
    assert "doors" not in told["gate"]
    assert "HOSTNAME" not in told["environment"]
    assert told["environment"]["AZUREML_MODEL_DIR"] == "/slipway/staged/models/ridge/1"


def test_a_persons_own_image_starts_by_itself_with_a_front_beside_it():
    variables = {"TOKEN": "hunter2"}
    environment = EnvironmentSpec("", "", variables)
    revision = a_revision(container=OWN, environment=environment, concurrency=3)
    made = parts(revision)
    own, front = made.containers
    assert own["image"] == OWN.image
    assert "command" not in own
    assert own["livenessProbe"]["httpGet"] == {"path": "/alive", "port": 8000}
    assert own["lifecycle"]["preStop"]["httpGet"] == {"path": "/left", "port": 5002}
    assert front["image"] == "registry/router:1"
    assert [port["containerPort"] for port in front["ports"]] == [5001, 5002]
    data = kubernetes_pod.files_data(revision, url)
    assert json.loads(data["files.json"]) == []
    told = json.loads(data["run.json"])
    assert told["command"][-5:] == ["127.0.0.1", "8000", "/predict", "/alive", "/ready"]
    assert told["gate"]["workers"] == 3
    (variable,) = own["env"]
    key = variable["valueFrom"]["secretKeyRef"]["key"]
    assert data[key] == "hunter2"
    assert "hunter2" not in json.dumps(all_of(made))


def test_a_guaranteed_pod_stays_guaranteed_with_a_front():
    amounts = {"cpu": "1", "memory": "1Gi"}
    made = parts(a_revision(container=OWN), {"requests": amounts, "limits": amounts})
    for container in all_of(made):
        assert container["resources"]["requests"] == container["resources"]["limits"]
