"""Rows of images: the registries they are looked for in, and what was built, by hash."""

from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from deployments.environments.models import BuildState
from deployments.registry.models import name_validator


class Registry(models.Model):
    """Where images come from. One of them is the workspace's own, which is written to."""

    class Role(models.TextChoices):
        WORKSPACE = "workspace", "Workspace: looked in first, pushed to"
        GLOBAL = "global", "Global: looked in second, only read"
        BASE = "base", "Base images: only its credentials are used"

    name = models.CharField(max_length=60, unique=True, validators=[name_validator])
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.WORKSPACE)
    address = models.CharField(max_length=255, help_text="Host and port, without a scheme.")
    repository = models.CharField(
        max_length=200, blank=True, default="slipway", help_text="What stands before /env:<hash>."
    )
    plain_http = models.BooleanField(default=False, help_text="Loopback addresses only.")
    username = models.CharField(max_length=200, blank=True)
    password = models.TextField(blank=True, editable=False)  # a Fernet text
    # The last "test connection"; None is never.
    tested_at = models.DateTimeField(null=True, blank=True, editable=False)
    test_passed = models.BooleanField(null=True, blank=True, editable=False)
    test_message = models.TextField(blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["role", "name"]
        verbose_name_plural = "registries"
        constraints = [
            models.UniqueConstraint(
                fields=["role"], condition=Q(role="workspace"), name="one_workspace_registry"
            )
        ]

    def __str__(self) -> str:
        return self.name


class ImageBuild(models.Model):
    """What stands for one hash on Docker and Kubernetes clusters: one image, built or found once.

    The process clusters' sibling is `deployments.environments.models.EnvironmentBuild`.
    """

    UNBUILT: ClassVar[dict[str, Any]] = {
        "reference": "",
        "digest": "",
        "registry": None,
        "found": False,
        "size": None,
        "dockerfile": "",
        "cancel_asked": False,
        "sbom": None,
        "scanner": "",
        "scanned_at": None,
        "vulnerabilities": None,
    }

    hash = models.CharField(max_length=64, unique=True)
    state = models.CharField(max_length=10, choices=BuildState.choices, default=BuildState.QUEUED)
    # What replicas are started from: by digest where a registry has it, by the Engine's image id where
    # none is set up.
    reference = models.CharField(max_length=512, blank=True)
    digest = models.CharField(max_length=80, blank=True)
    # Where it was found or pushed to; None is the Engine that built it.
    registry = models.ForeignKey(
        Registry, null=True, blank=True, on_delete=models.SET_NULL, related_name="images"
    )
    found = models.BooleanField(default=False, help_text="Found in a registry, not built here.")
    size = models.BigIntegerField(null=True, blank=True, help_text="Bytes, as the Engine says.")
    dockerfile = models.TextField(blank=True)
    # Who builds it now ("host:pid:start"), and until when that is believed without a sign of life.
    claimed_by = models.CharField(max_length=200, blank=True)
    claimed_until = models.DateTimeField(null=True, blank=True)
    cancel_asked = models.BooleanField(default=False)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    error_code = models.CharField(max_length=60, blank=True)
    error = models.TextField(blank=True)
    # What is in it: a CycloneDX document, and the scanner's findings as JSON. `scanner` is empty where
    # nobody looked, which is not "nothing found".
    sbom = models.JSONField(null=True, blank=True)
    scanner = models.CharField(max_length=100, blank=True)
    scanned_at = models.DateTimeField(null=True, blank=True)
    vulnerabilities = models.JSONField(null=True, blank=True)
    scan_problem = models.TextField(blank=True)  # why the scanner gave no answer the last time

    class Meta:
        ordering = ["-last_used_at", "-started_at"]

    def __str__(self) -> str:
        return self.hash[:12]
