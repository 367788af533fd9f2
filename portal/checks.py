"""System checks, with ids and hints: what `manage.py check` can say before anything starts.

| id | says |
|---|---|
| slipway.E001 | HAProxy 2.8 or newer was not found (`router.checks`) |
| slipway.E002 | REDIS_URL is no Redis address |
| slipway.E003 | SLIPWAY_HOME cannot be written to |
| slipway.W001 | a variable SLIPWAY_… that nothing reads |
| slipway.W002 | debug pages are shown to other machines |
"""

import os
from collections.abc import Iterable
from dataclasses import fields
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from redis import ConnectionPool

from portal.env import Env

KNOWN = tuple(
    name
    for item in fields(Env)
    for name in (
        [item.metadata["name"], f"{item.metadata['name']}_FILE"]
        if item.metadata["secret"]
        else [item.metadata["name"]]
    )
)


def unknown(names: Iterable[str]) -> list[tuple[str, str]]:
    """Variables with our prefix that are no setting, each with the nearest known name or ''."""
    found = []
    for name in sorted(names):
        ours = name.startswith("SLIPWAY_") and not name.startswith("SLIPWAY_TEST_")
        if ours and name not in KNOWN:
            near = get_close_matches(name, KNOWN, n=1)
            found.append((name, near[0] if near else ""))
    return found


def is_loopback(bind: str) -> bool:
    """Whether only this machine reaches the address."""
    if bind == "localhost":
        return True
    try:
        return ip_address(bind.strip("[]")).is_loopback
    except ValueError:
        return False


@register("slipway")
def variables_are_known(**kwargs: Any) -> list[CheckMessage]:
    """slipway.W001. Only the names are looked at; `portal.settings` alone reads the values."""
    return [
        Warning(
            f"{name} is not a setting of Slipway; nothing reads it.",
            hint=f"Did you mean {near}?" if near else "docs/settings.md lists all of them.",
            id="slipway.W001",
        )
        for name, near in unknown(os.environ)
    ]


@register("slipway")
def redis_address_is_one(**kwargs: Any) -> list[CheckMessage]:
    """slipway.E002. The address may hold a password, so it is not repeated."""
    try:
        ConnectionPool.from_url(settings.REDIS_URL)
    except ValueError as error:
        scheme = settings.REDIS_URL.partition(":")[0]
        return [
            Error(
                f"REDIS_URL ({scheme}:…) is no Redis address: {error}",
                hint="Such as redis://host:6379/0, rediss://… for TLS, or unix:///path/redis.sock.",
                id="slipway.E002",
            )
        ]
    return []


@register("slipway")
def home_is_writable(**kwargs: Any) -> list[CheckMessage]:
    """slipway.E003."""
    home = settings.HOME
    folders = (home.root, home.store, home.uploads, home.environments, home.clusters, home.logs)
    for folder in folders:
        if not os.access(folder, os.W_OK | os.X_OK):
            return [
                Error(
                    f"{folder} cannot be written to; all state is kept there.",
                    hint="Give it to the user that runs Slipway, or set SLIPWAY_HOME elsewhere.",
                    id="slipway.E003",
                )
            ]
    return []


@register("slipway")
def debug_stays_at_home(**kwargs: Any) -> list[CheckMessage]:
    """slipway.W002."""
    if settings.DEBUG and not is_loopback(settings.ENV.bind):
        return [
            Warning(
                f"SLIPWAY_DEBUG is on while the portal listens on {settings.ENV.bind}: debug pages "
                "show settings and code to whoever reaches it.",
                hint="Unset SLIPWAY_DEBUG.",
                id="slipway.W002",
            )
        ]
    return []
