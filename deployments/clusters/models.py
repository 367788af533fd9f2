"""Rows of clusters and of the sizes their machines come in."""

import re
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.urls import reverse

from deployments.drivers.kubernetes_router_address import pending


class Family(models.TextChoices):
    CPU = "CPU", "CPU"
    GPU = "GPU", "GPU"
    FPGA = "FPGA", "FPGA"


class Severity(models.TextChoices):
    """Of a known vulnerability, the worst first; the words of CVSS."""

    CRITICAL = "critical", "Critical"
    HIGH = "high", "High"
    MEDIUM = "medium", "Medium"
    LOW = "low", "Low"


_LABEL_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_EFFECTS = ("", "NoSchedule", "PreferNoSchedule", "NoExecute")


def check_node_selector(value: object) -> None:
    """Raises ValidationError unless it maps label keys to label values, as Kubernetes takes them."""
    if not isinstance(value, dict):
        raise ValidationError('Write an object of labels, such as {"pool": "gpu"}.')
    for key, text in value.items():
        if not _LABEL_KEY.fullmatch(key):
            raise ValidationError(f"{key!r} is not a label's key.")
        if not isinstance(text, str) or not _LABEL_VALUE.fullmatch(text):
            raise ValidationError(
                f"{text!r} is not a label's value; it is text of at most 63 letters."
            )


def check_tolerations(value: object) -> None:
    """Raises ValidationError unless it is a list of tolerations, as Kubernetes takes them."""
    if not isinstance(value, list):
        raise ValidationError(
            'Write a list, such as [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}].'
        )
    for item in value:
        if not isinstance(item, dict) or not item.keys() <= {"key", "operator", "value", "effect"}:
            raise ValidationError("A toleration has key, operator, value and effect, nothing else.")
        if not all(isinstance(text, str) for text in item.values()):
            raise ValidationError("A toleration's parts are texts.")
        operator = item.get("operator", "Equal")
        if operator not in ("Equal", "Exists") or item.get("effect", "") not in _EFFECTS:
            raise ValidationError(
                "operator is Equal or Exists; effect is NoSchedule, PreferNoSchedule or NoExecute."
            )
        if operator == "Exists" and item.get("value"):
            raise ValidationError("A toleration with operator Exists has no value.")
        if operator == "Equal" and not item.get("key"):
            raise ValidationError("A toleration without a key has operator Exists.")


class Sku(models.Model):
    """A size of machine. Rows come with the product; an administrator may add more."""

    name = models.CharField(max_length=60, unique=True)
    family = models.CharField(max_length=4, choices=Family.choices)
    provider = models.CharField(max_length=40, default="Azure")
    vcpu = models.PositiveIntegerField(
        null=True, blank=True, help_text="Empty: read from the machine."
    )
    memory_gb = models.FloatField(
        null=True, blank=True, help_text="GiB. Empty: read from the machine."
    )
    accelerator = models.CharField(max_length=60, blank=True)
    accelerators = models.PositiveIntegerField(default=0)
    resource_name = models.CharField(
        max_length=80, blank=True, help_text="Kubernetes resource, such as nvidia.com/gpu."
    )
    # Where on a Kubernetes cluster replicas of this size go.
    node_selector = models.JSONField(
        default=dict,
        blank=True,
        validators=[check_node_selector],
        help_text='Labels of the nodes that replicas go to, such as {"pool": "gpu"}.',
    )
    tolerations = models.JSONField(
        default=list,
        blank=True,
        validators=[check_tolerations],
        help_text="Taints that replicas put up with, as Kubernetes writes them: "
        '[{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}].',
    )

    class Meta:
        ordering = ["provider", "family", "name"]
        verbose_name = "SKU"

    def __str__(self) -> str:
        return self.name


class Cluster(models.Model):
    """Where services run."""

    class Kind(models.TextChoices):
        PROCESS = "process", "This machine"
        DOCKER = "docker", "Docker"
        KUBERNETES = "kubernetes", "Kubernetes"

    class ServiceType(models.TextChoices):
        """How a Kubernetes cluster's router is reached."""

        CLUSTER_IP = "ClusterIP", "ClusterIP: inside the cluster, or by an ingress of your own"
        NODE_PORT = "NodePort", "NodePort: at a port of every node"
        LOAD_BALANCER = "LoadBalancer", "LoadBalancer: at an address that the provider gives"

    class Purpose(models.TextChoices):
        DEV_TEST = "DevTest", "Dev-test"
        FAST_PROD = "FastProd", "FastProd"
        DENSE_PROD = "DenseProd", "DenseProd"

    class State(models.TextChoices):
        ATTACHED = "Attached", "Attached"
        DETACHING = "Detaching", "Detaching"  # taken apart by a job; nothing can be deployed to it

    name = models.CharField(
        max_length=24,
        unique=True,
        validators=[
            RegexValidator(
                r"^[a-zA-Z][a-zA-Z0-9-]{1,22}[a-zA-Z0-9]$",
                "Use 3 to 24 letters, digits and '-', starting with a letter and ending with a letter "
                "or digit.",
            )
        ],
    )
    kind = models.CharField(max_length=12, choices=Kind.choices, default=Kind.PROCESS)
    purpose = models.CharField(max_length=10, choices=Purpose.choices, default=Purpose.DEV_TEST)
    sku = models.ForeignKey(Sku, on_delete=models.PROTECT, related_name="clusters")
    state = models.CharField(
        max_length=10, choices=State.choices, default=State.ATTACHED, editable=False
    )
    description = models.TextField(blank=True)
    router_url = models.CharField(
        max_length=512,
        blank=True,
        help_text="Where clients reach its router. Empty: what a Kubernetes cluster says itself.",
    )
    # Port its router listens on here, for clusters whose router this machine runs; None is the setting's.
    router_port = models.PositiveIntegerField(null=True, blank=True)
    # How its Docker Engine is reached (`deployments.types.EngineSpec`); the key is a Fernet text.
    engine_url = models.CharField(max_length=200, blank=True)
    engine_ca = models.TextField(blank=True, editable=False)
    engine_cert = models.TextField(blank=True, editable=False)
    engine_key = models.TextField(blank=True, editable=False)
    # How its Kubernetes API server is reached (`deployments.types.KubeSpec` as JSON, a Fernet text), and
    # how it is used (`KubeSettings`). `kube_server` is for pages; the credentials are never shown.
    kube_server = models.CharField(max_length=300, blank=True)
    kube_spec = models.TextField(blank=True, editable=False)
    kube_namespace = models.CharField(max_length=63, blank=True)
    kube_service_type = models.CharField(
        max_length=12, blank=True, choices=ServiceType.choices, default=""
    )
    kube_node_port = models.PositiveIntegerField(null=True, blank=True)
    kube_pull_secret = models.CharField(max_length=253, blank=True)
    kube_router_image = models.CharField(max_length=400, blank=True)
    # Where the cluster itself says that its router is reached (a load balancer, a port of its nodes); ""
    # while it does not. What a person gave in `router_url` stands before it.
    kube_router_address = models.CharField(max_length=300, blank=True, editable=False)
    # Of its nodes, where these are the way to it.
    kube_tls_port = models.PositiveIntegerField(null=True, blank=True, editable=False)
    # Where its pods reach this portal, for models' files.
    kube_blob_url = models.CharField(max_length=300, blank=True)
    # What stands in the marker that says who attached it; tells this attachment from every other one.
    kube_mark = models.CharField(max_length=40, blank=True, editable=False)
    # What its network was found to be (`deployments.drivers.kubernetes_network.Network`); None is unknown.
    kube_network = models.JSONField(null=True, blank=True, editable=False)
    # Since when checks run that store each result as it comes; None when none do.
    checking_at = models.DateTimeField(null=True, blank=True, editable=False)
    # Images with a known vulnerability of this severity or a worse one are refused; empty refuses none.
    refuse_severity = models.CharField(max_length=10, blank=True, choices=Severity.choices)
    # Latest `driver.check()` results as JSON: [{name, status, evidence, remedy}], and when.
    checks = models.JSONField(default=list, blank=True, editable=False)
    checked_at = models.DateTimeField(null=True, blank=True, editable=False)
    # Latest capacity as JSON (`deployments.types.Capacity`); None is unknown.
    capacity = models.JSONField(null=True, blank=True, editable=False)
    # Last time the controller read the router and the driver; None is never.
    router_seen_at = models.DateTimeField(null=True, blank=True, editable=False)
    observed_at = models.DateTimeField(null=True, blank=True, editable=False)
    # How far the router's telemetry has been collected: its run's id and the last sequence number.
    telemetry_epoch = models.CharField(max_length=40, blank=True, editable=False)
    telemetry_seq = models.BigIntegerField(default=0, editable=False)
    # What its router is set up with; counts up with each change of any of it (`RouterSpec`).
    router_generation = models.PositiveIntegerField(default=0, editable=False)
    tls_cname = models.CharField(max_length=253, blank=True, editable=False)
    tls_chain = models.TextField(blank=True, editable=False)  # PEM, leaf first
    tls_key = models.TextField(blank=True, editable=False)  # a Fernet text
    tls_not_after = models.DateTimeField(null=True, blank=True, editable=False)
    tls_plain_http = models.BooleanField(default=False, editable=False)
    # How many threads the router may have; None is as many as its machine has cores.
    router_cores = models.PositiveSmallIntegerField(null=True, blank=True, editable=False)
    # An administrator's own HAProxy lines as JSON (`deployments.types.CustomLines`).
    custom_lines = models.JSONField(default=dict, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("cluster-detail", args=[self.name])

    @property
    def tls_port(self) -> int:
        """The port its router answers TLS on; beside its own where it has one."""
        if self.kind == self.Kind.KUBERNETES:
            # its Service's, or where the nodes are the door theirs
            return 443 if self.router_url else self.kube_tls_port or 443
        port: int = settings.ENV.router_tls_port
        return port if self.router_port is None else self.router_port + 1

    @property
    def address(self) -> str:
        """Where clients reach its router: by the certificate's name once it has one; "" while the cluster
        has given it no address.

        `router_url` keeps its say where it is that name already: it may know another port.
        """
        plain = (self.router_url or self.kube_router_address).rstrip("/")
        if not self.tls_cname:
            return plain
        given = urlsplit(plain)
        if (given.scheme, given.hostname) == ("https", self.tls_cname):
            return plain
        host = f"[{self.tls_cname}]" if ":" in self.tls_cname else self.tls_cname
        port = self.tls_port
        return f"https://{host}" if port == 443 else f"https://{host}:{port}"

    @property
    def address_pending(self) -> str:
        """Why there is no address yet, in words; "" where there is one."""
        if self.address:
            return ""
        return pending(self.kube_service_type) or "its router has no address; give one under Change"


class Attachment(models.Model):
    """One try to attach a Kubernetes cluster: its checks as they finish, and what came of it.

    It holds what was asked for, so that a try that failed can be mended; credentials as a Fernet text.
    """

    class State(models.TextChoices):
        RUNNING = "running", "Running"
        ATTACHED = "attached", "Attached"
        REFUSED = "refused", "Refused"

    name = models.CharField(max_length=24)
    state = models.CharField(max_length=10, choices=State.choices, default=State.RUNNING)
    asked = models.JSONField(default=dict)  # the form's plain values
    kube_spec = models.TextField(blank=True)
    checks = models.JSONField(default=list)
    doing = models.CharField(max_length=200, blank=True)  # what goes on now, in words
    problem = models.TextField(blank=True)  # why it was refused
    field = models.CharField(max_length=40, blank=True)  # of the form, that the problem belongs to
    claimed_by = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.name} ({self.state})"


class Detachment(models.Model):
    """One Kubernetes cluster being given up: what is removed, how far that is, and what came of it.

    It outlives the cluster's row, which goes last.
    """

    class State(models.TextChoices):
        RUNNING = "running", "Running"
        DETACHED = "detached", "Detached"
        FAILED = "failed", "Failed"

    name = models.CharField(max_length=24)
    server = models.CharField(max_length=300, blank=True)
    namespace = models.CharField(max_length=63, blank=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.RUNNING)
    leave_objects = models.BooleanField(default=False)
    # in the order it goes: [{"kind", "name", "path", "state": "waiting" | "removing" | "removed"}]
    steps = models.JSONField(default=list)
    doing = models.CharField(max_length=200, blank=True)  # what goes on now, in words
    problem = models.TextField(blank=True)  # why it failed
    attempts = models.PositiveIntegerField(default=0)
    claimed_by = models.CharField(max_length=200, blank=True)
    claimed_until = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return f"{self.name} ({self.state})"


class SigningKey(models.Model):
    """A key pair that tokens of a cluster's services are signed with (ES256).

    The newest one signs; the one before it is accepted until its last token has expired.
    """

    cluster = models.ForeignKey(Cluster, on_delete=models.CASCADE, related_name="signing_keys")
    kid = models.CharField(max_length=40, unique=True)
    public_pem = models.TextField()
    private_key = models.TextField(editable=False)  # a Fernet text
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return self.kid
