from django.apps import AppConfig


class RouterConfig(AppConfig):
    """How requests reach replicas. Has no rows; an app so that `run_router` is found."""

    name = "router"
