"""The caches of files on Kubernetes as the portal handles them: made with the router, told to pods, removed.

Their objects are `kubernetes_cache`'s. Safety rule: without them all works as it does with them, from the
portal alone; so where the portal may not make them (an older Role), there are none, and nothing fails.
"""

import base64
import hashlib
import secrets
from collections.abc import Mapping

from deployments.drivers import kubernetes_cache as shapes
from deployments.drivers.base import BlobSource
from deployments.drivers.kubernetes_pod import files_data
from deployments.drivers.kubernetes_router import Place
from deployments.errors import NotFound, PermanentError
from deployments.kube.api import UNACCESSIBLE, Kube
from deployments.runtime import cache_keys
from deployments.types import KubeSettings, RevisionSpec


def wanted(kube: Kube, settings: KubeSettings, cluster: str) -> list[Place]:
    """Their objects as they should be; none where there are to be none. Raises SlipwayError."""
    if not shapes.wanted(settings) or not _may(kube, settings.namespace):
        return []
    return shapes.objects(
        settings, cluster, _key(kube, settings.namespace) or secrets.token_hex(32)
    )


def stand(kube: Kube, namespace: str) -> bool:
    """Whether they were made: something of them is there. An older router's image does not know them, so they
    come with a check of the cluster, and not by themselves."""
    return bool(_key(kube, namespace) or _address(kube, namespace))


def remove(kube: Kube, settings: KubeSettings) -> None:
    """Not an error when they are gone, or never were."""
    if _may(kube, settings.namespace):
        for place in reversed(shapes.objects(settings, "", "")):
            kube.delete(place.path)


def staged(
    kube: Kube, settings: KubeSettings, revision: RevisionSpec, blobs: BlobSource
) -> dict[str, str]:
    """What a revision's Secret holds: its files' addresses at the portal, and in the caches where these are.
    Raises SlipwayError."""
    base = settings.blob_url
    address, key = _told(kube, settings)

    def cached(sha256: str) -> tuple[str, str]:
        if not address:
            return "", ""
        return f"{address}/{sha256}", cache_keys.key(key, sha256)

    return files_data(
        revision, lambda sha256: blobs.url(sha256, base), cached=cached, ca=settings.blob_ca
    )


def stamp(kube: Kube, settings: KubeSettings) -> str:
    """Another one when pods are to be told of other caches. Raises SlipwayError."""
    told = "\n".join(_told(kube, settings))
    return hashlib.sha256(told.encode()).hexdigest()


def _told(kube: Kube, settings: KubeSettings) -> tuple[str, str]:
    """The caches' address and key; both "" where there are none."""
    key = _key(kube, settings.namespace) if shapes.wanted(settings) else ""
    address = _address(kube, settings.namespace) if key else ""
    return (address, key) if address else ("", "")


def _may(kube: Kube, namespace: str) -> bool:
    """Whether we may handle DaemonSets here: an older Role does not say so."""
    try:
        kube.get(f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{shapes.NAME}")
    except NotFound:
        return True
    except PermanentError as error:
        if error.code != UNACCESSIBLE:
            raise
        return False
    return True


def _key(kube: Kube, namespace: str) -> str:
    """The one that is there, "" without."""
    try:
        found = kube.get(f"/api/v1/namespaces/{namespace}/secrets/{shapes.SECRET}")
    except NotFound:
        return ""
    data: Mapping[str, str] = found.get("data") or {}
    return base64.b64decode(data.get(shapes.KEY, "")).decode("ascii", "ignore").strip()


def _address(kube: Kube, namespace: str) -> str:
    try:
        return shapes.address(kube.get(f"/api/v1/namespaces/{namespace}/services/{shapes.NAME}"))
    except NotFound:
        return ""
