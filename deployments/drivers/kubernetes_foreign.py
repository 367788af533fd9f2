"""Services that somebody made without the portal: a Deployment with our labels, told by its annotations.

    kubectl label deployment web slipway.dev/part=model slipway.dev/service=web     (its pods too)
    slipway.dev/concurrency, slipway.dev/port, slipway.dev/autoscale: "1-10", slipway.dev/keys: a Secret

PURE.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from deployments.drivers import kubernetes_names as names
from deployments.drivers import kubernetes_pod
from deployments.drivers.kubernetes_room import GIB, requests
from deployments.types import (
    AuthSpec,
    ContainerSpec,
    EnvironmentSpec,
    FileSpec,
    Resources,
    RevisionSpec,
    Scaling,
    ServiceSpec,
    VersionSpec,
)

Object = dict[str, Any]
Objects = Mapping[str, Object]


def foreign_spec(name: str, deployments: Sequence[Object], secrets: Objects) -> ServiceSpec | None:
    """Of a service that somebody made without the portal: our labels, and what its annotations say.

    None for one whose spec went before its Deployments did: those name us as their manager.
    """
    theirs = [
        item
        for item in deployments
        if item["metadata"]["labels"].get("app.kubernetes.io/managed-by") != names.MANAGER
    ]
    if not theirs:
        return None
    versions: list[VersionSpec] = []
    for item in sorted(theirs, key=lambda item: str(item["metadata"]["name"])):
        notes = item["metadata"].get("annotations") or {}
        versions.append(_foreign_version(name, item, notes, default=not versions))
    notes = theirs[0]["metadata"].get("annotations") or {}
    given = sum(item.traffic_percent for item in versions[1:])
    first = versions[0]
    versions[0] = VersionSpec(
        first.name, first.revision, first.scaling, max(0, 100 - given), is_default=True
    )
    return ServiceSpec(
        name,
        tuple(versions),
        _foreign_auth(notes.get(names.KEYS, ""), secrets),
        generation=max(int(item["metadata"].get("generation", 1)) for item in theirs),
    )


def _foreign_version(
    service: str, item: Object, notes: Mapping[str, str], *, default: bool
) -> VersionSpec:
    pod = item.get("spec", {}).get("template", {})
    container = (pod.get("spec", {}).get("containers") or [{}])[0]
    count = int(item.get("spec", {}).get("replicas", 1))
    scale = notes.get(names.AUTOSCALE, "")
    least, dash, most = scale.partition("-")
    if dash and least.isdecimal() and most.isdecimal() and 1 <= int(least) <= int(most):
        percent = _whole(notes.get(names.TARGET_UTILIZATION), 70)
        scaling = Scaling(True, int(least), int(most), percent)
    else:
        scaling = Scaling(False, max(1, count), max(1, count))
    number = _whole(item["metadata"]["labels"].get(names.REVISION), 1)
    return VersionSpec(
        name=item["metadata"]["labels"].get(names.VERSION) or "default",
        revision=RevisionSpec(
            service=service,
            number=number,
            source=FileSpec("", "", 0),
            entry_script="",
            models=(),
            environment=EnvironmentSpec("", str(container.get("image", ""))),
            resources=_asked(container),
            concurrency=_whole(notes.get(names.CONCURRENCY), 1),
            scoring_timeout_ms=_whole(notes.get(names.SCORING_TIMEOUT_MS), 60_000),
            max_request_wait_ms=_whole(notes.get(names.MAX_REQUEST_WAIT_MS), 500),
            container=ContainerSpec(
                str(container.get("image", "")),
                _whole(notes.get(names.PORT), kubernetes_pod.PORT),
            ),
        ),
        scaling=scaling,
        traffic_percent=0 if default else _whole(notes.get(names.TRAFFIC), 0, least=0),
        is_default=default,
    )


def _foreign_auth(secret: str, secrets: Objects) -> AuthSpec:
    """Nobody is let in by a Secret that is not there; without one named, everybody is."""
    if not secret:
        return AuthSpec(key_enabled=False)
    for item in secrets.values():
        if (
            item["metadata"]["name"] == secret
            and (item["metadata"].get("labels") or {}).get(names.PART) == names.KEYS_PART
        ):
            given = [base64.b64decode(text) for _, text in sorted((item.get("data") or {}).items())]
            return AuthSpec(
                key_digests=tuple(hashlib.sha256(key.strip()).hexdigest() for key in given)
            )
    return AuthSpec()


def _asked(container: Object) -> Resources:
    asked = requests(container)
    return Resources(
        cpu=asked.get("cpu", 0.1),
        memory_gb=asked.get("memory", 0.5 * GIB) / GIB,
        gpu=int(sum(amount for name, amount in asked.items() if name.endswith("/gpu"))),
    )


def _whole(text: object, default: int, least: int = 1) -> int:
    given = str(text or "")
    return int(given) if given.isdecimal() and int(given) >= least else default
