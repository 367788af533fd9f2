"""Rows of environments: what a person wrote down, and what was built from it, by hash."""

from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.urls import reverse

from deployments.registry.models import name_validator


class Environment(models.Model):
    """A definition under a name and a version; immutable. Editing makes the next version."""

    name = models.CharField(max_length=255, validators=[name_validator])
    version = models.PositiveIntegerField(default=1)
    description = models.TextField(blank=True)
    base_image = models.CharField(max_length=512, blank=True)
    docker_steps = models.TextField(blank=True)
    conda_yaml = models.TextField(blank=True, verbose_name="conda YAML")
    pip_requirements = models.TextField(blank=True)
    variables = models.JSONField(default=dict, blank=True)
    # `deployments.environments.hashing.environment_hash` of the above; variables are not part of it.
    hash = models.CharField(max_length=64, db_index=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["name", "-version"]
        constraints = [
            models.UniqueConstraint(
                fields=["name", "version"], name="one_row_an_environment_version"
            )
        ]

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"

    def get_absolute_url(self) -> str:
        return reverse("environment-detail", args=[self.name, self.version])


class BuildState(models.TextChoices):
    QUEUED = "queued", "Queued"
    BUILDING = "building", "Building"
    READY = "ready", "Ready"
    FAILED = "failed", "Failed"
    REMOVED = "removed", "Removed"


class EnvironmentBuild(models.Model):
    """What stands for one hash on process clusters: one virtual environment, built once."""

    UNBUILT: ClassVar[dict[str, Any]] = {"location": "", "size": None}

    hash = models.CharField(max_length=64, unique=True)
    state = models.CharField(max_length=10, choices=BuildState.choices, default=BuildState.QUEUED)
    location = models.CharField(max_length=1024, blank=True)
    size = models.BigIntegerField(null=True, blank=True, help_text="Bytes on disk.")
    # Who builds it now ("host:pid:start"), and until when that is believed without a sign of life.
    claimed_by = models.CharField(max_length=200, blank=True)
    claimed_until = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    error_code = models.CharField(max_length=60, blank=True)
    error = models.TextField(blank=True)
    # What is in it: a CycloneDX document, and the scanner's findings as JSON. `scanner` is empty where
    # nobody looked, which is not "nothing found". `deployments.images.models.ImageBuild` has the same.
    sbom = models.JSONField(null=True, blank=True)
    scanner = models.CharField(max_length=100, blank=True)
    scanned_at = models.DateTimeField(null=True, blank=True)
    vulnerabilities = models.JSONField(null=True, blank=True)
    scan_problem = models.TextField(blank=True)  # why the scanner gave no answer the last time

    class Meta:
        ordering = ["-last_used_at", "-started_at"]

    def __str__(self) -> str:
        return self.hash[:12]
