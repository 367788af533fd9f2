"""The router's objects as a folder for kustomize, for people who keep their cluster's objects themselves.

PURE. The same objects that attaching makes. The token that its pods know each other by is in a file beside
them, from which kustomize makes the Secret: so the manifests may be kept where others read them.
"""

from typing import Any

import yaml

from deployments.drivers import kubernetes_names as names
from deployments.drivers import kubernetes_router as router
from deployments.types import KubeSettings

TOKEN_FILE = "peers.token"  # noqa: S105  a file's name
_KUSTOMIZATION, _ROUTER, _NODES = "kustomization.yaml", "router.yaml", "nodes.yaml"


def folder(settings: KubeSettings, cluster: str, *, budgets: str) -> dict[str, str]:
    """Text by file name, all but `TOKEN_FILE`. `budgets` is the version of disruption budgets to use."""
    here = [
        _counted(place.body, settings)
        for place in router.objects(settings, cluster, "", budgets=budgets)
        if place.body["kind"] != "Secret"
    ]
    nodes = [place.body for place in router.cluster_objects(settings.namespace, cluster)]
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [_ROUTER, _NODES],
        "secretGenerator": [
            {
                "name": router.PEERS_SECRET,
                "namespace": settings.namespace,
                "files": [f"{router.PEERS_KEY}={TOKEN_FILE}"],
                "options": {
                    "disableNameSuffixHash": True,
                    "labels": names.labels(names.ROUTER, cluster=cluster),
                },
            }
        ],
    }
    return {
        _KUSTOMIZATION: _text(kustomization),
        _ROUTER: _text(*(_placed(item, settings.namespace) for item in here)),
        _NODES: _text(*nodes),
    }


def _counted(body: router.Object, settings: KubeSettings) -> router.Object:
    """As many pods as it begins with. Its own scaling changes that, and does so again after an apply."""
    if body["kind"] != "Deployment":
        return body
    return {**body, "spec": {"replicas": router.PODS[settings.purpose][0], **body["spec"]}}


def _placed(body: router.Object, namespace: str) -> router.Object:
    return {**body, "metadata": {**body["metadata"], "namespace": namespace}}


def _text(*objects: Any) -> str:
    return "---\n".join(
        yaml.safe_dump(item, sort_keys=False, allow_unicode=True) for item in objects
    )
