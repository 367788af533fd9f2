"""Rows of a service that serves, for tests that have no use for a whole deployment."""

from deployments.services import versions
from deployments.services.models import Revision, Service, ServiceVersion


def serve(service: Service, revision: Revision, version: str = "") -> ServiceVersion:
    """Make a revision what serves in a version of the service ("" the default), as a deployment does."""
    row = versions.ensure(None, service, version)
    row.proven = True
    row.save(update_fields=["proven"])
    versions.set_current(service, row, revision)
    return row
