"""Every setting a person can make, as typed environment variables.

One frozen dataclass is the list; `docs/settings.md` is held to it by a test. A secret may come from a
mounted file instead: `X_FILE` names the file that holds `X`. A wrong value stops the start with the
variable's name, what it holds and what it takes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent


class BadSetting(Exception):
    """An environment variable holds what it cannot mean."""


def _setting(
    name: str,
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    # a dict is copied for each Env; everything else is immutable
    shared: Any = {"default_factory": dict} if isinstance(default, dict) else {"default": default}
    return field(
        **shared,
        metadata={
            "name": name,
            "help": help,
            "low": low,
            "high": high,
            "choices": choices,
            "secret": secret,
        },
    )


@dataclass(frozen=True, slots=True)
class Env:
    """The settings with their defaults. Read once, by `portal.settings`."""

    home: Path = _setting("SLIPWAY_HOME", CHECKOUT / "var", "Folder that holds all state.")
    bind: str = _setting("SLIPWAY_BIND", "127.0.0.1", "Address the portal listens on.")
    port: int = _setting("SLIPWAY_PORT", 8000, "Port of the portal.", low=1, high=65535)
    router_bind: str = _setting(
        "SLIPWAY_ROUTER_BIND", "127.0.0.1", "Address the router of the cluster `local` listens on."
    )
    router_port: int = _setting(
        "SLIPWAY_ROUTER_PORT", 8080, "Port of the router of the cluster `local`.", low=1, high=65535
    )
    router_tls_port: int = _setting(
        "SLIPWAY_ROUTER_TLS_PORT",
        8443,
        "Port the router answers TLS on, once its cluster has a certificate.",
        low=1,
        high=65535,
    )
    router_url: str = _setting(
        "SLIPWAY_ROUTER_URL",
        "",
        "Address clients reach the router of `local` at, such as `https://score.example.com`. "
        "Empty: `http://<router address>:<router port>`, and `https://<name>:<TLS port>` once its "
        "cluster has a certificate.",
    )
    allowed_hosts: tuple[str, ...] = _setting(
        "SLIPWAY_ALLOWED_HOSTS",
        ("localhost", "127.0.0.1", "[::1]"),
        "Host names the portal answers to, separated by commas.",
    )
    trusted_origins: tuple[str, ...] = _setting(
        "SLIPWAY_TRUSTED_ORIGINS",
        (),
        "Origins that forms may be sent from behind a TLS proxy, such as `https://slipway.example.com`.",
    )
    https: bool = _setting(
        "SLIPWAY_HTTPS", False, "The portal is reached over TLS: secure cookies, HSTS, redirect."
    )
    debug: bool = _setting("SLIPWAY_DEBUG", False, "Django's debug pages. Never in production.")
    log_level: str = _setting(
        "SLIPWAY_LOG_LEVEL",
        "INFO",
        "How much the processes log.",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
    )
    secret_key: str = _setting(
        "SLIPWAY_SECRET_KEY",
        "",
        "Signs sessions and encrypts service keys. Empty: made at first start and kept in "
        "`SLIPWAY_HOME/secret_key`.",
        secret=True,
    )
    database_url: str = _setting(
        "DATABASE_URL",
        "",
        "Database, such as `postgres://user:password@host/name`. Empty: SQLite.",
        secret=True,
    )
    redis_url: str = _setting(
        "REDIS_URL", "", "Redis. Empty: one is started on a socket in `SLIPWAY_HOME`.", secret=True
    )
    haproxy_bin: str = _setting(
        "HAPROXY_BIN", "", "HAProxy 2.8 or newer. Empty: one on the path, else the bundled one."
    )
    installer: str = _setting(
        "SLIPWAY_INSTALLER",
        "uv",
        "What builds virtual environments. `pip` reads a company's pip configuration.",
        choices=("uv", "pip"),
    )
    build_timeout: int = _setting(
        "SLIPWAY_BUILD_TIMEOUT",
        1800,
        "Seconds an environment's or an image's build may take.",
        low=10,
    )
    docker_host: str = _setting(
        "SLIPWAY_DOCKER_HOST",
        "unix:///var/run/docker.sock",
        "Docker Engine that builds images where a cluster has none of its own, such as "
        "`unix:///var/run/docker.sock` or `tcp://127.0.0.1:2375`.",
    )
    node_url: str = _setting(
        "SLIPWAY_NODE_URL",
        "",
        "Address by which pods and other machines reach the portal for models' files, such as "
        "`https://slipway.example.com`. A cluster may have another one.",
    )
    blob_ca: str = _setting(
        "SLIPWAY_BLOB_CA",
        "",
        "PEM file of a company's own certificates by which pods know the portal at its address for nodes.",
    )
    node_cache_gb: float = _setting(
        "SLIPWAY_NODE_CACHE_GB",
        20.0,
        "Most of a Kubernetes node's disk that models' files are kept on, GiB. They are removed, those not "
        "used longest first, before the disk is 85 % full. 0 keeps none.",
        low=0,
        high=100_000,
    )
    kubeconfig_programs: bool = _setting(
        "SLIPWAY_KUBECONFIG_PROGRAMS",
        False,
        "Kubeconfigs may name a program (`exec`) that gets their credentials. It runs as Slipway, on this "
        "machine.",
    )
    blob_url_seconds: int = _setting(
        "SLIPWAY_BLOB_URL_SECONDS",
        43_200,
        "Seconds for which an address of a file, given to a cluster, is good. The controller gives out new "
        "ones in time.",
        low=120,
        high=2_592_000,
    )
    base_image: str = _setting(
        "SLIPWAY_BASE_IMAGE",
        "python:3.11-slim",
        "What images are built on when an environment names no base image.",
    )
    build_network: str = _setting(
        "SLIPWAY_BUILD_NETWORK",
        "",
        "Network of image builds on the Engine, such as `host`. Empty: the Engine's own.",
    )
    build_ca_bundle: str = _setting(
        "SLIPWAY_BUILD_CA_BUNDLE",
        "",
        "PEM file of certificates that image builds trust besides the base image's own, and that "
        "look-ups in registries trust. It is in no image.",
    )
    build_index_url: str = _setting(
        "SLIPWAY_BUILD_INDEX_URL",
        "",
        "Package index of image builds in place of PyPI; may hold a user and a password. It is in "
        "no image.",
        secret=True,
    )
    build_extra_index_urls: tuple[str, ...] = _setting(
        "SLIPWAY_BUILD_EXTRA_INDEX_URLS",
        (),
        "Package indexes beside it, separated by commas.",
        secret=True,
    )
    build_http_proxy: str = _setting(
        "SLIPWAY_BUILD_HTTP_PROXY", "", "Proxy of image builds for http.", secret=True
    )
    build_https_proxy: str = _setting(
        "SLIPWAY_BUILD_HTTPS_PROXY", "", "Proxy of image builds for https.", secret=True
    )
    build_no_proxy: str = _setting(
        "SLIPWAY_BUILD_NO_PROXY", "", "Hosts that image builds reach without a proxy."
    )
    micromamba_url: str = _setting(
        "SLIPWAY_MICROMAMBA_URL",
        "https://micro.mamba.pm/api/micromamba/{platform}/latest",
        "Where image builds fetch micromamba (a `.tar.bz2` with `bin/micromamba`) for environments "
        "with conda packages; `{platform}` becomes `linux-64` and the like.",
    )
    conda_alias: str = _setting(
        "SLIPWAY_CONDA_ALIAS",
        "",
        "Address that stands before conda channels' names, for mirrors. Empty: conda.anaconda.org.",
        secret=True,
    )
    image_days: int = _setting(
        "SLIPWAY_IMAGE_DAYS",
        30,
        "Days after its last use when an image may be removed from the Engine.",
        low=1,
    )
    image_keep: int = _setting(
        "SLIPWAY_IMAGE_KEEP",
        10,
        "Newest images that are kept on the Engine however long they were not used.",
        low=0,
    )
    image_history: int = _setting(
        "SLIPWAY_IMAGE_HISTORY",
        5,
        "Latest revisions of each service whose images are kept, so that going back needs no build.",
        low=1,
    )
    deploy_timeout: int = _setting(
        "SLIPWAY_DEPLOY_TIMEOUT",
        1200,
        "Seconds from `applying` to `healthy` before a deployment has timed out; Azure's 20 minutes.",
        low=10,
    )
    unschedulable_timeout: int = _setting(
        "SLIPWAY_UNSCHEDULABLE_TIMEOUT",
        300,
        "Seconds a replica may find no room before the deployment fails; Azure's 5 minutes. While a "
        "cluster's autoscaler adds nodes, it is `SLIPWAY_DEPLOY_TIMEOUT` that ends it.",
        low=5,
    )
    stuck_timeout: int = _setting(
        "SLIPWAY_STUCK_TIMEOUT",
        60,
        "Seconds for which a replica's image may not be pulled, or the cluster may refuse to make it, before "
        "the deployment fails.",
        low=1,
    )
    storage: str = _setting(
        "SLIPWAY_STORAGE",
        "django.core.files.storage.FileSystemStorage",
        "Class that stores model files and sources, such as `storages.backends.s3.S3Storage`.",
    )
    storage_options: dict[str, Any] = _setting(
        "SLIPWAY_STORAGE_OPTIONS",
        {},
        'Its options as a JSON object, such as `{"bucket_name": "models"}`.',
        secret=True,
    )
    max_upload_gb: float = _setting(
        "SLIPWAY_MAX_UPLOAD_GB", 100.0, "Largest upload of a model version, GiB.", low=0.001
    )
    router_backends: int = _setting(
        "SLIPWAY_ROUTER_BACKENDS",
        32,
        "Service versions the router has room for before it reloads to grow.",
        low=1,
        high=1000,
    )
    router_slots: int = _setting(
        "SLIPWAY_ROUTER_SLOTS",
        32,
        "Replicas of one version the router has room for before it reloads to grow.",
        low=2,
        high=512,
    )
    request_log_days: int = _setting(
        "SLIPWAY_REQUEST_LOG_DAYS", 7, "Days that lines of the request log are kept.", low=1
    )
    pod_log_days: int = _setting(
        "SLIPWAY_POD_LOG_DAYS",
        7,
        "Days that the output of pods is kept after they are gone.",
        low=1,
    )
    request_log_rows: int = _setting(
        "SLIPWAY_REQUEST_LOG_ROWS",
        1_000_000,
        "Lines of the request log that are kept of one service.",
        low=1_000,
    )
    scanner: str = _setting(
        "SLIPWAY_SCANNER",
        "auto",
        "Who tells known vulnerabilities of built environments. `auto`: the OSV server where one is set, "
        "else trivy, else grype, where they are on the path.",
        choices=("auto", "none", "trivy", "grype", "osv"),
    )
    osv_url: str = _setting(
        "SLIPWAY_OSV_URL",
        "",
        "Server that speaks OSV's API, such as `https://api.osv.dev`. Names and versions of packages are "
        "sent to it, and nothing else. Empty: none is asked.",
    )
    local_runs: int = _setting(
        "SLIPWAY_LOCAL_RUNS", 2, "Local runs one person may have at a time.", low=1, high=50
    )
    local_run_idle: int = _setting(
        "SLIPWAY_LOCAL_RUN_IDLE",
        900,
        "Seconds a local run goes on without a request, an edit or a visit to its page.",
        low=10,
    )
    seed: bool = _setting(
        "SLIPWAY_SEED",
        True,
        "The first start trains, registers and deploys the example `diabetes`.",
    )
    time_zone: str = _setting("SLIPWAY_TIME_ZONE", "UTC", "Time zone of the pages' exact times.")


def load(environ: Mapping[str, str]) -> Env:
    """The settings that these variables make. Raises BadSetting."""
    values: dict[str, Any] = {}
    for item in fields(Env):
        name = item.metadata["name"]
        raw = environ.get(name)
        file = environ.get(f"{name}_FILE") if item.metadata["secret"] else None
        if raw is not None and file is not None:
            raise BadSetting(f"{name} and {name}_FILE are both set; keep one of them.")
        if file is not None:
            try:
                raw = Path(file).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise BadSetting(
                    f"{name}_FILE: {file} cannot be read: {error.strerror}."
                ) from error
        if raw is not None:
            values[item.name] = _parse(raw, item.type, item.metadata)
    return Env(**values)


def _parse(raw: str, kind: Any, meta: Mapping[str, Any]) -> Any:
    name = meta["name"]
    shown = "(hidden)" if meta["secret"] else repr(raw)
    if kind is bool:
        if raw not in ("True", "False"):
            raise BadSetting(f"{name} is {shown}; it takes True or False.")
        return raw == "True"
    if kind in (int, float):
        try:
            number = kind(raw)
        except ValueError as error:
            raise BadSetting(f"{name} is {shown}; it takes a number.") from error
        low, high = meta["low"], meta["high"]
        if (low is not None and number < low) or (high is not None and number > high):
            limits = f"at least {low}" if high is None else f"{low} to {high}"
            raise BadSetting(f"{name} is {shown}; it takes {limits}.")
        return number
    if kind is Path:
        return Path(raw).expanduser().absolute()
    if kind is str:
        if meta["choices"] and raw not in meta["choices"]:
            raise BadSetting(f"{name} is {shown}; it takes one of {', '.join(meta['choices'])}.")
        return raw
    if kind == tuple[str, ...]:
        return tuple(part.strip() for part in raw.split(",") if part.strip())
    try:
        parsed = json.loads(raw)
    except ValueError as error:
        raise BadSetting(f"{name} is not JSON: {error}.") from error
    if not isinstance(parsed, dict):
        raise BadSetting(f"{name} takes a JSON object.")
    return parsed
