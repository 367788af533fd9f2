from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class PortalConfig(AppConfig):
    """What people and clients see."""

    name = "portal"
    verbose_name = "People"

    def ready(self) -> None:
        from portal import checks, live  # noqa: F401  registers checks

        live.connect()


class SlipwayAdminConfig(AdminConfig):
    """The admin panel, with the portal's own site."""

    default_site = "portal.admin_site.SlipwayAdminSite"
