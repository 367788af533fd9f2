"""Rows of services, their revisions, and the deployments that bring a revision to life."""

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.urls import reverse

from deployments.clusters.models import Cluster
from deployments.environments.models import Environment
from deployments.registry.models import Blob, ModelVersion
from deployments.services.traffic import Share
from deployments.types import ServiceState

service_name_validator = RegexValidator(
    r"^[a-z][a-z0-9-]{1,30}[a-z0-9]$",
    "Use 3 to 32 of a-z, 0-9 and '-', starting with a letter and ending with a letter or digit.",
)


DEFAULT_VERSION = "default"  # what a service's first version is called unless a person names it

version_name_validator = RegexValidator(
    r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$",
    "Use 1 to 32 of a-z, 0-9 and '-', with a letter or digit at both ends.",
)


class Service(models.Model):
    """A named web service on a cluster. Its scoring URI never changes."""

    name = models.CharField(max_length=32, unique=True, validators=[service_name_validator])
    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="services")
    description = models.TextField(blank=True)
    tags = models.JSONField(default=dict, blank=True)
    properties = models.JSONField(default=dict, blank=True)  # add-only after the first deployment
    state = models.CharField(
        max_length=16,
        choices=[(state.value, state.value) for state in ServiceState],
        default=ServiceState.TRANSITIONING.value,
    )
    state_cause = models.TextField(blank=True)
    # The default version's revision that is applied to the cluster; None until the first one is.
    # `deployments.services.versions` keeps it and the default `ServiceVersion` the same.
    current = models.ForeignKey(
        "Revision", null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    next_revision = models.PositiveIntegerField(default=1, editable=False)
    generation = models.PositiveIntegerField(default=0, editable=False)
    auth_enabled = models.BooleanField(default=True)
    token_auth_enabled = models.BooleanField(default=False)
    cors_origins = models.JSONField(default=list, blank=True)
    # Fernet texts; `deployments.services.keys` reads and writes them.
    primary_key = models.TextField(blank=True, editable=False)
    secondary_key = models.TextField(blank=True, editable=False)
    # Set while it is being deleted: replicas drain first, then the row goes.
    deleting = models.BooleanField(default=False, editable=False)
    # What the cluster showed last, as JSON (list of `deployments.types.Replica`), and when.
    replicas = models.JSONField(default=list, editable=False)
    desired_replicas = models.PositiveIntegerField(null=True, editable=False)
    observed_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("service-overview", args=[self.name])

    @property
    def scoring_uri(self) -> str:
        """ "" while the cluster has given its router no address (`Cluster.address_pending`)."""
        address = self.cluster.address
        return f"{address}/api/v1/service/{self.name}/score" if address else ""

    @property
    def swagger_uri(self) -> str:
        address = self.cluster.address
        return f"{address}/api/v1/service/{self.name}/swagger.json" if address else ""


class Revision(models.Model):
    """An immutable snapshot: models, inference configuration, environment, deployment configuration."""

    service = models.ForeignKey(Service, on_delete=models.CASCADE, related_name="revisions")
    number = models.PositiveIntegerField()
    # No-code when `entry_script` is empty: the framework of the first model says how it is served.
    entry_script = models.CharField(max_length=1024, blank=True)
    # The project folder as a person gave it (zip in the store), before ignore rules; None for no-code.
    source = models.ForeignKey(
        Blob, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    # The archive replicas get, made by the pipeline's `zipping` step; None until then.
    package = models.ForeignKey(
        Blob, null=True, blank=True, on_delete=models.PROTECT, related_name="+"
    )
    # None where an image is brought.
    environment = models.ForeignKey(
        Environment, null=True, blank=True, on_delete=models.PROTECT, related_name="revisions"
    )
    # A brought image as JSON (`deployments.types.ContainerSpec`); then there is no script, no source and
    # no environment.
    container = models.JSONField(null=True, blank=True)
    # `deployments.services.config.DeploymentConfig` as JSON: Azure's Python names.
    config = models.JSONField(default=dict)
    note = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["service", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["service", "number"], name="one_row_a_revision")
        ]

    def __str__(self) -> str:
        return f"{self.service.name} r{self.number}"


class ServiceVersion(models.Model):
    """A version of a service: one revision that takes a share of its traffic.

    Versions that are not the default have their share here; the default takes what is left of 100.
    """

    service = models.ForeignKey(Service, on_delete=models.CASCADE, related_name="versions")
    name = models.CharField(max_length=32, validators=[version_name_validator])
    # The revision that is applied for it; None until its first one is.
    current = models.ForeignKey(
        Revision, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    is_default = models.BooleanField(default=False)
    is_control = models.BooleanField(default=False)  # the others are treatments
    traffic_percent = models.PositiveSmallIntegerField(default=0)
    # A deployment of it has succeeded. Until then it gets no traffic, whatever its share says.
    proven = models.BooleanField(default=False, editable=False)
    # Who was the default and the shares before this one was promoted, for going back in one click.
    before_promotion = models.JSONField(null=True, blank=True, editable=False)
    # What the cluster showed of it last; empty and None until it was seen.
    state = models.CharField(max_length=16, blank=True, editable=False)
    state_cause = models.TextField(blank=True, editable=False)
    desired_replicas = models.PositiveIntegerField(null=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["service", "-is_default", "name"]
        constraints = [
            models.UniqueConstraint(
                fields=["service", "name"], name="one_row_a_version_of_a_service"
            ),
            models.UniqueConstraint(
                fields=["service"],
                condition=models.Q(is_default=True),
                name="one_default_version_a_service",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.service.name}/{self.name}"

    @property
    def share(self) -> Share:
        return Share(self.name, self.traffic_percent, self.is_default, self.proven)


class IssuedToken(models.Model):
    """A token that was given out. The token itself is never kept, only what names it.

    It outlives its service: a token of a deleted service is revoked, and stays so for the next service
    of the same name.
    """

    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="tokens")
    service = models.ForeignKey(
        Service, null=True, on_delete=models.SET_NULL, related_name="tokens"
    )
    jti = models.CharField(max_length=40, unique=True)
    kid = models.CharField(max_length=40)
    subject = models.CharField(max_length=150)
    issued_at = models.DateTimeField()
    refresh_after = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["-issued_at", "-pk"]

    def __str__(self) -> str:
        return f"{self.jti} for {self.subject}"


class RevisionModel(models.Model):
    """A model version in a revision, in the order given."""

    revision = models.ForeignKey(Revision, on_delete=models.CASCADE, related_name="model_links")
    model_version = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, related_name="revision_links"
    )
    position = models.PositiveIntegerField()

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(
                fields=["revision", "model_version"], name="a_model_once_a_revision"
            )
        ]

    def __str__(self) -> str:
        return f"{self.revision} {self.model_version}"


class DeploymentState(models.TextChoices):
    QUEUED = "queued", "Queued"
    RUNNING = "running", "Running"  # the job has it: zipping .. applying
    ROLLING = "rolling", "Rolling out"  # the controller has it: scheduling .. healthy
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


UNFINISHED = (DeploymentState.QUEUED, DeploymentState.RUNNING, DeploymentState.ROLLING)


class Deployment(models.Model):
    """One run of the pipeline for one revision. At most one is unfinished for a service."""

    class Kind(models.TextChoices):
        CREATE = "create", "Create"
        UPDATE = "update", "Update"
        ROLLBACK = "rollback", "Roll back"

    service = models.ForeignKey(Service, on_delete=models.CASCADE, related_name="deployments")
    # The version of the service whose revision it brings in; `version_name` reads it.
    version = models.CharField(max_length=32, blank=True)
    revision = models.ForeignKey(Revision, on_delete=models.CASCADE, related_name="deployments")
    # What was serving before, to go back to on failure.
    previous = models.ForeignKey(
        Revision, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.CREATE)
    state = models.CharField(
        max_length=10,
        choices=DeploymentState.choices,
        default=DeploymentState.QUEUED,
        db_index=True,
    )
    step = models.CharField(max_length=20, blank=True)
    cause_code = models.CharField(max_length=60, blank=True)
    cause = models.TextField(blank=True)
    evidence = models.TextField(blank=True)
    # The job that has it ("host:pid:start") and until when that is believed without a sign of life.
    claimed_by = models.CharField(max_length=200, blank=True)
    claimed_until = models.DateTimeField(null=True, blank=True)
    # How often a job took it up; one that kills its worker each time is given up.
    attempts = models.PositiveIntegerField(default=0, editable=False)
    applied_at = models.DateTimeField(null=True, blank=True)
    # How far each new replica's output has been copied into the deployment's log: {replica: cursor}.
    log_cursors = models.JSONField(default=dict, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["service"],
                condition=models.Q(state__in=["queued", "running", "rolling"]),
                name="one_unfinished_deployment_a_service",
            )
        ]

    def __str__(self) -> str:
        return f"deployment {self.pk} of {self.revision}"

    @property
    def version_name(self) -> str:
        """The version's name; rows of before there were versions have none."""
        return self.version or DEFAULT_VERSION

    @property
    def finished(self) -> bool:
        return self.state in (
            DeploymentState.SUCCEEDED,
            DeploymentState.FAILED,
            DeploymentState.CANCELLED,
        )


class DeploymentStep(models.Model):
    """One step of a deployment's timeline."""

    class State(models.TextChoices):
        RUNNING = "running", "Running"
        DONE = "done", "Done"
        SKIPPED = "skipped", "Skipped"
        FAILED = "failed", "Failed"

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="steps")
    name = models.CharField(max_length=20)
    state = models.CharField(max_length=10, choices=State.choices, default=State.RUNNING)
    detail = models.TextField(blank=True)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["started_at", "pk"]
        constraints = [
            models.UniqueConstraint(fields=["deployment", "name"], name="a_step_once_a_deployment")
        ]

    def __str__(self) -> str:
        return f"{self.deployment_id} {self.name}"
