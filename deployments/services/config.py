"""The deployment configuration: Azure's names, defaults and rules in one place.

PURE in spirit: plain values in, plain values out; no rows, no clock. `DeploymentConfig` is what a
revision keeps (as JSON under Azure's Python names). None means "not set": it takes Azure's default,
which `DEFAULTS` holds for forms to show. Keys are secrets and are never part of it.
"""

import json
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Any

from deployments.errors import InvalidInput
from deployments.types import Probe, Resources, Scaling

# What an unset value means. Fields with a plain default in the class are not repeated here.
DEFAULTS: dict[str, int] = {
    "autoscale_min_replicas": 1,
    "autoscale_max_replicas": 10,
    "autoscale_target_utilization": 70,
    "autoscale_refresh_seconds": 1,
}
# Azure publishes no upper bound; beyond this a number is a slip of the finger.
MOST_REPLICAS = 1000

# deploymentconfig.json, by the path of the key.
_JSON_PATHS: dict[str, str] = {
    "autoScaler.autoscaleEnabled": "autoscale_enabled",
    "autoScaler.minReplicas": "autoscale_min_replicas",
    "autoScaler.maxReplicas": "autoscale_max_replicas",
    "autoScaler.targetUtilization": "autoscale_target_utilization",
    "autoScaler.refreshPeriodInSeconds": "autoscale_refresh_seconds",
    "numReplicas": "num_replicas",
    "containerResourceRequirements.cpu": "cpu_cores",
    "containerResourceRequirements.cpuLimit": "cpu_cores_limit",
    "containerResourceRequirements.memoryInGB": "memory_gb",
    "containerResourceRequirements.memoryInGBLimit": "memory_gb_limit",
    "gpuCores": "gpu_cores",
    "maxConcurrentRequestsPerContainer": "replica_max_concurrent_requests",
    "maxQueueWaitMs": "max_request_wait_time",
    "scoringTimeoutMs": "scoring_timeout_ms",
    "authEnabled": "auth_enabled",
    "tokenAuthEnabled": "token_auth_enabled",
    "dataCollection.storageEnabled": "collect_model_data",
    "appInsightsEnabled": "enable_app_insights",
    "livenessProbeRequirements.periodSeconds": "period_seconds",
    "livenessProbeRequirements.initialDelaySeconds": "initial_delay_seconds",
    "livenessProbeRequirements.timeoutSeconds": "timeout_seconds",
    "livenessProbeRequirements.successThreshold": "success_threshold",
    "livenessProbeRequirements.failureThreshold": "failure_threshold",
    "namespace": "namespace",
}
# Read from the file and handed on, but never kept in the configuration.
_SECRET_PATHS = {"keys.primaryKey": "primary_key", "keys.secondaryKey": "secondary_key"}
_COMPUTE_TYPES = ("aks", "local")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentConfig:
    """How a revision runs. Memory in GiB, cpu in cores, utilisation in percent."""

    autoscale_enabled: bool | None = None
    autoscale_min_replicas: int | None = None
    autoscale_max_replicas: int | None = None
    autoscale_target_utilization: int | None = None
    autoscale_refresh_seconds: int | None = None
    num_replicas: int | None = None
    cpu_cores: float = 0.1
    memory_gb: float = 0.5
    cpu_cores_limit: float | None = None
    memory_gb_limit: float | None = None
    gpu_cores: int = 0
    replica_max_concurrent_requests: int = 1
    max_request_wait_time: int = 500  # milliseconds
    scoring_timeout_ms: int = 60_000
    auth_enabled: bool = True
    token_auth_enabled: bool = False
    collect_model_data: bool = False
    enable_app_insights: bool = False
    period_seconds: int = 10
    initial_delay_seconds: int = 310
    timeout_seconds: int = 2
    success_threshold: int = 1
    failure_threshold: int = 3
    namespace: str | None = None

    @property
    def autoscales(self) -> bool:
        """Whether the replica count follows the load: said, or because no count is set."""
        if self.autoscale_enabled is None:
            return self.num_replicas is None
        return self.autoscale_enabled

    @property
    def min_replicas(self) -> int:
        return self.to_scaling().minimum

    @property
    def max_replicas(self) -> int:
        return self.to_scaling().maximum

    def to_scaling(self) -> Scaling:
        if not self.autoscales:
            count = self.num_replicas or 1
            return Scaling(autoscale=False, minimum=count, maximum=count)
        return Scaling(
            autoscale=True,
            minimum=_or_default(self, "autoscale_min_replicas"),
            maximum=_or_default(self, "autoscale_max_replicas"),
            target_utilization=_or_default(self, "autoscale_target_utilization"),
            refresh_seconds=_or_default(self, "autoscale_refresh_seconds"),
        )

    def to_resources(self) -> Resources:
        return Resources(
            cpu=self.cpu_cores,
            memory_gb=self.memory_gb,
            cpu_limit=self.cpu_cores_limit,
            memory_gb_limit=self.memory_gb_limit,
            gpu=self.gpu_cores,
        )

    def to_probe(self) -> Probe:
        return Probe(
            period_seconds=self.period_seconds,
            initial_delay_seconds=self.initial_delay_seconds,
            timeout_seconds=self.timeout_seconds,
            success_threshold=self.success_threshold,
            failure_threshold=self.failure_threshold,
        )

    def to_values(self) -> dict[str, Any]:
        """Plain values under Azure's Python names; what a revision's row keeps."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


NAMES: tuple[str, ...] = tuple(item.name for item in fields(DeploymentConfig))
_AUTOSCALE = tuple(name for name in NAMES if name.startswith("autoscale_"))
_UNSET_AUTOSCALE: dict[str, Any] = dict.fromkeys(_AUTOSCALE)
_KINDS: dict[str, Any] = typing.get_type_hints(DeploymentConfig)


def _or_default(config: DeploymentConfig, name: str) -> int:
    value = getattr(config, name)
    return DEFAULTS[name] if value is None else int(value)


def from_values(
    values: Mapping[str, Any], base: DeploymentConfig | None = None
) -> DeploymentConfig:
    """`base` (Azure's defaults where there is none) with these values over it.

    A name that is missing keeps what `base` has; None takes the default. Changing between a fixed
    count and autoscaling drops what the other way had set, unless the values say it themselves.
    Raises InvalidInput that names the field for an unknown name or a value of the wrong type.
    """
    if unknown := sorted(set(values) - set(NAMES)):
        raise InvalidInput(
            f"{unknown[0]} is not part of a deployment configuration.", field=unknown[0]
        )
    given = {name: _convert(name, value) for name, value in values.items()}
    start = base or DeploymentConfig()
    if given.get("num_replicas") is not None or given.get("autoscale_enabled") is False:
        start = replace(start, **_UNSET_AUTOSCALE)
    elif any(given.get(name) for name in _AUTOSCALE):
        start = replace(start, num_replicas=None)
    plain = DeploymentConfig()
    for name, value in given.items():
        if value is None:
            given[name] = getattr(plain, name)
    return replace(start, **given)


def _convert(name: str, value: Any) -> Any:
    kind = _KINDS[name]
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value is None or (value == "" and options[0] is not bool):
        return None
    wanted = options[0]
    if wanted is bool:
        if isinstance(value, bool):
            return value
        raise InvalidInput(f"{name} is {value!r}; it takes true or false.", field=name)
    if wanted is str:
        return str(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise InvalidInput(f"{name} is {value!r}; it takes a number.", field=name)
    number = float(value)
    if not math.isfinite(number):
        raise InvalidInput(f"{name} is {value!r}; it takes a finite number.", field=name)
    if wanted is int:
        if number != int(number):
            raise InvalidInput(f"{name} is {value}; it takes a whole number.", field=name)
        return int(number)
    return number


def problems(config: DeploymentConfig) -> list[InvalidInput]:
    """Every rule this configuration breaks, each with its field. Empty is good."""
    found: list[InvalidInput] = []

    def wrong(field: str, message: str) -> None:
        found.append(InvalidInput(message, field=field))

    if config.autoscale_enabled is True and config.num_replicas is not None:
        wrong(
            "num_replicas",
            "num_replicas cannot be set while autoscaling is on; clear it or turn autoscaling off.",
        )
    if config.autoscale_enabled is False and config.num_replicas is None:
        wrong("num_replicas", "Autoscaling is off, so num_replicas must be set.")
    if not config.autoscales:
        for name in _AUTOSCALE:
            if name != "autoscale_enabled" and getattr(config, name) is not None:
                wrong(name, f"{name} has no meaning while autoscaling is off; clear it.")
    if config.autoscales:
        low, high = (
            _or_default(config, "autoscale_min_replicas"),
            _or_default(config, "autoscale_max_replicas"),
        )
        if 0 < high < low:
            wrong(
                "autoscale_max_replicas",
                f"autoscale_max_replicas ({high}) is below autoscale_min_replicas ({low}).",
            )
    for name in (
        "autoscale_min_replicas",
        "autoscale_max_replicas",
        "autoscale_target_utilization",
        "autoscale_refresh_seconds",
        "num_replicas",
        "cpu_cores",
        "memory_gb",
        "cpu_cores_limit",
        "memory_gb_limit",
        "replica_max_concurrent_requests",
        "max_request_wait_time",
        "scoring_timeout_ms",
    ):
        value = getattr(config, name)
        if value is not None and value <= 0:
            wrong(name, f"{name} is {value:g}; it must be above 0.")
    for name in ("autoscale_min_replicas", "autoscale_max_replicas", "num_replicas"):
        value = getattr(config, name)
        if value is not None and value > MOST_REPLICAS:
            wrong(name, f"{name} is {value}; at most {MOST_REPLICAS:,} replicas can be asked for.")
    target = config.autoscale_target_utilization
    if target is not None and target > 100:
        wrong(
            "autoscale_target_utilization",
            f"autoscale_target_utilization is {target}; it is a percentage, 1 to 100.",
        )
    if config.gpu_cores < 0:
        wrong("gpu_cores", f"gpu_cores is {config.gpu_cores}; it must be 0 or more.")
    for request, limit in (("cpu_cores", "cpu_cores_limit"), ("memory_gb", "memory_gb_limit")):
        asked, most = getattr(config, request), getattr(config, limit)
        if most is not None and 0 < most < asked:
            wrong(limit, f"{limit} ({most:g}) is below {request} ({asked:g}).")
    for name in (
        "period_seconds",
        "initial_delay_seconds",
        "timeout_seconds",
        "success_threshold",
        "failure_threshold",
    ):
        value = getattr(config, name)
        if value < 1:
            wrong(name, f"{name} is {value}; it must be at least 1.")
    if config.namespace is not None and not re.fullmatch(
        r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", config.namespace
    ):
        wrong(
            "namespace",
            "A namespace has at most 63 of a-z, 0-9 and '-', with no hyphen at the ends.",
        )
    return found


def from_azure_json(text: str) -> tuple[dict[str, Any], list[str]]:
    """(values under Python names, keys that mean nothing here) of a deploymentconfig.json.

    The values may hold `primary_key` and `secondary_key`: hand them to `DeployRequest.keys`.
    Raises InvalidInput when it is not a JSON object or is for another kind of compute.
    """
    data = load_object(text, "deploymentconfig.json")
    values: dict[str, Any] = {}
    unknown: list[str] = []
    sections = {path.split(".")[0] for path in (*_JSON_PATHS, *_SECRET_PATHS) if "." in path}

    def take(path: str, value: Any) -> None:
        name = _JSON_PATHS.get(path) or _SECRET_PATHS.get(path)
        if name is None:
            unknown.append(path)
        else:
            values[name] = value

    for key, value in data.items():
        if key == "computeType":
            if str(value).lower() not in _COMPUTE_TYPES:
                raise InvalidInput(
                    f"computeType is {value!r}; this is for {' or '.join(_COMPUTE_TYPES)}.",
                    field="deploymentconfig",
                )
        elif key in sections:
            if value is None:
                continue
            if not isinstance(value, dict):
                raise InvalidInput(f"{key} must be a JSON object.", field="deploymentconfig")
            for inner, item in value.items():
                take(f"{key}.{inner}", item)
        else:
            take(key, value)
    return values, unknown


def to_azure_json(config: DeploymentConfig) -> str:
    """The same configuration as a deploymentconfig.json. Unset values are left out."""
    data: dict[str, Any] = {"computeType": "aks"}
    for path, name in _JSON_PATHS.items():
        value = getattr(config, name)
        if value is None:
            continue
        *section, key = path.split(".")
        target = data.setdefault(section[0], {}) if section else data
        target[key] = value
    return json.dumps(data, indent=2)


def load_object(text: str, what: str) -> dict[str, Any]:
    """A JSON object's dict. Raises InvalidInput with the line; `what` names the file."""
    field = what.partition(".")[0]
    try:
        data = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{what} is not JSON: {error}.", field=field) from error
    if not isinstance(data, dict):
        raise InvalidInput(f"{what} must hold a JSON object.", field=field)
    return data


def replicas_needed(
    requests_per_second: float, seconds_per_request: float, target: float, concurrency: int
) -> int:
    """Azure's sizing formula. `target` is a share (0.7), not a percentage.

    20 requests/s of 10 s at 0.7 and one request at a time: 286. Raises InvalidInput.
    """
    for field, value in (
        ("requests_per_second", requests_per_second),
        ("seconds_per_request", seconds_per_request),
        ("target", target),
        ("concurrency", concurrency),
    ):
        if not value > 0 or not math.isfinite(value):
            raise InvalidInput("Give a number above 0.", field=field)
    if target > 1:
        raise InvalidInput("The target is a share of 1, such as 0.7.", field="target")
    needed = requests_per_second * seconds_per_request / target / concurrency
    # 7 / 0.7 is 10.000000000000002 in floats, and is 10 replicas, not 11
    return max(1, math.ceil(round(needed, 9)))
