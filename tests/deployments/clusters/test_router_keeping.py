"""What is said of a router that does not stand as it was made, and when it is put right; no cluster."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.utils import timezone

from deployments.audit.models import AuditEntry
from deployments.clusters.catalogue import ensure_skus
from deployments.clusters.models import Cluster, Sku
from deployments.clusters.router_keeping import CHECK, RouterKeeper
from deployments.drivers import kubernetes_router_keeping as keeping
from deployments.drivers.kubernetes import KubernetesDriver
from deployments.drivers.kubernetes_router_drift import MOST, Drift
from deployments.errors import PermanentError, Unavailable
from deployments.kube.api import Kube
from deployments.types import KubeSettings, RouterSpec

GONE = Drift("Service", "slipway-router", "/service")


class Far:
    """A router: what has drifted, and how often it was put right."""

    def __init__(self) -> None:
        self.drifted: tuple[Drift, ...] | None = ()
        self.error: Exception | None = None
        self.mended = 0
        self.stays = False  # somebody undoes it each time
        self.spec = RouterSpec()
        self.now = 0.0

    def look(self, *_: Any) -> tuple[Drift, ...] | None:
        if self.error is not None:
            raise self.error
        return self.drifted

    def mend(self, *_: Any) -> None:
        self.mended += 1
        if not self.stays:
            self.drifted = ()


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Far:
    made = Far()
    monkeypatch.setattr(keeping, "look", made.look)
    monkeypatch.setattr(keeping, "mend", made.mend)
    return made


@pytest.fixture
def keeper(far: Far, monkeypatch: pytest.MonkeyPatch) -> RouterKeeper:
    driver = KubernetesDriver(cast(Kube, SimpleNamespace()), KubeSettings("models"))
    monkeypatch.setattr(driver, "router_spec", lambda: far.spec)
    applied = "deployments.clusters.router_settings.apply_router"
    monkeypatch.setattr(applied, lambda pk: setattr(far, "spec", RouterSpec()))
    return RouterKeeper(driver_of=lambda cluster: driver, clock=lambda: far.now)


@pytest.fixture
def cluster(db: None) -> Cluster:
    ensure_skus()
    sku = Sku.objects.get(name="this machine")
    return Cluster.objects.create(name="prod", kind="kubernetes", sku=sku)


def rounds(keeper: RouterKeeper, far: Far, count: int) -> list[dict[str, str]]:
    """So many, five seconds apart; what the cluster's checks say then."""
    for _ in range(count):
        keeper.round()
        far.now += 5.0
    return list(Cluster.objects.get().checks)


def test_a_router_that_stands_is_not_spoken_of(
    cluster: Cluster, keeper: RouterKeeper, far: Far
) -> None:
    assert rounds(keeper, far, 3) == []


def test_what_drifted_is_put_right_once_and_said(
    cluster: Cluster, keeper: RouterKeeper, far: Far
) -> None:
    others = [{"name": "router starts", "status": "pass", "evidence": "", "remedy": ""}]
    Cluster.objects.update(checks=others)
    far.drifted = (GONE,)
    assert rounds(keeper, far, 1) == others
    said = rounds(keeper, far, 5)
    assert far.mended == 1
    assert said[:-1] == others
    assert (said[-1]["name"], said[-1]["status"]) == (CHECK, "pass")
    assert "Service slipway-router is gone; it was put right" in said[-1]["evidence"]
    entry = AuditEntry.objects.get(action="cluster.router.mended")
    assert entry.before == {"Service slipway-router": "Service slipway-router is gone"}


def test_who_is_not_fought_is_told_and_so_is_that_it_stands_again(
    cluster: Cluster, keeper: RouterKeeper, far: Far
) -> None:
    far.drifted, far.stays = (GONE,), True
    (said,) = rounds(keeper, far, 100)
    assert far.mended == MOST
    assert (said["status"], said["name"]) == ("fail", CHECK)
    assert "left as it is" in said["evidence"]
    # a look that knows nothing of it took it away: it is said again
    Cluster.objects.update(checks=[])
    (said,) = rounds(keeper, far, 1)
    assert said["status"] == "fail"
    far.drifted = ()
    (said,) = rounds(keeper, far, 1)
    assert said["status"] == "pass"


def test_what_cannot_be_put_right_is_said_with_why_and_not_tried_for_ever(
    cluster: Cluster, keeper: RouterKeeper, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[float] = []

    def refused(*_: Any) -> None:
        tries.append(far.now)
        raise PermanentError("The namespace is being deleted.")

    monkeypatch.setattr(keeping, "mend", refused)
    far.drifted = (GONE,)
    (said,) = rounds(keeper, far, 2)
    assert (said["status"], said["evidence"]) == ("fail", "The namespace is being deleted.")
    rounds(keeper, far, 100)
    assert len(tries) == MOST


def test_an_api_server_that_goes_away_meanwhile_counts_for_nothing(
    cluster: Cluster, keeper: RouterKeeper, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise Unavailable("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(keeping, "mend", away)
        far.drifted = (GONE,)
        assert rounds(keeper, far, 10 * MOST) == []
    rounds(keeper, far, 4)
    assert far.mended == 1


def test_settings_that_somebody_wrote_under_our_number_are_ours_again(
    cluster: Cluster, keeper: RouterKeeper, far: Far
) -> None:
    far.spec = RouterSpec(cores=7)
    (said,) = rounds(keeper, far, 3)
    assert "Secret slipway-router is changed (data)" in said["evidence"]
    assert far.spec == RouterSpec()
    far.spec = RouterSpec(generation=4, cores=7)  # another number is the controller's to see
    rounds(keeper, far, 3)
    assert far.spec.generation == 4


def test_a_cluster_that_is_away_checked_or_detached_is_left_alone(
    cluster: Cluster, keeper: RouterKeeper, far: Far
) -> None:
    far.drifted, far.error = (GONE,), Unavailable("no answer")
    assert rounds(keeper, far, 5) == []
    far.error = None
    Cluster.objects.update(checking_at=timezone.now())
    rounds(keeper, far, 5)
    Cluster.objects.update(checking_at=None, state=Cluster.State.DETACHING)
    rounds(keeper, far, 5)
    far.drifted = None  # something of it goes
    Cluster.objects.update(state=Cluster.State.ATTACHED)
    assert rounds(keeper, far, 5) == []
    assert far.mended == 0
