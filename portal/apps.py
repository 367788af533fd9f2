from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class PortalConfig(AppConfig):
    """What people and clients see."""

    name = "portal"

    def ready(self) -> None:
        from portal import checks, live  # noqa: F401  registers checks

        live.connect()


class SlipwayAdminConfig(AdminConfig):
    default_site = "portal.admin_site.SlipwayAdminSite"
