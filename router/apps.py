from django.apps import AppConfig


class RouterConfig(AppConfig):
    """How requests reach replicas. Has no rows; an app so that `run_router` is found."""

    name = "router"

    def ready(self) -> None:
        from router import checks  # noqa: F401  registers them
