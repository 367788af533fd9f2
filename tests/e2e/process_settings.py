"""Settings of the processes the end-to-end tests start: the product's own, tables made from models."""

from portal.settings import *  # noqa: F403

MIGRATION_MODULES = {"portal": None, "deployments": None, "telemetry": None}
