"""What goes on inside a model's pod: its containers, volumes and the files they are told by.

    fetch (init)   router image: brings what `files.json` lists, and the runtime, into the pod's own folders
    model          the environment's image: `inside.py`, the gate, the scoring server
or, for a person's own image,
    fetch (init)   router image: brings the runtime only
    model          the person's image, as it starts by itself
    front          router image: `inside.py`, the gate, and what stands before the container (`front.py`)

    /slipway/files/files.json  -> fetch alone: where the files are, with URLs that run out
    /slipway/told/run.json     -> model or front: what `inside.py` starts
    /slipway/staged            app/ and models/<name>/<version>/
    /slipway/runtime           inside.py and what it needs
    /slipway/run               leave.sock, for preStop

Requests come to port 5001, health is asked on 5002: `/` whether requests may come, `/live` whether it may go
on, `/left` is answered when nobody is inside any more. Who may ask is the network policy's to say.

PURE. A pod is the same for all replicas of a revision; nothing that changes with time is in it.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.agent import command, life
from deployments.drivers import kubernetes_restricted as restricted
from deployments.types import Cause, ContainerSpec, RevisionSpec

PORT, HEALTH_PORT = command.TCP_PORT, command.TCP_HEALTH_PORT
MODEL, FRONT, FETCH = "model", "front", "fetch"
CA_FILE = "ca.pem"
USER = 1000
SLACK_SECONDS = 30  # of the time a pod may take to go, beyond the longest score
_DRAIN_SLACK = 15
_LAST_WORDS = 1.5  # seconds that a container stays when it has said all: three looks of `pod_logs`
_FRONT_RESOURCES = {
    "requests": {"cpu": "100m", "memory": "64Mi"},
    "limits": {"cpu": "500m", "memory": "128Mi"},
}
_FRONT_GUARANTEED = {"cpu": "250m", "memory": "128Mi"}
_SECRET_MODE = 0o440
# The exit codes of `deployments.runtime.fetch`: a cause's code, and what to do.
_FETCH = {
    10: (
        "ModelStoreUnreachable",
        "Pods of this cluster must reach the portal at that address: see the cluster's checks, and its "
        "address for nodes (SLIPWAY_NODE_URL). It is tried again by itself.",
    ),
    11: (
        "FileChecksumWrong",
        "Something between the portal and the node changed it; deploy again.",
    ),
    12: (
        "FileUrlExpired",
        "The portal renews these addresses while its controller runs; the pod tries again by itself.",
    ),
    13: ("FileNotFound", "Its content is gone from the portal's store: register the model again."),
    14: ("DiskFull", "Free some space on the node, or give the cluster nodes with larger disks."),
    15: ("SourceUnreadable", "Upload the project folder again."),
    16: (
        "FilesNotFetched",
        "Deploy again; if it comes back, look at the log of the container `fetch`.",
    ),
}
_INSIDE = ["python", "-I", "-S", "/slipway/runtime/inside.py"]


@dataclass(frozen=True, slots=True)
class PodParts:
    """For a pod's spec; plain dicts as the API server takes them."""

    init_containers: list[dict[str, Any]]
    containers: list[dict[str, Any]]
    volumes: list[dict[str, Any]]
    security_context: dict[str, Any]  # the pod's own
    grace_seconds: int  # terminationGracePeriodSeconds


@dataclass(frozen=True, slots=True)
class StagedFile:
    """One line of `files.json`. `unpack`: a zip whose content goes to `path`, which is a folder."""

    path: str
    sha256: str
    size: int
    url: str = field(repr=False)  # a secret until it runs out
    unpack: bool = False


def pod_containers(
    revision: RevisionSpec,
    *,
    files_secret: str,
    router_image: str,
    resources: Mapping[str, Any],
) -> PodParts:
    """`files_secret` is the name of the Secret that `files_data` is in; `resources` the model container's
    {"requests", "limits"}, extended resources with it. Labels, pull secrets, node selectors, the service
    account and where pods go are the caller's."""
    own = revision.container
    grace = math.ceil(revision.scoring_timeout_ms / 1000) + SLACK_SECONDS
    fetch = {
        "name": FETCH,
        "image": router_image,
        "command": ["python", "-m", "deployments.runtime.fetch"],
        "env": [
            # whose cache is asked
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {
                "name": "SLIPWAY_BLOB_CA",
                "valueFrom": {
                    "secretKeyRef": {"name": files_secret, "key": CA_FILE, "optional": True}
                },
            },
        ],
        # as much as the model has: the pod asks for no more, and stays as guaranteed as it is
        "resources": _without_devices(resources),
        "volumeMounts": [
            _mount("files", "/slipway/files", read_only=True),
            _mount("staged", "/slipway/staged"),
            _mount("runtime", "/slipway/runtime"),
            _mount("tmp", "/tmp"),  # noqa: S108  a volume of the pod's own
        ],
        "securityContext": restricted.lone_container(USER),
    }
    volumes = [
        _secret("files", files_secret, "files.json"),
        _secret("told", files_secret, "run.json"),
        *({"name": name, "emptyDir": {}} for name in ("staged", "runtime", "run", "tmp")),
    ]
    if own is None:
        containers = [_model(revision, resources)]
    else:
        containers = [
            _own(revision, own, files_secret, resources),
            _front(revision, router_image, resources),
        ]
    return PodParts(
        init_containers=[fetch],
        containers=containers,
        volumes=volumes,
        security_context=restricted.pod(USER, owns_files=True),
        grace_seconds=grace,
    )


def files_data(
    revision: RevisionSpec,
    url: Callable[[str], str],
    *,
    cached: Callable[[str], tuple[str, str]] = lambda sha256: ("", ""),
    ca: str = "",
) -> dict[str, str]:
    """The content of a revision's Secret (`stringData`): file name -> text. `url` makes a content's address
    from its SHA-256; the same address for a while, so that the Secret changes only when it must. `cached` is
    its address and its key in the nodes' caches, "" without; `ca` are certificates to trust, PEM."""
    found = []
    for item in staged_files(revision, url):
        address, key = cached(item.sha256)
        found.append(
            {
                "path": item.path,
                "sha256": item.sha256,
                "size": item.size,
                "url": item.url,
                "unpack": item.unpack,
                **({"cache": address, "key": key} if address else {}),
            }
        )
    return {
        **({CA_FILE: ca} if ca else {}),
        "files.json": json.dumps(found, indent=1),
        "run.json": json.dumps(run_data(revision), indent=1, sort_keys=True),
        **(
            {_variable_key(name): value for name, value in revision.environment.variables.items()}
            if revision.container is not None
            else {}
        ),
    }


def staged_files(revision: RevisionSpec, url: Callable[[str], str]) -> list[StagedFile]:
    """What a pod of it fetches; nothing for a person's own image."""
    if revision.container is not None:
        return []
    source = revision.source
    return [
        StagedFile("app", source.sha256, source.size, url(source.sha256), unpack=True),
        *(
            StagedFile(
                f"models/{model.name}/{model.version}/{file.path}",
                file.sha256,
                file.size,
                url(file.sha256),
            )
            for model in revision.models
            for file in model.files
        ),
    ]


def run_data(revision: RevisionSpec) -> dict[str, Any]:
    """What `inside.py` is told in each pod of a revision."""
    silence = life.longest_silence(revision)
    if revision.container is not None:
        return command.build_front_inside(
            revision, revision.container, silence=silence, tcp=command.TCP
        )
    told = command.build_inside(revision, replica="", run=1, silence=silence, tcp=command.TCP)
    return {**told, "last_words": _LAST_WORDS}


def of_fetch(exit_code: int, words: str) -> Cause:
    """Why a pod's files did not come: from the first container's exit code (`runtime.fetch`) and its
    termination message."""
    code, remedy = _FETCH.get(
        exit_code, ("FilesNotFetched", "Look at the log of the container `fetch`.")
    )
    said = words.strip() or f"it ended with exit code {exit_code}"
    return Cause(code, f"The files of the revision did not reach the pod: {said}. {remedy}", words)


def _model(revision: RevisionSpec, resources: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": MODEL,
        "image": revision.environment.location,
        "command": _INSIDE,
        "workingDir": "/",
        "resources": dict(resources),
        "volumeMounts": [
            _mount("told", "/slipway/told", read_only=True),
            _mount("staged", "/slipway/staged", read_only=True),
            _mount("runtime", "/slipway/runtime", read_only=True),
            _mount("run", "/slipway/run"),
            _mount("tmp", "/tmp"),  # noqa: S108
        ],
        "securityContext": restricted.lone_container(USER),
        **_gated(revision),
    }


def _own(
    revision: RevisionSpec, own: ContainerSpec, files_secret: str, resources: Mapping[str, Any]
) -> dict[str, Any]:
    probe = revision.probe
    return {
        "name": MODEL,
        "image": own.image,
        "ports": [{"name": "own", "containerPort": own.port}],
        # through the Secret: a pod's spec can be read by more people than a Secret
        "env": [
            {
                "name": name,
                "valueFrom": {"secretKeyRef": {"name": files_secret, "key": _variable_key(name)}},
            }
            for name in sorted(revision.environment.variables)
        ],
        "resources": dict(resources),
        # its program may write where its maker let it
        "securityContext": {**restricted.lone_container(USER), "readOnlyRootFilesystem": False},
        "startupProbe": {
            "httpGet": {"path": own.readiness_path, "port": own.port},
            "periodSeconds": 1,
            "timeoutSeconds": probe.timeout_seconds,
            "failureThreshold": max(1, revision.start_timeout_seconds),
        },
        "livenessProbe": {
            "httpGet": {"path": own.liveness_path, "port": own.port},
            "periodSeconds": probe.period_seconds,
            "timeoutSeconds": probe.timeout_seconds,
            "failureThreshold": probe.failure_threshold,
        },
        # works in an image that has neither a shell nor Python: the answer comes when nobody is inside
        "lifecycle": {"preStop": {"httpGet": {"path": "/left", "port": HEALTH_PORT}}},
    }


def _front(
    revision: RevisionSpec, router_image: str, resources: Mapping[str, Any]
) -> dict[str, Any]:
    requests, limits = resources.get("requests"), resources.get("limits")
    guaranteed = bool(requests) and requests == limits
    return {
        "name": FRONT,
        "image": router_image,
        "command": _INSIDE,
        "workingDir": "/",
        "resources": (
            {"requests": dict(_FRONT_GUARANTEED), "limits": dict(_FRONT_GUARANTEED)}
            if guaranteed
            else _FRONT_RESOURCES
        ),
        "volumeMounts": [
            _mount("told", "/slipway/told", read_only=True),
            _mount("runtime", "/slipway/runtime", read_only=True),
            _mount("run", "/slipway/run"),
            _mount("tmp", "/tmp"),  # noqa: S108
        ],
        "securityContext": restricted.lone_container(USER),
        **_gated(revision),
    }


def _gated(revision: RevisionSpec) -> dict[str, Any]:
    """Ports, probes and the way out of the container that has the gate. A gate answers at once, however
    busy its replica is, so a probe that waits in vain means that the container is gone."""
    probe = revision.probe
    patience = math.ceil(revision.scoring_timeout_ms / 1000) + _DRAIN_SLACK
    asked = {"port": HEALTH_PORT, "path": "/"}
    return {
        "ports": [
            {"name": "score", "containerPort": PORT},
            {"name": "health", "containerPort": HEALTH_PORT},
        ],
        "startupProbe": {
            "httpGet": asked,
            "periodSeconds": 1,
            "timeoutSeconds": probe.timeout_seconds,
            "failureThreshold": max(1, revision.start_timeout_seconds),
        },
        "readinessProbe": {
            "httpGet": asked,
            "periodSeconds": 1,
            "timeoutSeconds": probe.timeout_seconds,
            "successThreshold": probe.success_threshold,
            "failureThreshold": 3,
        },
        "livenessProbe": {
            "httpGet": {"port": HEALTH_PORT, "path": "/live"},
            "periodSeconds": probe.period_seconds,
            "timeoutSeconds": probe.timeout_seconds,
            "failureThreshold": probe.failure_threshold,
        },
        "lifecycle": {"preStop": {"exec": {"command": [*_INSIDE, "--drain", str(patience)]}}},
    }


def _without_devices(resources: Mapping[str, Any]) -> dict[str, Any]:
    """Fetching needs no accelerator."""
    return {
        kind: {name: amount for name, amount in amounts.items() if "/" not in name}
        for kind, amounts in resources.items()
    }


def _mount(name: str, path: str, *, read_only: bool = False) -> dict[str, Any]:
    mount: dict[str, Any] = {"name": name, "mountPath": path}
    return {**mount, "readOnly": True} if read_only else mount


def _secret(name: str, secret: str, key: str) -> dict[str, Any]:
    """A volume with one of the Secret's files: nobody sees what is not theirs."""
    return {
        "name": name,
        "secret": {
            "secretName": secret,
            "items": [{"key": key, "path": key}],
            "defaultMode": _SECRET_MODE,
        },
    }


def _variable_key(name: str) -> str:
    return f"variable.{name}"
