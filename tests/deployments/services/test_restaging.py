"""New addresses in time for clusters whose pods fetch their files themselves."""

import pytest

from deployments import jobs
from deployments.environments.models import BuildState
from deployments.images.models import ImageBuild
from deployments.services import changes
from deployments.services.models import Service
from deployments.services.restaging import Restaging

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("ready_environments")]

EVERY = 43_200 / 4


@pytest.fixture
def services(request_for, fake, monkeypatch, environment) -> list[Service]:
    """One service that is deployed, on a cluster that is a Kubernetes one from then on."""
    monkeypatch.setattr(changes, "enqueue_deployment", lambda pk: None)
    deployment = changes.deploy(None, request_for())
    assert jobs.run_deployment(deployment.pk) == "applied"
    ImageBuild.objects.create(
        hash=environment.hash, state=BuildState.READY, reference="registry/env@sha256:1"
    )
    fake.staged.clear()
    service = Service.objects.prefetch_related("versions__current").get()
    service.cluster.kind = "kubernetes"
    return [service]


def test_they_are_renewed_now_and_then_each_time_they_are_due(services, fake):
    restaging = Restaging()
    cluster = services[0].cluster
    assert restaging.turn(cluster, services, fake, 1e6) == 1
    assert restaging.turn(cluster, services, fake, 1e6 + EVERY - 1) == 0
    assert restaging.turn(cluster, services, fake, 1e6 + EVERY) == 1
    assert fake.staged == [("diabetes", 1)] * 2


def test_a_cluster_that_is_away_is_tried_again_a_minute_later(services, fake):
    restaging = Restaging()
    cluster = services[0].cluster
    fake.away = True
    assert restaging.turn(cluster, services, fake, 1e6) == 0
    fake.away = False
    assert restaging.turn(cluster, services, fake, 1e6 + 59) == 0
    assert restaging.turn(cluster, services, fake, 1e6 + 60) == 1


def test_when_the_caches_are_others_pods_are_told_at_once(services, fake):
    caches: list[object] = ["one", "one", None, "one", "two", "two"]
    restaging = Restaging(lambda driver: caches.pop(0))
    cluster = services[0].cluster
    renewed = [restaging.turn(cluster, services, fake, 1e6 + 30 * n) for n in range(6)]
    assert renewed == [1, 0, 0, 0, 1, 0]
    assert caches == []
    # and they are not asked for in each cycle
    assert restaging.turn(cluster, services, fake, 1e6 + 30 * 5 + 29) == 0


def test_other_clusters_and_services_that_go_are_left_alone(services, fake):
    services[0].deleting = True
    assert Restaging().turn(services[0].cluster, services, fake, 1e6) == 0
    services[0].deleting = False
    services[0].cluster.kind = "docker"
    assert Restaging().turn(services[0].cluster, services, fake, 1e6) == 0
    assert fake.staged == []
