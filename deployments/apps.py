from django.apps import AppConfig


class DeploymentsConfig(AppConfig):
    """What should run, and making it run."""

    name = "deployments"
    default = True


class RowlessDeploymentsConfig(DeploymentsConfig):
    """The same without its rows, for `run_agent`: only the commands are found."""

    default = False

    def import_models(self) -> None:
        self.models = {}
