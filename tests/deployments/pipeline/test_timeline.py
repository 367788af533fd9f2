"""Steps as rows, and what they usually take."""

from datetime import timedelta

import pytest
from django.utils import timezone

from deployments.pipeline import timeline
from deployments.services import changes
from deployments.services.models import Deployment, DeploymentStep


@pytest.fixture
def deployment(request_for, monkeypatch) -> Deployment:
    monkeypatch.setattr(changes, "enqueue_deployment", lambda pk: True)
    return changes.deploy(None, request_for())


def test_a_step_taken_twice_is_one_row_with_its_first_start(deployment):
    start = timezone.now()
    timeline.begin(deployment, "zipping", start)
    timeline.begin(deployment, "zipping", start + timedelta(seconds=5))
    timeline.end(deployment, "zipping", "3 files", now=start + timedelta(seconds=6))
    timeline.end(deployment, "zipping", "late", now=start + timedelta(seconds=9))
    step = DeploymentStep.objects.get(name="zipping")
    assert (step.started_at, step.detail) == (start, "3 files")
    assert step.ended_at == start + timedelta(seconds=6)
    deployment.refresh_from_db()
    assert deployment.step == "zipping"


def test_the_open_step_is_the_one_that_failed(deployment):
    timeline.end(deployment, "queued")
    timeline.begin(deployment, "image")
    timeline.fail_open(deployment, "no such package")
    states = dict(DeploymentStep.objects.values_list("name", "state"))
    assert states == {"queued": "done", "image": "failed"}
    assert timeline.done(deployment) == {"queued"}


def test_usual_durations_are_medians_of_the_last_twenty_successes(
    deployment, django_assert_num_queries
):
    now = timezone.now()

    def took(name, seconds, ago, state="done"):
        other = Deployment.objects.create(
            service=deployment.service, revision=deployment.revision, state="failed"
        )
        ended = now - timedelta(hours=ago)
        DeploymentStep.objects.create(
            deployment=other,
            name=name,
            state=state,
            started_at=ended - timedelta(seconds=seconds),
            ended_at=ended,
        )

    for index in range(20):
        took("image", 10 + index % 3, ago=index)  # 10, 11, 12
    for index in range(5):
        took("image", 1000, ago=100 + index)  # too long ago to count
    took("image", 500, ago=0, state="failed")
    took("zipping", 1, ago=1)
    took("zipping", 4, ago=2)
    with django_assert_num_queries(1):
        usual = timeline.usual_durations()
    assert usual == {"image": 11, "zipping": 2.5}
    assert timeline.usual_seconds("applying") is None
