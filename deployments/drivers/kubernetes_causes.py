"""Why a pod is not what it should be, in words a person can act on.

PURE. What Kubernetes says goes in: a scheduler's message, a container's state, an event; the codes are
Azure's where Azure has one. What a replica's own output says is `deployments.agent.causes`'.
"""

import re
from collections.abc import Sequence
from typing import Any

from deployments.agent import causes
from deployments.types import Cause, NodeCapacity, Resources, RevisionSpec

UNSCHEDULABLE = "PodUnschedulable"
NODES_COMING = "NodesComing"  # a cluster autoscaler is at work: no reason to give up
REFUSED = "AdmissionRefused"
CONFIG = "CreateContainerConfigError"
PULL = "ImagePullBackOff"
_PULLS = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "RegistryUnavailable")
_BAD_NAMES = ("InvalidImageName", "ImageInspectError")
_CONFIGS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError")
_QUOTA = re.compile(r"exceeded quota: ([^,]+), requested: (.+?), used: (.+?), limited: (.+)")
_SHORT = re.compile(r"\d+ Insufficient ([\w./-]+)")


def unschedulable(
    message: str, revision: RevisionSpec | None, nodes: Sequence[NodeCapacity], coming: str
) -> Cause:
    """`message` is the scheduler's; `nodes` what is known of the cluster's room, perhaps nothing; `coming`
    what a cluster autoscaler said that it does about it, "" for nothing."""
    said = message.strip().rstrip(".") or "the scheduler gave no reason"
    if coming:
        return Cause(
            NODES_COMING,
            f"No node has room yet ({said}). The cluster's autoscaler is adding one: {coming}",
            message,
        )
    text = f"No node takes it: {said}."
    if revision is not None:
        asked = revision.resources
        needs = f"{asked.cpu:g} cores, {asked.memory_gb:g} GiB"
        needs += f", {asked.gpu} GPU" if asked.gpu else ""
        text += f" A replica asks for {needs}."
        if nearest := closest(nodes, asked):
            text += f" Closest: {nearest}."
    short = {found[1] for found in _SHORT.finditer(message)}
    if any("/" in name for name in short):
        text += " No node offers enough of that accelerator: add nodes of a size that has it."
    elif short:
        text += " Ask for less, remove what is not needed, or add nodes."
    elif "taint" in message or "didn't match" in message:
        text += " Look at the cluster's node selector and tolerations."
    return Cause(UNSCHEDULABLE, text, message)


def closest(nodes: Sequence[NodeCapacity], asked: Resources, count: int = 3) -> str:
    """The nodes that lack the least of what is asked for."""

    def lacks(node: NodeCapacity) -> float:
        parts = (
            (asked.cpu, node.cpu_free),
            (asked.memory_gb, node.memory_gb_free),
            (float(asked.gpu), float(node.gpu_free)),
        )
        return sum(max(0.0, want - free) / want for want, free in parts if want)

    found = []
    for node in sorted(nodes, key=lambda node: (lacks(node), node.name))[:count]:
        free = f"{node.cpu_free:.2g} of {node.cpu_total:g} cores"
        free += f" and {node.memory_gb_free:.2g} of {node.memory_gb_total:.3g} GiB free"
        free += f", {node.gpu_free} of {node.gpu_total} GPU" if asked.gpu else ""
        found.append(f"{node.name} ({free})")
    return ", ".join(found)


def not_created(message: str, revision: RevisionSpec) -> Cause:
    """Why a version's pods are not even made (ReplicaFailure). `message` is the API server's."""
    if found := _QUOTA.search(message):
        quota, requested, used, limited = (part.strip().rstrip(".") for part in found.groups())
        return Cause(
            UNSCHEDULABLE,
            f"The namespace's quota {quota} does not let a replica of {revision.service} be made: it "
            f"asks for {requested}, {used} is used, the limit is {limited}. Raise the quota, ask for "
            "less, or remove what is not needed.",
            message,
        )
    if "must specify" in message or "failed quota" in message:
        return Cause(
            UNSCHEDULABLE,
            "The namespace has a quota that wants limits which this service does not give: "
            f"{message.strip().rstrip('.')}. Set cpu_cores_limit and memory_gb_limit.",
            message,
        )
    return Cause(
        REFUSED,
        f"The cluster refuses to make a replica of {revision.service}: {message.strip().rstrip('.')}. "
        "An admission rule of the cluster says so; whoever runs it can tell which.",
        message,
    )


def waiting(reason: str, message: str, image: str, revision: RevisionSpec) -> Cause | None:
    """Why a container does not start; None where it is only on its way."""
    if reason in _PULLS or reason in _BAD_NAMES:
        words = message or reason
        if image and image != causes.image_of(revision):
            # the container that fetches files, or that stands before the person's own
            return Cause(
                PULL,
                f"The image {image} could not be pulled: {words.strip().rstrip('.')}. It is Slipway's own: "
                "push it to a registry that the cluster's nodes reach, and check the cluster again.",
                words,
            )
        if reason == "ImagePullBackOff" and words.startswith("Back-off pulling"):
            words = f"{words}, see the event before"
        return causes.of_pull(words, revision)
    if reason in _CONFIGS:
        said = message.strip().rstrip(".") or reason
        hint = ""
        if "secret" in said and "not found" in said:
            hint = " Deploy the service again, which writes it anew."
        elif "runAsNonRoot" in said or "run as root" in said:
            hint = " Build the image with a USER that has a number other than 0; pods may not run as root."
        elif any(text in said for text in ("executable file not found", "no such file")):
            hint = (
                f" The image {image} cannot run that program; build it so that it is on its PATH."
            )
            return Cause(
                "EnvironmentBroken", f"The container cannot be started: {said}.{hint}", said
            )
        return Cause(CONFIG, f"The container cannot be made: {said}.{hint}", said)
    return None


def mount(reason: str, message: str) -> Cause | None:
    """What an event says of a pod's volumes or its network; None where it says something else."""
    if reason in ("FailedMount", "FailedAttachVolume"):
        return Cause(
            CONFIG,
            f"What the pod needs cannot be mounted: {message.strip().rstrip('.')}. Deploy it again, "
            "which writes its files' Secret anew.",
            message,
        )
    if reason in ("FailedCreatePodSandBox", "NetworkNotReady"):
        return Cause(
            "PodSandboxFailed",
            f"The node cannot make the pod: {message.strip().rstrip('.')}. It is tried again; look at "
            "that node's network.",
            message,
        )
    return None


def probe(message: str, seconds: int | None, log: str, revision: RevisionSpec) -> Cause:
    """A probe that fails, in its own words; `seconds` it had to start in, where that is over."""
    if seconds is not None and revision.container is None:
        return causes.of_start_timeout(log, revision)
    said = message.strip().rstrip(".")
    if seconds is not None:
        own = revision.container
        where = f"{own.readiness_path} on port {own.port}" if own else "its readiness"
        return Cause(
            "StartTimedOut",
            f"The container did not answer {where} within {seconds} s, the start timeout: {said}. "
            "Look at its port and its readiness path, or raise the start timeout.",
            log or message,
        )
    return Cause("Unresponsive", f"{said}. It takes no requests until it answers.", log or message)


def node_unheard(node: str) -> Cause:
    """A pod that was ready when its node was last heard."""
    return Cause(
        "NodeNotReady",
        f"Kubernetes hears nothing of the node {node}. The replica takes requests for as long as it "
        "answers the router; it is made again elsewhere once Kubernetes gives it up, after five minutes as "
        "a rule. See to the node's kubelet.",
        f"node {node}",
    )


def evicted(status: dict[str, Any]) -> Cause:
    """A pod that its node put out."""
    reason = status.get("reason") or "Failed"
    said = str(status.get("message") or "").strip()
    return Cause(reason, f"Its node put it out ({reason}): {said or 'it gave no reason'}", said)
