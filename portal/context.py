"""What every template may use: the navigation, the colours, the version."""

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from deployments.version import VERSION
from portal.access import allows
from portal.models import Role

THEME_COOKIE = "slipway_theme"
THEMES = ("light", "dark")


@dataclass(frozen=True, slots=True)
class NavItem:
    """One line of the navigation. `current` is the value of aria-current."""

    label: str
    icon: str
    url: str
    active: bool
    current: str


# label, icon, URL name, prefix of the URL names of its pages
_MAIN = (
    ("Overview", "overview", "overview", "overview"),
    ("Services", "service", "service-list", "service-"),
    ("Models", "model", "model-list", "model-"),
    ("Environments", "environment", "environment-list", "environment-"),
    ("Clusters", "cluster", "cluster-list", "cluster-"),
)
_ADMINISTRATION = (
    ("Registries", "folder", "registry-list", "registry-"),
    ("People", "people", "people-list", "p"),
    ("Audit", "audit", "audit-list", "audit-"),
    ("Admin", "admin", "admin:index", "admin:"),
)


def _items(lines: tuple[tuple[str, str, str, str], ...], here: str) -> list[NavItem]:
    items = []
    for label, icon, name, prefix in lines:
        try:
            url = reverse(name)
        except NoReverseMatch:
            continue
        active = here.startswith(("people-", "person-") if prefix == "p" else prefix)
        items.append(NavItem(label, icon, url, active, "page" if here == name else "true"))
    return items


def site(request: HttpRequest) -> dict[str, Any]:
    """Context processor. Reads no rows; `first_password` looks for one file, for administrators."""
    match = request.resolver_match
    here = match.view_name if match is not None else ""
    user = getattr(request, "user", None)
    administrator = allows(user, Role.ADMINISTRATOR)
    theme = request.COOKIES.get(THEME_COOKIE, "")
    return {
        "nav": _items(_MAIN, here),
        "admin_nav": _items(_ADMINISTRATION, here) if administrator else [],
        "theme": theme if theme in THEMES else "",
        "version": VERSION,
        "first_password": administrator and settings.HOME.admin_password.exists(),
    }
