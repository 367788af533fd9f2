"""Slipway as a pod of the cluster that it uses: by the pod's own account, with the rights of the documented
Role and no more."""

import json
import subprocess
from collections.abc import Iterator

import pytest

from deployments.drivers import kubernetes_checks as checks
from deployments.errors import NotFound
from deployments.kube.api import Kube
from tests.kubernetes import cluster, reach, routers
from tests.kubernetes.attached import naming

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]

ACCOUNT = "slipway-portal"  # the documented manifest's
# The product's own access code: the spec of a pod, the checks that make nothing, and an object applied.
_TRIED = """
import json, os
from deployments.drivers.kubernetes_checks import Size, Wanted
from deployments.drivers.kubernetes_looking import Looking
from deployments.kube import access
from deployments.kube.api import Kube
from deployments.errors import SlipwayError
from deployments.types import KubeSettings, Purpose

space = os.environ["SPACE"]
spec = access.inside(os.environ)
kube = Kube(spec)
settings = KubeSettings(space, Purpose.DEV_TEST)
looking = Looking(kube, settings, Wanted(Purpose.DEV_TEST, Size("any")), cluster="own")
found = {item.name: [item.status.value, item.evidence] for item in looking.outside()}
path = f"/api/v1/namespaces/{space}/configmaps/made-inside"
body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "made-inside"}, "data": {"a": "b"}}
for _ in range(2):
    kube.apply(path, body)
try:
    kube.get("/api/v1/namespaces/kube-system/secrets")
    refused = ""
except SlipwayError as error:
    refused = error.code
print("RESULT " + json.dumps({"server": spec.server, "secret": spec.token + spec.key, "checks": found,
                              "made": kube.get(path)["data"], "refused": refused}))
"""


@pytest.fixture
def kube() -> Iterator[Kube]:
    made = Kube(cluster.spec())
    with reach.api_server(made):
        yield made
    made.close()


@pytest.fixture
def space(kube: Kube) -> Iterator[str]:
    with cluster.namespace(kube, "inside") as name:
        yield name
    for kind in ("clusterroles", "clusterrolebindings"):
        kube.delete(f"/apis/rbac.authorization.k8s.io/v1/{kind}/{ACCOUNT}-{name}")
    assert naming(kube, name) == []


def test_a_pod_uses_its_own_account_with_the_documented_rights(kube: Kube, space: str) -> None:
    # of the whole cluster only names of this test's own are made
    role = checks.role_yaml(space, ACCOUNT).replace(
        f"kind: ClusterRole\nmetadata:\n  name: {ACCOUNT}\n",
        f"kind: ClusterRole\nmetadata:\n  name: {ACCOUNT}-{space}\n",
    )
    role = role.replace(
        f"kind: ClusterRoleBinding\nmetadata:\n  name: {ACCOUNT}\n",
        f"kind: ClusterRoleBinding\nmetadata:\n  name: {ACCOUNT}-{space}\n",
    ).replace(
        f"kind: ClusterRole\n  name: {ACCOUNT}\n", f"kind: ClusterRole\n  name: {ACCOUNT}-{space}\n"
    )
    assert role.count(f"{ACCOUNT}-{space}") == 3
    account = f"apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: {ACCOUNT}\n  namespace: {space}\n"
    subprocess.run(
        ["kubectl", "apply", "-f", "-"],
        input=f"{account}---\n{role}".encode(),
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    kube.create(f"/api/v1/namespaces/{space}/pods", _pod(space, routers.image()))

    def said() -> str:
        pod = kube.get(f"/api/v1/namespaces/{space}/pods/portal")
        phase = pod["status"].get("phase")
        if phase not in ("Succeeded", "Failed"):
            return ""
        lines = list(kube.log(space, "portal", "portal"))
        assert phase == "Succeeded", lines
        return next(line for line in lines if " RESULT " in line).partition("RESULT ")[2]

    told = json.loads(cluster.until(said, 120))
    found = told["checks"]
    bad = {name: what for name, what in found.items() if what[0] == "fail"}
    assert bad == {}
    for name in (checks.ANSWERS, checks.VERSION, checks.ALLOWED, checks.PURPOSE):
        assert found[name][0] == "pass", found
    assert told["made"] == {"a": "b"}
    assert told["refused"] == "KubernetesUnaccessible", "other namespaces' Secrets are nobody's"
    assert told["secret"] == "", "its token is read from its file, and is kept nowhere"
    with pytest.raises(NotFound):
        kube.get(f"/api/v1/namespaces/{space}/configmaps/slipway-cluster")


def _pod(space: str, image: str) -> dict[str, object]:
    """With a token that is bound to the pod and runs out, as newer clusters give each pod."""
    return {
        "metadata": {"name": "portal"},
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": ACCOUNT,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000},
            "containers": [
                {
                    "name": "portal",
                    "image": image,
                    "command": ["python", "-c", _TRIED],
                    "env": [{"name": "SPACE", "value": space}],
                    "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
                    "volumeMounts": [
                        {
                            "name": "account",
                            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                        }
                    ],
                }
            ],
            "volumes": [
                {
                    "name": "account",
                    "projected": {
                        "sources": [
                            {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
                            {
                                "configMap": {
                                    "name": "kube-root-ca.crt",
                                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                                }
                            },
                        ]
                    },
                }
            ],
        },
    }
