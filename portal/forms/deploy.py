"""The deployment form and its calculator.

A form checks and converts; it stores nothing. Rules of a configuration are `deployments.services.config`'s.
"""

from dataclasses import fields
from typing import Any, cast

from django import forms

from deployments.clusters.models import Cluster
from deployments.environments.models import Environment
from deployments.errors import InvalidInput
from deployments.services import config as configuration
from deployments.services import containers, versions
from deployments.services.config import DeploymentConfig
from deployments.services.models import (
    Service,
    service_name_validator,
    version_name_validator,
)
from deployments.types import ContainerSpec
from portal import brought
from portal.forms.fields import ManyFilesField, ModelVersionsField, TagsField, set_choices

AUTOSCALE, FIXED = "autoscale", "fixed"
NO_CODE, ENTRY_SCRIPT, CONTAINER = "no_code", "entry_script", "container"
EDITOR, UPLOAD, KEPT = "editor", "upload", "kept"
BROUGHT = "brought"  # the environment that inferenceconfig.json defines

_SOURCE_KINDS = [
    (EDITOR, "Write it here"),
    (UPLOAD, "Upload a folder or zip"),
    (KEPT, "Keep the project folder as it is"),
]
_AUTOSCALE_FIELDS = (
    "autoscale_min_replicas",
    "autoscale_max_replicas",
    "autoscale_target_utilization",
    "autoscale_refresh_seconds",
)
_PLAIN_FIELDS = (
    "cpu_cores",
    "memory_gb",
    "cpu_cores_limit",
    "memory_gb_limit",
    "gpu_cores",
    "replica_max_concurrent_requests",
    "max_request_wait_time",
    "scoring_timeout_ms",
    "period_seconds",
    "initial_delay_seconds",
    "timeout_seconds",
    "success_threshold",
    "failure_threshold",
)
_TICKED_FIELDS = ("collect_model_data", "enable_app_insights")
# Boxes that a browser does not send when they are empty.
TICKS = (*_TICKED_FIELDS, "auth_enabled", "token_auth_enabled")
ADVANCED_FIELDS = _PLAIN_FIELDS[6:]


class ClusterField(forms.ModelChoiceField):
    """A cluster by name, shown with its purpose and size."""

    def label_from_instance(self, obj: Any) -> str:
        return f"{obj.name} ({obj.get_purpose_display()}, {obj.sku})"


def _number(label: str, step: str = "1", whole: bool = True, **kwargs: Any) -> Any:
    """A number that may be left empty: it then takes Azure's default, which the placeholder shows."""
    default = kwargs.pop("default", None)
    attrs = {"step": step, "inputmode": "numeric" if whole else "decimal"}
    if default is not None:
        attrs["placeholder"] = str(default)
    kind = forms.IntegerField if whole else forms.FloatField
    return kind(
        label=label,
        required=False,
        initial=default,
        widget=forms.NumberInput(attrs=attrs),
        **kwargs,
    )


def _path(label: str, default: str) -> Any:
    attrs = {"spellcheck": "false", "class": "mono", "placeholder": default}
    return forms.CharField(
        label=label,
        required=False,
        max_length=200,
        initial=default,
        widget=forms.TextInput(attrs=attrs),
    )


def _brought_label(text: str) -> str:
    try:
        found = brought.environment_from(text)
    except InvalidInput:
        found = None
    name = found.name if found is not None else ""
    return f"{name or 'The one'} of inferenceconfig.json, made when this is deployed"


def takes_namespace(cluster: Cluster | None) -> bool:
    """Whether services of the cluster have a namespace; without one, whether any cluster's have."""
    if cluster is not None:
        return cluster.kind == Cluster.Kind.KUBERNETES
    return Cluster.objects.filter(kind=Cluster.Kind.KUBERNETES).exists()


class DeployForm(forms.Form):
    """A new service, or with `service` the next revision of one.

    `cleaned_data["new_environment"]` is what inferenceconfig.json defines, where that was chosen;
    `cleaned_data["config"]` is the checked DeploymentConfig, `cleaned_data["config_values"]` what was
    given of it, under Azure's names. `has_kept` says whether a project folder
    was given before (uploaded a moment ago, or the current revision's) and may be kept.
    """

    name = forms.CharField(
        label="Service name",
        max_length=32,
        validators=[service_name_validator],
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "spellcheck": "false", "placeholder": "diabetes"}
        ),
        help_text="3 to 32 of a-z, 0-9 and '-'. It is part of the scoring address and never changes.",
    )
    description = forms.CharField(
        label="Description", required=False, max_length=2000, widget=forms.Textarea({"rows": 2})
    )
    tags = TagsField(
        label="Tags",
        required=False,
        widget=forms.TextInput(attrs={"placeholder": "team=risk, stage=test"}),
    )
    cluster = ClusterField(
        label="Cluster",
        queryset=Cluster.objects.none(),
        to_field_name="name",
        empty_label=None,
    )
    version = forms.CharField(
        label="Version",
        required=False,
        max_length=32,
        validators=[version_name_validator],
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "spellcheck": "false", "list": "versions"}
        ),
        help_text="One that runs gets this as its next revision. A new name makes a new version, "
        "which gets no requests until you give it a share.",
    )
    models = ModelVersionsField(label="Models", required=False)

    serving = forms.ChoiceField(
        label="How it is served",
        choices=[
            (NO_CODE, "No code: scikit-learn and ONNX models are served as they are"),
            (ENTRY_SCRIPT, "Entry script: my own init() and run()"),
            (CONTAINER, "Bring an image: a container that serves by itself"),
        ],
        initial=NO_CODE,
        widget=forms.RadioSelect,
    )
    source_kind = forms.ChoiceField(
        label="Project folder",
        required=False,
        choices=_SOURCE_KINDS,
        initial=EDITOR,
        widget=forms.RadioSelect,
    )
    entry_script = forms.CharField(
        label="Entry script",
        required=False,
        max_length=1024,
        initial="score.py",
        widget=forms.TextInput(attrs={"spellcheck": "false", "class": "mono"}),
        help_text="Its path inside the project folder.",
    )
    score_py = forms.CharField(
        label="Code",
        required=False,
        strip=False,
        max_length=512 * 1024,
        widget=forms.Textarea(
            attrs={"rows": 22, "spellcheck": "false", "wrap": "off", "data-editor": "python"}
        ),
    )
    archive = forms.FileField(
        label="Zip file",
        required=False,
        widget=forms.FileInput(attrs={"accept": ".zip,application/zip"}),
    )
    folder = ManyFilesField(label="Folder", required=False)
    kept_source = forms.CharField(required=False, widget=forms.HiddenInput)

    container_image = forms.CharField(
        label="Image",
        required=False,
        max_length=400,
        widget=forms.TextInput(
            attrs={
                "autocomplete": "off",
                "spellcheck": "false",
                "class": "mono",
                "placeholder": "registry.example.com/team/scorer:1.4",
            }
        ),
        help_text="As docker pull takes it; a digest (@sha256:…) is kept. Credentials of its registry stand "
        "under Registries.",
    )
    container_port = _number("Port", default=containers.DEFAULT_PORT)
    container_scoring_path = _path("Scoring path", "/score")
    container_liveness_path = _path("Liveness path", "/")
    container_readiness_path = _path("Readiness path", "/")

    environment = forms.ChoiceField(label="Environment", required=False)
    brought_environment = forms.CharField(required=False, strip=False, widget=forms.HiddenInput)
    brought_keys = forms.CharField(required=False, widget=forms.HiddenInput)

    cpu_cores = _number("CPU cores", step="0.1", whole=False, default=0.1)
    memory_gb = _number("Memory, GiB", step="0.1", whole=False, default=0.5)
    cpu_cores_limit = _number("CPU limit", step="0.1", whole=False, help_text="Empty: no limit.")
    memory_gb_limit = _number("Memory limit, GiB", step="0.1", whole=False)
    gpu_cores = _number("GPUs", default=0, help_text="Whole ones; replicas never share a GPU.")

    replicas_mode = forms.ChoiceField(
        label="Replicas",
        choices=[(AUTOSCALE, "Follow the load"), (FIXED, "A fixed number")],
        initial=AUTOSCALE,
        widget=forms.RadioSelect,
    )
    num_replicas = _number("Replicas")
    autoscale_min_replicas = _number("At least", default=1)
    autoscale_max_replicas = _number("At most", default=10)
    autoscale_target_utilization = _number(
        "Target utilisation, %", default=70, help_text="Share of replicas that should be busy."
    )
    autoscale_refresh_seconds = _number("Decide every, s", default=1)

    replica_max_concurrent_requests = _number(
        "Requests at once per replica",
        default=1,
        help_text="More only when run() may be called again while it runs.",
    )
    max_request_wait_time = _number(
        "Longest wait in the queue, ms", default=500, help_text="Then the answer is 503."
    )
    scoring_timeout_ms = _number(
        "Scoring timeout, ms", default=60000, help_text="Then the answer is 504."
    )

    initial_delay_seconds = _number(
        "Time to start, s",
        default=310,
        help_text="A replica that loads longer than this is started again.",
    )
    period_seconds = _number("Probe every, s", default=10)
    timeout_seconds = _number("Probe timeout, s", default=2)
    success_threshold = _number("Successes to be alive", default=1)
    failure_threshold = _number("Failures to be restarted", default=3)

    enable_app_insights = forms.BooleanField(
        label="Log requests",
        required=False,
        help_text="For each request: when, which, its code and times, its size, who sent it. "
        "Never what was in it.",
    )
    collect_model_data = forms.BooleanField(
        label="Collect model data",
        required=False,
        help_text="Kept with the revision, as Azure’s files have it. Nothing is collected by it: this "
        "version of Slipway stores no inputs and no predictions of replicas.",
    )
    namespace = forms.CharField(
        label="Kubernetes namespace",
        required=False,
        max_length=63,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text="Empty: the cluster’s own. On a Kubernetes cluster only.",
    )

    auth_enabled = forms.BooleanField(
        label="Requests may bring a key",
        required=False,
        initial=True,
        help_text="Two keys are made; either lets a request in.",
    )
    token_auth_enabled = forms.BooleanField(
        label="Requests may bring a token",
        required=False,
        help_text="Tokens are issued under Consume and expire by themselves. With neither keys nor "
        "tokens, anyone who reaches the router may score.",
    )
    note = forms.CharField(
        label="Why this revision",
        required=False,
        max_length=200,
        help_text="Shown in History.",
    )

    def __init__(
        self, *args: Any, service: Service | None = None, has_kept: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.service = service
        self.has_kept = has_kept
        clusters = Cluster.objects.select_related("sku").order_by("name")
        cast(ClusterField, self.fields["cluster"]).queryset = clusters
        if service is not None:
            for name in ("name", "cluster", "description", "tags"):
                del self.fields[name]
            for name in ("auth_enabled", "token_auth_enabled"):
                del self.fields[name]
        else:
            del self.fields["version"]
        if not takes_namespace(service.cluster if service is not None else None):
            del self.fields["namespace"]
        set_choices(self, "environment", self._environments())
        if not has_kept:
            kinds = [choice for choice in _SOURCE_KINDS if choice[0] != KEPT]
            set_choices(self, "source_kind", kinds)

    def _environments(self) -> list[tuple[str, str]]:
        rows = Environment.objects.order_by("name", "-version").values_list("name", "version")
        named = [(f"{name}:{version}", f"{name}, version {version}") for name, version in rows]
        first = [("", "Made for the model’s framework")]
        if text := self["brought_environment"].value():
            first.append((BROUGHT, _brought_label(text)))
        return [*first, *named]

    def clean_name(self) -> str:
        name = self.cleaned_data["name"]
        if Service.objects.filter(name=name).exists():
            raise forms.ValidationError(
                "A service of this name exists; choose another name, or change that one in its Settings."
            )
        return name

    def clean_version(self) -> str:
        name = str(self.cleaned_data["version"])
        if found := versions.name_problems(self.service, name):
            raise forms.ValidationError(found[0].message)
        return name

    def clean_environment(self) -> Environment | None:
        name, _, version = self.cleaned_data["environment"].rpartition(":")
        if not name:
            return None
        return Environment.objects.get(name=name, version=int(version))

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        self._check_environment(data)
        self._check_source(data)
        self._check_container(data)
        self._check_config(data)
        return data

    def _check_environment(self, data: dict[str, Any]) -> None:
        data["new_environment"] = None
        if self["environment"].value() != BROUGHT:
            return
        try:
            data["new_environment"] = brought.environment_from(data.get("brought_environment", ""))
        except InvalidInput as error:
            self.add_problem(error)

    def _check_source(self, data: dict[str, Any]) -> None:
        if data.get("serving") != ENTRY_SCRIPT:
            return
        if not data.get("entry_script"):
            self.add_error(
                "entry_script", "Name the file that holds init() and run(), such as score.py."
            )
        kind = data.get("source_kind") or EDITOR
        if kind == EDITOR and not (data.get("score_py") or "").strip():
            self.add_error(
                "score_py", "There is no code; write init() and run(), or start from the template."
            )
        if kind == UPLOAD and not (data.get("archive") or data.get("folder")):
            self.add_error("archive", "Choose a zip file or a folder, or write the script here.")
        data["source_kind"] = kind

    def _check_container(self, data: dict[str, Any]) -> None:
        """`data["container"]` is the brought image, or None; only without one are there models."""
        data["container"] = None
        if data.get("serving") != CONTAINER:
            if not data.get("models") and "models" not in self.errors:
                self.add_error("models", "Choose at least one model.")
            return
        if not data.get("container_image"):
            self.add_error("container_image", "Name the image.")
            return
        told = {
            item.name: value
            for item in fields(ContainerSpec)
            if (value := data.get(f"container_{item.name}"))
        }
        container = ContainerSpec(**{"port": containers.DEFAULT_PORT, **told})
        for problem in containers.problems(container):
            self.add_problem(problem)
        data["container"] = container

    def _check_config(self, data: dict[str, Any]) -> None:
        values = {name: data.get(name) for name in _PLAIN_FIELDS}
        values |= {name: bool(data.get(name)) for name in _TICKED_FIELDS}
        if "namespace" in self.fields:
            values["namespace"] = data.get("namespace")
            self._check_namespace(data)
        if data.get("replicas_mode") == FIXED:
            values |= {"autoscale_enabled": False, "num_replicas": data.get("num_replicas")}
        else:
            values |= {name: data.get(name) for name in _AUTOSCALE_FIELDS}
            values |= {"autoscale_enabled": True}
        if self.service is None:
            values["auth_enabled"] = bool(data.get("auth_enabled"))
            values["token_auth_enabled"] = bool(data.get("token_auth_enabled"))
        else:  # access is changed on its own; a revision must not bring back what it was
            values["auth_enabled"] = self.service.auth_enabled
            values["token_auth_enabled"] = self.service.token_auth_enabled
        try:
            config = configuration.from_values(values)
        except InvalidInput as error:
            self.add_problem(error)
            return
        found = configuration.problems(config)
        for problem in found:
            if problem.field not in self.errors:  # a value that could not be read says so already
                self.add_problem(problem)
        if not found:
            data["config"] = config
            data["config_values"] = values

    def _check_namespace(self, data: dict[str, Any]) -> None:
        cluster = self.service.cluster if self.service is not None else data.get("cluster")
        if data.get("namespace") and cluster is not None and not takes_namespace(cluster):
            self.add_error(
                "namespace", f"{cluster.name} is no Kubernetes cluster and has no namespaces."
            )

    def add_problem(self, error: InvalidInput) -> None:
        """A room's complaint, beside the field it is about; above the form where there is none."""
        self.add_error(error.field if error.field in self.fields else None, error.message)

    @property
    def advanced_errors(self) -> bool:
        """Whether a field of the closed part is wrong, so that it opens."""
        return any(name in self.errors for name in ADVANCED_FIELDS)

    @property
    def config(self) -> DeploymentConfig | None:
        return getattr(self, "cleaned_data", {}).get("config")


class CapacityForm(forms.Form):
    """The capacity calculator."""

    requests_per_second = forms.FloatField(
        label="Requests per second", min_value=0.001, max_value=1e7
    )
    seconds_per_request = forms.FloatField(
        label="Seconds per request", min_value=0.0001, max_value=3600
    )
    autoscale_target_utilization = forms.FloatField(
        required=False, min_value=1, max_value=100, label="Target, %"
    )
    replica_max_concurrent_requests = forms.IntegerField(required=False, min_value=1)
