"""What the Pod Security Standard "restricted" wants of a pod of ours, and of each of its containers.

PURE.
"""

from typing import Any


def pod(user: int, *, owns_files: bool = False) -> dict[str, Any]:
    """Of a pod whose processes run as `user`; `owns_files`: what is mounted belongs to that group."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        **({"fsGroup": user} if owns_files else {}),
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container() -> dict[str, Any]:
    """Of a container in such a pod, which says the rest."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def lone_container(user: int) -> dict[str, Any]:
    """Of a container whose pod may come to say something else: what admission adds, others' side cars."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        **container(),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
