"""Rows of the model registry. A version's files never change; content is stored once per SHA-256."""

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.urls import reverse

name_validator = RegexValidator(
    r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$",
    "Use letters, digits, '-', '_' and '.', starting with a letter or digit.",
)


class Blob(models.Model):
    """Stored content, by what it is. `deployments.registry.blobs` keeps the bytes."""

    sha256 = models.CharField(max_length=64, primary_key=True)
    size = models.BigIntegerField(help_text="Bytes.")
    created_at = models.DateTimeField(auto_now_add=True)
    # Until then it is not removed though nothing refers to it: somebody is about to.
    held_until = models.DateTimeField(null=True, blank=True, editable=False)

    def __str__(self) -> str:
        return self.sha256[:12]


class Model(models.Model):
    """A name under which versions count up."""

    name = models.CharField(max_length=255, unique=True, validators=[name_validator])
    description = models.TextField(blank=True)
    # The number the next version gets; counted up under a row lock, never down.
    next_version = models.PositiveIntegerField(default=1, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("model-detail", args=[self.name])


class Framework(models.TextChoices):
    SCIKIT_LEARN = "ScikitLearn", "scikit-learn"
    ONNX = "Onnx", "ONNX"
    TENSORFLOW = "TensorFlow", "TensorFlow"
    CUSTOM = "Custom", "Custom"


class ModelVersion(models.Model):
    """One immutable set of files."""

    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="versions")
    version = models.PositiveIntegerField()
    description = models.TextField(blank=True)
    tags = models.JSONField(default=dict, blank=True)
    framework = models.CharField(max_length=20, choices=Framework.choices, default=Framework.CUSTOM)
    framework_version = models.CharField(max_length=40, blank=True)
    sample_input = models.TextField(blank=True, help_text="A JSON request body that works.")
    # SHA-256 over the sorted (path, sha256) pairs.
    content_hash = models.CharField(max_length=64)
    size = models.BigIntegerField(help_text="Bytes of all files.")
    file_count = models.PositiveIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["model__name", "-version"]
        constraints = [
            models.UniqueConstraint(fields=["model", "version"], name="one_row_a_model_version")
        ]

    def __str__(self) -> str:
        return f"{self.model.name}:{self.version}"

    def get_absolute_url(self) -> str:
        return reverse("model-version", args=[self.model.name, self.version])


class ModelFile(models.Model):
    """One file of a version: its place and its content."""

    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="files")
    path = models.CharField(max_length=1024)
    blob = models.ForeignKey(Blob, on_delete=models.PROTECT, related_name="model_files")

    class Meta:
        ordering = ["path"]
        constraints = [models.UniqueConstraint(fields=["version", "path"], name="one_file_a_path")]

    def __str__(self) -> str:
        return self.path
