"""A router's own size as its page shows it, in words. Unknown stays unknown.

Reads stored figures only; what the router itself decides, and why, is in its ledger.
"""

from dataclasses import dataclass

from deployments.clusters.models import Cluster
from router import selfscale
from router.telemetry.router_queries import decisions
from router.telemetry.router_rows import RouterDecision, RouterFigures

_LATELY = 150.0  # seconds; what goes on is told each minute


@dataclass(frozen=True, slots=True)
class SizeView:
    """`figures` None: nothing was measured in the last seconds. `rule` says whether it scales itself."""

    figures: RouterFigures | None
    scales: bool
    rule: str

    @property
    def slow(self) -> bool:
        """Whether routing took longer than the router should ever take."""
        taken = None if self.figures is None else self.figures.routing_ms
        return taken is not None and taken > selfscale.UP_MS

    @property
    def share(self) -> int | None:
        """Percent of its threads that HAProxy used."""
        if self.figures is None or not self.figures.threads:
            return None
        return round(100 * self.figures.cpu / self.figures.threads)


def size_view(cluster: Cluster, figures: RouterFigures | None) -> SizeView:
    if cluster.purpose == Cluster.Purpose.DEV_TEST:
        rule = "A dev-test cluster's router stays as it is: one thread, and no scaling of its own."
        return SizeView(figures, False, rule)
    rule = (
        f"More threads when routing takes over {selfscale.UP_MS:g} ms and HAProxy is busy; one thread "
        f"less after {selfscale.CALM_SECONDS / 60:.0f} calm minutes."
    )
    return SizeView(figures, True, rule)


def lately(cluster: str, now: float) -> RouterDecision | None:
    """What keeps the router from its size, if something does at this time."""
    row = decisions(cluster).first()
    if row is None or row.direction != "prevented" or row.over:
        return None
    return row if now - (row.until or row.at) < _LATELY else None
