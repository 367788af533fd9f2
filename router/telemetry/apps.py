from django.apps import AppConfig


class TelemetryConfig(AppConfig):
    """The only part of the router that has rows."""

    name = "router.telemetry"
    label = "telemetry"
