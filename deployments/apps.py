from django.apps import AppConfig


class DeploymentsConfig(AppConfig):
    """What should run, and making it run."""

    name = "deployments"
