"""The words of the house as frozen values: what should run, and what is seen running.

PURE: no Django, no socket, no clock. Every driver, the agent's plan, the rollout and the
router speak in these types; each of them converts to and from plain JSON with
`to_json` / `from_json` (`deployments.codec`), because the cluster itself is where they are kept.

Units are in the names: seconds are floats, `_ms` is milliseconds, memory is GiB, cpu is cores.
Times called `at` are seconds since the epoch (UTC).
"""

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address
from urllib.parse import urlsplit


class ClusterKind(StrEnum):
    """What a cluster is made of; the key of the driver table."""

    PROCESS = "process"
    DOCKER = "docker"
    KUBERNETES = "kubernetes"


class Purpose(StrEnum):
    """Azure's cluster purposes."""

    DEV_TEST = "DevTest"
    FAST_PROD = "FastProd"
    DENSE_PROD = "DenseProd"


class ServiceState(StrEnum):
    """The states a client sees; Azure's words."""

    TRANSITIONING = "Transitioning"
    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"
    UNSCHEDULABLE = "Unschedulable"
    FAILED = "Failed"


class Phase(StrEnum):
    """Where one replica stands.

    scheduling -> pulling -> starting -> loading -> ready -> draining -> stopped
    any of them -> crashed (waits for its back-off, then starting again)
    """

    SCHEDULING = "scheduling"  # wanted; no place or port given yet
    PULLING = "pulling"  # its files or image are on their way
    STARTING = "starting"  # the process exists; the scoring server has said nothing yet
    LOADING = "loading"  # the entry script is being imported or init() runs
    READY = "ready"  # answered GET /; may take requests
    DRAINING = "draining"  # takes no new request; finishes what it has
    STOPPED = "stopped"  # gone on purpose
    CRASHED = "crashed"  # gone by itself; waits for its next start


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something failed, in words a person can act on.

    `code` is one of Azure's (`UserScriptInitFailed`, `PodOutOfMemory`, ...), `message` says what
    happened, to what and what to do, `evidence` is the traceback or log that shows it.
    """

    code: str
    message: str
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Resources:
    """What one replica asks for (`cpu`, `memory_gb`) and may never exceed (the limits)."""

    cpu: float = 0.1
    memory_gb: float = 0.5
    cpu_limit: float | None = None
    memory_gb_limit: float | None = None
    gpu: int = 0


@dataclass(frozen=True, slots=True)
class Probe:
    """Azure's `livenessProbeRequirements`, with Azure's defaults."""

    period_seconds: int = 10
    initial_delay_seconds: int = 310
    timeout_seconds: int = 2
    success_threshold: int = 1
    failure_threshold: int = 3


@dataclass(frozen=True, slots=True)
class Scaling:
    """Limits of a version's replica count; a fixed count is `autoscale=False, minimum == maximum`."""

    autoscale: bool = True
    minimum: int = 1
    maximum: int = 10
    target_utilization: int = 70  # percent, 1..100
    refresh_seconds: int = 1


@dataclass(frozen=True, slots=True)
class FileSpec:
    """One stored file: where it goes (POSIX path, relative) and what it is."""

    path: str
    sha256: str
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model version with its files."""

    name: str
    version: int
    files: tuple[FileSpec, ...]


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """A built environment: its hash, where the build stands, and variables for the replica.

    `location` is a virtual environment's absolute path on a process cluster and an image
    reference on the others. Variables are not part of the hash.
    """

    hash: str
    location: str
    variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A person's own image, which serves by itself: nothing is built, staged or loaded for it.

    `image` is a reference; a digest in it is kept. Paths begin with "/".
    """

    image: str
    port: int
    scoring_path: str = "/score"
    liveness_path: str = "/"
    readiness_path: str = "/"


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """How a Docker Engine is reached: `unix:///path` or `tcp://host:port`.

    The PEM texts are for TLS, which every address but a loopback one must have; `key` is a secret.
    """

    url: str
    ca: str = ""
    cert: str = ""
    key: str = field(default="", repr=False)

    @property
    def local(self) -> bool:
        """Whether it is one of this machine: a unix socket, or a loopback address."""
        if self.url.startswith("unix://"):
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def host(self) -> str:
        """Of a TCP address: the name or address of the Engine's machine."""
        return urlsplit(self.url).hostname or ""


@dataclass(frozen=True, slots=True)
class KubeSpec:
    """What is needed to reach one API server: one context of a kubeconfig. Certificates are PEM texts.

    `token`, `key` and `program` are secrets. `program` is a kubeconfig's `exec` section as JSON, which only
    an administrator's setting lets in. `in_cluster`: we are a pod of it, and its own files are read.
    """

    server: str  # https://host:port
    ca: str = ""  # "" is the machine's own authorities
    token: str = field(default="", repr=False)
    cert: str = ""
    key: str = field(default="", repr=False)
    namespace: str = ""  # the context's own
    tls_server_name: str = ""
    program: str = field(default="", repr=False)
    in_cluster: bool = False


@dataclass(frozen=True, slots=True)
class Toleration:
    """As Kubernetes has it. Without a value the key's existence is enough."""

    key: str
    value: str = ""
    effect: str = ""  # "" is every effect


@dataclass(frozen=True, slots=True)
class KubeSettings:
    """How services are made on a Kubernetes cluster."""

    namespace: str
    purpose: Purpose = Purpose.DEV_TEST
    service_type: str = "ClusterIP"  # of the router: ClusterIP, NodePort or LoadBalancer
    node_port: int | None = None
    pull_secret: str = ""  # a Secret of the namespace that was there before us
    router_image: str = ""
    blob_url: str = ""  # where pods find the portal's store of files
    blob_ca: str = ""  # certificates that it may be known by besides the system's, PEM
    files_cache_gb: float = 20.0  # of each node, for files of revisions; 0 keeps none there
    accelerator: str = (
        "nvidia.com/gpu"  # the extended resource that a GPU (or FPGA) is asked for by
    )
    # where models may go; from the cluster's SKU
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()


@dataclass(frozen=True, slots=True)
class RevisionSpec:
    """Everything a replica is started from; never changes once made."""

    service: str
    number: int  # counts up from 1 within the service
    source: FileSpec  # the zipped project folder; `path` is the archive's name
    entry_script: str  # POSIX path inside the project folder
    models: tuple[ModelSpec, ...]
    environment: EnvironmentSpec
    resources: Resources = Resources()
    probe: Probe = Probe()
    concurrency: int = 1  # replica_max_concurrent_requests
    scoring_timeout_ms: int = 60_000
    max_request_wait_ms: int = 500
    collect_model_data: bool = False
    start_timeout_seconds: int = 310  # from process start to the first good GET /
    request_log: bool = False  # enable_app_insights: a line a request, never a body
    container: ContainerSpec | None = None  # then entry script, models and environment are not used


@dataclass(frozen=True, slots=True)
class VersionSpec:
    """One revision that takes a share of a service's traffic. Most services have just `default`."""

    name: str
    revision: RevisionSpec
    scaling: Scaling = Scaling()
    traffic_percent: int = 100
    is_default: bool = True


@dataclass(frozen=True, slots=True)
class AuthSpec:
    """How requests are let in. Keys travel as lower-case hex SHA-256 digests only, primary first."""

    key_enabled: bool = True
    token_enabled: bool = False
    key_digests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """What should run, as a driver writes it into the cluster. `generation` counts up with each write."""

    name: str
    versions: tuple[VersionSpec, ...]
    auth: AuthSpec = AuthSpec()
    cors_origins: tuple[str, ...] = ()
    generation: int = 1


@dataclass(frozen=True, slots=True)
class TlsSpec:
    """What a cluster's router shows to TLS clients. `key` is a secret: never logged, mode 600 on disk."""

    cname: str
    chain: str  # PEM, leaf first
    key: str  # PEM, unencrypted
    plain_http: bool = False  # whether the plain port goes on scoring beside it


@dataclass(frozen=True, slots=True)
class CustomLines:
    """An administrator's own lines of HAProxy's configuration, by the section they go to."""

    global_section: tuple[str, ...] = ()
    defaults: tuple[str, ...] = ()
    frontend: tuple[str, ...] = ()
    backend: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A public key (PEM, P-256) that the router accepts ES256 tokens of."""

    kid: str
    public_pem: str


@dataclass(frozen=True, slots=True)
class RouterSpec:
    """How a cluster's router is set up; whatever is not one service's. `generation` counts up.

    `token_keys` holds the newest key first, then the one before it. `revoked_tokens` are the ids
    (`jti`) of tokens that were revoked and have not expired yet. Ids and not digests of whole tokens:
    whoever holds one can write its ECDSA signature in other ways that are just as good, and a digest
    would know only one of them.
    """

    generation: int = 0
    tls: TlsSpec | None = None
    custom: CustomLines = CustomLines()
    token_keys: tuple[TokenKey, ...] = ()
    revoked_tokens: tuple[str, ...] = ()
    # What its own size goes by (`router.selfscale`). `cores` is how many threads it may have; 0 is as
    # many as its machine has cores.
    purpose: Purpose = Purpose.DEV_TEST
    cores: int = 0


@dataclass(frozen=True, slots=True)
class RouterPods:
    """How many pods a cluster's router has, may have, and how many more would find a place."""

    pods: int
    least: int
    most: int
    free: int | None  # None is unknown


@dataclass(frozen=True, slots=True)
class Exit:
    """How a replica's last run ended. `signal` is 0 for a plain exit, else the signal's number."""

    code: int
    signal: int
    at: float
    log_tail: str = ""
    oom: bool = False


@dataclass(frozen=True, slots=True)
class Replica:
    """One running (or wanted) container or process, as seen."""

    id: str  # unique within the cluster, e.g. "diabetes-r1-x7k2p"
    service: str
    version: str
    revision: int
    phase: Phase
    address: str = ""  # "127.0.0.1:41001" or "unix:/path/of/socket" once it has one
    node: str = ""
    created_at: float = 0.0
    started_at: float | None = None  # of the current run
    ready_at: float | None = None  # of the current run
    restarts: int = 0
    last_exit: Exit | None = None
    cause: Cause | None = None  # why it is not ready, when that is known
    note: str = ""  # said to a person: "memory limit not enforced: no cgroup"
    unheard: bool = False  # was ready when last heard of, and may be still: nobody there tells


@dataclass(frozen=True, slots=True)
class ObservedVersion:
    """A version's wanted replica count, as the cluster keeps it."""

    name: str
    desired: int


@dataclass(frozen=True, slots=True)
class ObservedService:
    """A service found in the cluster with what runs for it."""

    spec: ServiceSpec
    desired: tuple[ObservedVersion, ...]
    replicas: tuple[Replica, ...]


@dataclass(frozen=True, slots=True)
class Observation:
    """What a driver saw at one moment. A driver that cannot see raises; it never returns less."""

    at: float
    services: tuple[ObservedService, ...]
    orphans: tuple[Replica, ...] = ()  # replicas whose service is gone
    supervisor_at: float | None = None  # the agent's last heartbeat; None where there is no agent


@dataclass(frozen=True, slots=True)
class NodeCapacity:
    """One machine's room, in cores, GiB and whole accelerators."""

    name: str
    cpu_total: float
    cpu_free: float
    memory_gb_total: float
    memory_gb_free: float
    gpu_total: int = 0
    gpu_free: int = 0


@dataclass(frozen=True, slots=True)
class Capacity:
    at: float
    nodes: tuple[NodeCapacity, ...]


class RouteState(StrEnum):
    """Where a replica stands in the router."""

    IN_ROTATION = "in_rotation"
    DRAINING = "draining"  # no new requests; some are still inside
    OUT = "out"  # nothing inside; safe to stop


@dataclass(frozen=True, slots=True)
class ReplicaRoute:
    replica: str
    state: RouteState
    busy: int  # requests inside now


@dataclass(frozen=True, slots=True)
class RouteReport:
    """What the router tells the cluster each tick; `drained` there is what allows a stop.

    A replica that is missing from the report is unknown to the router, which is OUT only when
    `at` is later than the moment the replica began to drain.
    """

    at: float
    routes: tuple[ReplicaRoute, ...]


class CheckStatus(StrEnum):
    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Check:
    """One connectivity or health check's result, with what was seen and what to do."""

    name: str
    status: CheckStatus
    evidence: str
    remedy: str = ""
