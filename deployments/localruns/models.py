"""Rows of local runs: what is run once for one person, and how far it is."""

from django.conf import settings
from django.db import models
from django.urls import reverse

from deployments.clusters.models import Cluster
from deployments.environments.models import Environment
from deployments.registry.models import Blob


class LocalRunState(models.TextChoices):
    """queued -> preparing -> starting -> running <-> broken; each of them -> stopped or failed."""

    QUEUED = "queued", "Queued"
    PREPARING = "preparing", "Preparing"  # the environment is built, the files are brought
    STARTING = "starting", "Starting"  # the entry script is loaded
    RUNNING = "running", "Running"
    BROKEN = "broken", "Broken"  # the entry script does not load; the next edit may mend it
    STOPPED = "stopped", "Stopped"
    FAILED = "failed", "Failed"


ENDED = (LocalRunState.STOPPED, LocalRunState.FAILED)
LIVE = tuple(state for state in LocalRunState if state not in ENDED)


class LocalRun(models.Model):
    """One run. Its runner claims it once; when the row ends or goes, the runner ends."""

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="local_runs"
    )
    name = models.CharField(max_length=32)  # the service it may become
    service = models.CharField(
        max_length=32, blank=True
    )  # the one it would update; empty: a new one
    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="+")
    environment = models.ForeignKey(Environment, on_delete=models.CASCADE, related_name="+")
    source = models.ForeignKey(Blob, on_delete=models.PROTECT, related_name="+")
    entry_script = models.CharField(max_length=1024)
    model_versions = models.JSONField(default=list)  # ids of model versions, in order
    config = models.JSONField(default=dict)
    form = models.JSONField(default=dict)  # the deployment form's values, without keys
    state = models.CharField(
        max_length=10, choices=LocalRunState.choices, default=LocalRunState.QUEUED, db_index=True
    )
    cause_code = models.CharField(max_length=60, blank=True)
    cause = models.TextField(blank=True)
    note = models.TextField(blank=True)  # such as a limit that is not enforced here
    # The runner ("host:pid:start").
    claimed_by = models.CharField(max_length=200, blank=True)
    stop_asked = models.BooleanField(default=False)
    # What was edited since it began, {path: text}; `edit` counts saves, `loaded_edit` is the one that runs.
    edits = models.JSONField(default=dict)
    edit = models.PositiveIntegerField(default=0)
    loaded_edit = models.IntegerField(default=-1)
    load_seconds = models.FloatField(null=True)
    load_error = models.TextField(blank=True)
    # A person's last act; the run ends by itself when that is long ago.
    used_at = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"local run {self.pk} of {self.name}"

    def get_absolute_url(self) -> str:
        return reverse("service-local-run", args=[self.pk])

    @property
    def ended(self) -> bool:
        return self.state in ENDED
