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
        "SLIPWAY_BUILD_TIMEOUT", 1800, "Seconds an environment's build may take.", low=10
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
        "Seconds a replica may find no room before the deployment fails; Azure's 5 minutes.",
        low=5,
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
    request_log_rows: int = _setting(
        "SLIPWAY_REQUEST_LOG_ROWS",
        1_000_000,
        "Lines of the request log that are kept of one service.",
        low=1_000,
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
