from django.apps import AppConfig


class TelemetryConfig(AppConfig):
    """The only part of the router that has rows."""

    name = "router.telemetry"
    label = "telemetry"

    def import_models(self) -> None:
        """Rows of services stand in `models`, those of the routers themselves in a file of their own."""
        super().import_models()
        from router.telemetry import router_rows  # noqa: F401
