"""Settings of the builder processes the tests start: a database file in a folder of their own."""

from tests.settings import *  # noqa: F403

# the tables come from the models, whatever migrations there are
MIGRATION_MODULES = {"portal": None, "deployments": None, "telemetry": None}
