"""The objects that keep revisions' files on each node of a Kubernetes cluster (`deployments.runtime.cache`).

    Secret slipway-files-cache       what files' keys are made from; only the caches mount it
    Service slipway-files            how a pod that starts finds the caches
    NetworkPolicy slipway-files      models' pods as they start, and the caches themselves; nobody else
    DaemonSet slipway-files          one pod on each node that models may go to

They are where the portal's address for nodes is known, unless `files_cache_gb` is 0. The pods are as
restricted as models' are, have no token, and keep files in an emptyDir: it goes with the pod, and the kubelet
ends a pod whose folder grows over its limit, which the cache stays below by itself.

PURE.
"""

from typing import Any

from deployments.drivers import kubernetes_names as names
from deployments.drivers import kubernetes_restricted as restricted
from deployments.drivers import kubernetes_router as router
from deployments.drivers.kubernetes_placing import where
from deployments.drivers.kubernetes_router import Place
from deployments.types import KubeSettings

Object = dict[str, Any]

NAME = "slipway-files"
SECRET = "slipway-files-cache"  # noqa: S105
KEY, CA = "key", "ca.pem"  # of the Secret
PORT = 8092
CONTAINER = "cache"
_USER = 1000
_STORE, _SECRETS = "/slipway/store", "/slipway/cache"
_SLACK = 1.1  # of the folder's limit over what the cache keeps
GRACE_SECONDS = 30


def wanted(settings: KubeSettings) -> bool:
    """Whether there are caches at all."""
    return bool(settings.blob_url and settings.router_image and settings.files_cache_gb > 0)


def objects(settings: KubeSettings, cluster: str, key: str) -> list[Place]:
    """All of them, in the order to make them. `key` is what the files' keys are made from."""
    space = settings.namespace
    core, apps = f"/api/v1/namespaces/{space}", f"/apis/apps/v1/namespaces/{space}"
    net = f"/apis/networking.k8s.io/v1/namespaces/{space}"
    labels = names.labels(names.CACHE, cluster=cluster)

    def made(folder: str, version: str, kind: str, name: str, **rest: Any) -> Place:
        body = {
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": name, "labels": labels},
            **rest,
        }
        body["metadata"] = {
            **body["metadata"],
            "annotations": {names.SPEC_SHA256: router.stamp(body)},
        }
        return Place(f"{folder}/{name}", body)

    return [
        made(
            f"{core}/secrets", "v1", "Secret", SECRET,
            type="Opaque", stringData={KEY: key, CA: settings.blob_ca},
        ),
        made(
            f"{core}/services", "v1", "Service", NAME,
            spec={
                "type": "ClusterIP",
                "selector": selector(),
                "ports": [{"name": "files", "port": PORT, "targetPort": PORT, "protocol": "TCP"}],
            },
        ),
        made(
            f"{net}/networkpolicies", "networking.k8s.io/v1", "NetworkPolicy", NAME,
            spec=_policy(),
        ),
        made(
            f"{apps}/daemonsets", "apps/v1", "DaemonSet", NAME,
            spec={
                "selector": {"matchLabels": selector()},
                "updateStrategy": {
                    "type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"},
                },
                "template": {"metadata": {"labels": labels}, "spec": _pod(settings)},
            },
        ),
    ]  # fmt: skip


def selector() -> dict[str, str]:
    """The labels by which the caches' pods are their own."""
    return {names.PART: names.CACHE}


def address(service: Object) -> str:
    """Of all caches, from the Service as it stands: "http://10.0.0.7:8092"; "" while it has none."""
    host = str(service.get("spec", {}).get("clusterIP") or "")
    if not host or host == "None":
        return ""
    return f"http://[{host}]:{PORT}" if ":" in host else f"http://{host}:{PORT}"


def _policy() -> Object:
    parts = [
        {"podSelector": {"matchLabels": {names.PART: part}}} for part in (names.MODEL, names.CACHE)
    ]
    return {
        "podSelector": {"matchLabels": selector()},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": parts, "ports": [{"protocol": "TCP", "port": PORT}]}],
    }


def _pod(settings: KubeSettings) -> Object:
    limit = int(settings.files_cache_gb * 2**30)
    pod: Object = {
        "automountServiceAccountToken": False,
        # tells the pods where their Service is; they read no setting that one could look like
        "enableServiceLinks": True,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": restricted.pod(_USER, owns_files=True),
        "containers": [_container(settings, limit)],
        "volumes": [
            {"name": "store", "emptyDir": {"sizeLimit": f"{int(limit * _SLACK / 2**20) + 64}Mi"}},
            {"name": "secrets", "secret": {"secretName": SECRET, "defaultMode": 0o440}},
        ],
    }
    if settings.pull_secret:
        pod["imagePullSecrets"] = [{"name": settings.pull_secret}]
    pod |= where(settings)
    return pod


def _container(settings: KubeSettings, limit: int) -> Object:
    given = (("NODE", "spec.nodeName"), ("POD_IP", "status.podIP"))
    return {
        "name": CONTAINER,
        "image": settings.router_image,
        "command": ["python", "-m", "deployments.runtime.cache"],
        "args": [
            "--portal", settings.blob_url, "--bytes", str(limit), "--store", _STORE,
            "--secrets", _SECRETS,
        ],
        "env": [
            {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in given
        ],
        "ports": [{"name": "files", "containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": PORT},
            "periodSeconds": 2, "timeoutSeconds": 3, "failureThreshold": 3,
        },
        "livenessProbe": {
            "httpGet": {"path": "/ready", "port": PORT},
            "periodSeconds": 20, "timeoutSeconds": 10, "failureThreshold": 6,
        },
        # of the memory nearly all is the files that the kernel keeps at hand, and gives up when asked
        "resources": {
            "requests": {"cpu": "50m", "memory": "48Mi"}, "limits": {"memory": "256Mi"},
        },
        "securityContext": restricted.container(),
        "volumeMounts": [
            {"name": "store", "mountPath": _STORE},
            {"name": "secrets", "mountPath": _SECRETS, "readOnly": True},
        ],
    }  # fmt: skip
