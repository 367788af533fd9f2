"""What our objects on a Kubernetes cluster are called, and the labels they are found by.

PURE. A name says what it is for; who it belongs to is in the labels, and only those are gone by.
"""

import hashlib
import re

PREFIX = "slipway.dev/"
MANAGER = "slipway"  # field manager, and app.kubernetes.io/managed-by
PART = PREFIX + "part"
CLUSTER = PREFIX + "cluster"
SERVICE = PREFIX + "service"
VERSION = PREFIX + "version"
REVISION = PREFIX + "revision"

# what an object is for: values of PART
MODEL, ROUTER, SERVICES, FILES, PROBE, MARKER, PULL, CACHE = (
    "model", "router", "service", "files", "probe", "marker", "pull", "cache",
)  # fmt: skip
KEYS_PART = "keys"  # of a Secret with keys that somebody made without the portal

# annotations
SPEC_SHA256 = PREFIX + "spec-sha256"  # of an object as we asked for it
REVISION_KEY = PREFIX + "revision-key"  # of all that a replica is started from
# of a Deployment that somebody made without the portal
CONCURRENCY = PREFIX + "concurrency"
PORT = PREFIX + "port"
SCORING_TIMEOUT_MS = PREFIX + "scoring-timeout-ms"
MAX_REQUEST_WAIT_MS = PREFIX + "max-request-wait-ms"
AUTOSCALE = PREFIX + "autoscale"  # "1-10", or "off"
TARGET_UTILIZATION = PREFIX + "target-utilization"
TRAFFIC = PREFIX + "traffic-percent"
KEYS = PREFIX + "keys"  # the name of a Secret, whose values are keys
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"

# one of each in a namespace
MARKER_NAME = "slipway-cluster"
ROUTER_SECRET = "slipway-router"  # noqa: S105
ROUTER_KEY = "router.json"
ACCOUNT = "slipway-model"
NETWORK_POLICY = "slipway-models"
PULL_SECRET = "slipway-pull"  # noqa: S105
SPEC_KEY = "spec.json"

_LONGEST = 46  # a pod adds 17 characters, and its host name may have 63
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


def service_secret(service: str) -> str:
    """The service's truth."""
    return _name(f"slipway-service-{service}", (service,))


def files_secret(service: str, revision: int) -> str:
    return _name(f"slipway-files-{service}-r{revision}", (service, str(revision)))


def deployment(service: str, version: str) -> str:
    """Two pairs never share a name: without a hyphen in the version, the last one parts them."""
    return _name(f"{service}-{version}", (service, version), plain="-" not in version)


def service(name: str) -> str:
    """Of the headless Service."""
    return _name(name, (name,))


def labels(
    part: str, *, cluster: str = "", service: str = "", version: str = "", revision: int = 0
) -> dict[str, str]:
    """Of one of our objects: Kubernetes' recommended ones, and ours."""
    own = {
        "app.kubernetes.io/name": service or "slipway",
        "app.kubernetes.io/component": part,
        "app.kubernetes.io/part-of": "slipway",
        "app.kubernetes.io/managed-by": MANAGER,
        "app.kubernetes.io/version": f"r{revision}" if revision else "",
        PART: part,
        CLUSTER: cluster,
        SERVICE: service,
        VERSION: version,
        REVISION: str(revision) if revision else "",
    }
    return {name: _value(text) for name, text in own.items() if text}


def selector(service: str, version: str) -> dict[str, str]:
    """The labels by which a version's pods are its own; these never change."""
    return {PART: MODEL, SERVICE: _value(service), VERSION: _value(version)}


def query(**wanted: str) -> str:
    """A label selector: part="model", service="iris"."""
    return ",".join(f"{PREFIX}{name}={_value(text)}" for name, text in sorted(wanted.items()))


def _value(text: str) -> str:
    return text if _VALUE.fullmatch(text) else _shortened(text, (text,))


def _name(text: str, parts: tuple[str, ...], *, plain: bool = True) -> str:
    if plain and len(text) <= _LONGEST and _LABEL.fullmatch(text):
        return text
    return _shortened(text, parts)


def _shortened(text: str, parts: tuple[str, ...]) -> str:
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]
    kept = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[: _LONGEST - 9].strip("-")
    return f"{kept}-{digest}" if kept else f"s-{digest}"
