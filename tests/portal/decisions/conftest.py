"""The service and the figures of the Metrics tab's tests."""

from tests.portal.metrics.conftest import ledger, measured, series, service

__all__ = ["ledger", "measured", "series", "service"]
