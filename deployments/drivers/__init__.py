"""Drivers by cluster kind, imported on first use so that unused client libraries stay unloaded."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from deployments.drivers.base import Driver
from deployments.types import ClusterKind

_DRIVERS = {
    ClusterKind.PROCESS: "deployments.drivers.process:ProcessDriver",
    ClusterKind.DOCKER: "deployments.drivers.docker:DockerDriver",
    ClusterKind.KUBERNETES: "deployments.drivers.kubernetes:KubernetesDriver",
}


def available_kinds() -> tuple[ClusterKind, ...]:
    """The kinds of cluster this build can attach."""
    return tuple(_DRIVERS)


def load(kind: ClusterKind, config: Mapping[str, Any]) -> Driver:
    """A driver for one cluster; `config` is what its class takes as keyword arguments."""
    module, _, name = _DRIVERS[kind].partition(":")
    driver: Driver = getattr(import_module(module), name)(**config)
    return driver
