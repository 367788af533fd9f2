"""Rows of clusters and of the sizes their machines come in."""

from urllib.parse import urlsplit

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.urls import reverse


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

    class Purpose(models.TextChoices):
        DEV_TEST = "DevTest", "Dev-test"
        FAST_PROD = "FastProd", "FastProd"
        DENSE_PROD = "DenseProd", "DenseProd"

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
    description = models.TextField(blank=True)
    router_url = models.CharField(max_length=512, help_text="Where clients reach its router.")
    # Port its router listens on here, for clusters whose router this machine runs; None is the setting's.
    router_port = models.PositiveIntegerField(null=True, blank=True)
    # How its Docker Engine is reached (`deployments.types.EngineSpec`); the key is a Fernet text.
    engine_url = models.CharField(max_length=200, blank=True)
    engine_ca = models.TextField(blank=True, editable=False)
    engine_cert = models.TextField(blank=True, editable=False)
    engine_key = models.TextField(blank=True, editable=False)
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
        port: int = settings.ENV.router_tls_port
        return port if self.router_port is None else self.router_port + 1

    @property
    def address(self) -> str:
        """Where clients reach its router: by the certificate's name once it has one.

        `router_url` keeps its say where it is that name already: it may know another port.
        """
        plain = self.router_url.rstrip("/")
        if not self.tls_cname:
            return plain
        given = urlsplit(plain)
        if (given.scheme, given.hostname) == ("https", self.tls_cname):
            return plain
        host = f"[{self.tls_cname}]" if ":" in self.tls_cname else self.tls_cname
        port = self.tls_port
        return f"https://{host}" if port == 443 else f"https://{host}:{port}"


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
