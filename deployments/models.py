"""All rows of `deployments`, gathered for Django from the rooms they live in."""

from deployments.audit.models import AuditEntry
from deployments.clusters.models import Cluster, Sku
from deployments.environments.models import Environment, EnvironmentBuild
from deployments.images.models import ImageBuild, Registry
from deployments.localruns.models import LocalRun
from deployments.registry.models import Blob, Model, ModelFile, ModelVersion
from deployments.services.models import (
    Deployment,
    DeploymentStep,
    Revision,
    RevisionModel,
    Service,
)

__all__ = [
    "AuditEntry",
    "Blob",
    "Cluster",
    "Deployment",
    "DeploymentStep",
    "Environment",
    "EnvironmentBuild",
    "ImageBuild",
    "LocalRun",
    "Model",
    "ModelFile",
    "ModelVersion",
    "Registry",
    "Revision",
    "RevisionModel",
    "Service",
    "Sku",
]
