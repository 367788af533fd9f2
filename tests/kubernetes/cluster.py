"""The cluster that KUBECONFIG names, and namespaces of a test's own on it."""

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from deployments.kube import access
from deployments.kube.api import Kube
from deployments.types import KubeSpec

T = TypeVar("T")
GONE_SECONDS = 150  # see `has_ended`


def spec() -> KubeSpec:
    """Skips the test where there is no cluster."""
    named = os.environ.get("KUBECONFIG")
    if not named:
        pytest.skip("KUBECONFIG names no cluster")
    return access.parse(Path(named).read_text())


def has_ended(pod: Mapping[str, Any]) -> bool:
    """No process of it is left. A kubelet of 1.20 may keep such a pod for a minute more."""
    containers = pod.get("status", {}).get("containerStatuses") or ()
    return not any("running" in item["state"] for item in containers)


@contextmanager
def namespace(kube: Kube, room: str) -> Iterator[str]:
    """One that is gone afterwards, with all that is in it."""
    name = f"t-{room}-{uuid.uuid4().hex[:6]}"
    kube.create("/api/v1/namespaces", {"metadata": {"name": name}})
    try:
        yield name
    finally:
        kube.delete(f"/api/v1/namespaces/{name}")


def until(look: Callable[[], T], seconds: float = 60.0) -> T:
    """What `look` returns once that is something."""
    end = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:.0f} s; last seen: {found!r}")
        time.sleep(0.1)
    return found
