"""The pod that tries, from a node, what services will need: an image, the API server, the model store.

PURE: the pod as it is asked for, and what it came to. It is restricted as models' pods are, has no token, and
ends by itself; its word comes in its termination message, so that nobody needs to read a log.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployments.drivers import kubernetes_names as names
from deployments.drivers import kubernetes_restricted as restricted
from deployments.drivers.kubernetes_checks import POD_API, REGISTRY, STORE, RegistryAsked
from deployments.drivers.kubernetes_placing import where
from deployments.types import Check, CheckStatus, KubeSettings

TRY_SECONDS = 5
POD_SECONDS = 120  # after which the cluster ends the pod, whatever became of us
# Run by the image's Python. Two lines of words a target at most: a message may have 4096 bytes.
_TRY = """
import json, os, socket, ssl, sys, urllib.error, urllib.parse, urllib.request
said = {}
for name, url in json.loads(os.environ["SLIPWAY_TRY"]).items():
    if url == "api":
        host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
        port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        url = "tcp://" + (("[%s]" % host) if ":" in host else host) + ":" + port
    parts = urllib.parse.urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    step = "resolve " + str(parts.hostname)
    try:
        socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        step = "connect to %s:%s" % (parts.hostname, port)
        socket.create_connection((parts.hostname, port), timeout=TIMEOUT).close()
        status = 0
        if parts.scheme != "tcp":
            step = "GET " + url
            trusted = ssl.create_default_context()
            if os.environ.get("SLIPWAY_BLOB_CA"):
                trusted.load_verify_locations(cadata=os.environ["SLIPWAY_BLOB_CA"])
                trusted.verify_flags &= ~ssl.VERIFY_X509_STRICT
            opener = urllib.request.build_opener(
                urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted)
            )
            try:
                status = opener.open(url, timeout=TIMEOUT).status
            except urllib.error.HTTPError as error:
                status = error.code
        words = "%s:%s" % (parts.hostname, port) + (", status %s" % status if status else "")
        said[name] = [not status or status < 400, words]
    except Exception as error:
        said[name] = [False, "%s: %s" % (step, str(error)[:300])]
with open("/dev/termination-log", "w") as file:
    json.dump(said, file)
""".replace("TIMEOUT", str(TRY_SECONDS))

_REACHED = ("not found", "manifest unknown", "name unknown", "notfound", "does not exist")
_SHUT = ("unauthorized", "denied", "authentication required", "forbidden", "401", "403")


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of the pod so far. `ended`: there is nothing more to wait for."""

    ended: bool
    node: str = ""
    started: bool = False  # its image was there
    words: str = ""  # why its image, or a place, is not there
    said: Mapping[str, tuple[bool, str]] = field(default_factory=dict)
    address: str = ""  # the pod's


def image_of(registry: RegistryAsked) -> str:
    """One that is there, else one that is not: a registry that says so was reached."""
    if registry.image:
        return registry.image
    path = "/".join(part for part in (registry.repository.strip("/"), "env") if part)
    return f"{registry.address}/{path}:slipway-probe"


def pod(
    name: str,
    image: str,
    *,
    cluster: str,
    settings: KubeSettings,
    targets: Mapping[str, str],
    pull_secrets: Sequence[str] = (),
) -> dict[str, Any]:
    """`targets` maps a check's name to a URL; "api" stands for the API server as pods know it."""
    small = {"cpu": "50m", "memory": "64Mi"}
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": POD_SECONDS,
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": False,
        "securityContext": restricted.pod(1000),
        "containers": [
            {
                "name": "probe",
                "image": image,
                "imagePullPolicy": "Always",  # an image that is on the node already proves nothing
                "command": ["python3", "-I", "-S", "-c", _TRY],
                "env": [
                    {"name": "SLIPWAY_TRY", "value": json.dumps(dict(targets))},
                    {"name": "SLIPWAY_BLOB_CA", "value": settings.blob_ca},
                ],
                "resources": {"requests": small, "limits": small},
                "securityContext": restricted.container(),
            }
        ],
    }
    if pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in pull_secrets]
    spec |= where(settings)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": names.labels(names.PROBE, cluster=cluster)},
        "spec": spec,
    }


def pull_secret(name: str, registry: RegistryAsked, cluster: str) -> dict[str, Any]:
    """The registry's credentials for the one pod."""
    login = base64.b64encode(f"{registry.username}:{registry.password}".encode()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": name, "labels": names.labels(names.PROBE, cluster=cluster)},
        "stringData": {
            ".dockerconfigjson": json.dumps({"auths": {registry.address: {"auth": login}}})
        },
    }


def seen(item: Mapping[str, Any]) -> Seen:
    """From the pod as the API server shows it."""
    status = item.get("status", {})
    node = item.get("spec", {}).get("nodeName", "")
    for each in status.get("conditions", ()):
        if each.get("type") == "PodScheduled" and each.get("status") == "False":
            return Seen(False, words=f"it found no node: {each.get('message', '')}")
    for each in status.get("containerStatuses", ()):
        state = each.get("state", {})
        if waiting := state.get("waiting"):
            reason = waiting.get("reason", "")
            if reason in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName"):
                # ImagePullBackOff only repeats; what the registry said comes before it
                words = waiting.get("message") or reason
                return Seen(reason != "ImagePullBackOff", node, words=words)
            if reason in (
                "CreateContainerConfigError",
                "CreateContainerError",
                "RunContainerError",
            ):
                return Seen(True, node, started=True, words=waiting.get("message") or reason)
        if ended := state.get("terminated"):
            said = _said(ended.get("message", ""))
            return Seen(True, node, True, _why(ended), said, str(status.get("podIP", "")))
    if status.get("phase") == "Failed":
        return Seen(True, node, words=f"{status.get('reason', '')}: {status.get('message', '')}")
    return Seen(False, node)


def pull_words(events: Sequence[Mapping[str, Any]]) -> str:
    """What the registry, or the way to it, said last; the pod itself soon says only that it waits."""
    said = [
        str(event.get("message", ""))
        for event in events
        if event.get("reason") == "Failed" and "pull" in str(event.get("message", "")).lower()
    ]
    return max(said, key=len, default="")  # others are but "Error: ErrImagePull"


def _why(ended: Mapping[str, Any]) -> str:
    if ended.get("exitCode") == 0:
        return ""
    reason, code = ended.get("reason", "it failed"), ended.get("exitCode")
    return f"{reason}, exit code {code}: {ended.get('message', '')}"


def _said(text: str) -> dict[str, tuple[bool, str]]:
    try:
        return {str(key): (bool(ok), str(words)) for key, (ok, words) in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def registry_check(registry: RegistryAsked, found: Seen, *, seconds: float) -> Check:
    """Whether a node pulls from it."""
    name = REGISTRY.format(address=registry.address)
    where = found.node or "a node"
    words = " ".join(found.words.split())
    if found.started:
        return Check(name, CheckStatus.PASS, f"{where} pulled {registry.image} in {seconds:.0f} s")
    if not found.node:
        return Check(
            name, CheckStatus.UNKNOWN, f"no pod could be placed: {words or 'nobody said why'}",
            "Make room for a pod of 50m CPU and 64 MiB, and check again.",
        )  # fmt: skip
    if not words:
        return Check(
            name, CheckStatus.UNKNOWN, f"{where} said nothing for {seconds:.0f} s", "Check again."
        )
    lower = words.lower()
    if any(word in lower for word in _REACHED):
        if registry.image:
            return Check(
                name, CheckStatus.FAIL, f"{where}: {words}", "Push the image, or correct its name."
            )
        return Check(name, CheckStatus.PASS, f"{where} reached it; nothing of ours is in it yet")
    if any(word in lower for word in _SHUT):
        if registry.image or registry.username:
            remedy = "Give the registry's user and password on the Registries page, or name a pull secret."
            return Check(name, CheckStatus.FAIL, f"{where}: {words}", remedy)
        return Check(
            name,
            CheckStatus.UNKNOWN,
            f"{where} reached it and was not let in, which says nothing while no image of ours is there",
        )
    remedy = (
        "The nodes' container runtime must reach it: by this name, and by https unless the runtime lists it "
        "as an insecure registry."
    )
    return Check(name, CheckStatus.FAIL, f"{where}: {words}", remedy)


_REMEDIES = {
    POD_API: "Pods must reach the service `kubernetes` of the namespace default: see network policies and "
    "kube-proxy.",
    STORE: "Pods must reach this portal at that address, for models' files: set its address for nodes "
    "(SLIPWAY_NODE_URL), and open the way there.",
}


def target_check(name: str, found: Seen) -> Check:
    """What the pod said of one target."""
    if name not in found.said:
        why = " ".join(found.words.split()) or "the pod said nothing"
        return Check(name, CheckStatus.UNKNOWN, f"it could not be tried: {why}")
    passed, words = found.said[name]
    evidence = f"from a pod on {found.node}: {words}"
    if passed:
        return Check(name, CheckStatus.PASS, evidence)
    return Check(name, CheckStatus.FAIL, evidence, _REMEDIES.get(name, ""))
