"""The job queue, which may be away, and two people at once."""

import pytest
from redis.exceptions import ConnectionError as RedisGone

from deployments import queue
from deployments.errors import Conflict
from deployments.services import changes
from deployments.services.changes import DeployRequest
from deployments.services.models import Deployment, Revision, Service
from tests.serving import serve


class Queue:
    """As much of rq's as is used here."""

    def __init__(self, gone: bool = False) -> None:
        self.gone = gone
        self.jobs: list[str] = []

    def enqueue(self, function, *args, job_id, **options):
        if self.gone:
            raise RedisGone("no such socket")
        self.jobs.append(job_id)

    def get_job_ids(self):
        return [*self.jobs, "something-else", "deployment-x-1"]


def test_a_waiting_job_is_found_by_its_deployment(monkeypatch):
    fake = Queue()
    monkeypatch.setattr(queue.django_rq, "get_queue", lambda name: fake)
    assert queue.enqueue_deployment(7) is True
    assert queue.enqueue_deployment(7) is True
    assert len(set(fake.jobs)) == 2
    assert queue.queued_deployments() == {7}


@pytest.mark.django_db
def test_a_deployment_is_kept_while_the_queue_is_away(
    monkeypatch, request_for, django_capture_on_commit_callbacks
):
    monkeypatch.setattr(queue.django_rq, "get_queue", lambda name: Queue(gone=True))
    with django_capture_on_commit_callbacks(execute=True):
        deployment = changes.deploy(None, request_for())
    assert Deployment.objects.get().pk == deployment.pk
    assert deployment.state == "queued"


@pytest.mark.django_db
@pytest.mark.parametrize("update", [False, True])
def test_of_two_people_who_deploy_at_once_one_is_told_to_wait(monkeypatch, request_for, update):
    monkeypatch.setattr(changes, "enqueue_deployment", lambda pk: True)
    request = request_for()
    if update:
        changes.deploy(None, request)
        Deployment.objects.update(state="succeeded")
        serve(Service.objects.get(), Revision.objects.get())
        request = DeployRequest(name="diabetes", update=True)
    check = changes.check
    others: list[Deployment] = []

    def overtaken(given):
        """Another person's whole deployment falls between this one's check and its write."""
        found = check(given)
        monkeypatch.setattr(changes, "check", check)
        others.append(changes.deploy(None, given))
        return found

    monkeypatch.setattr(changes, "check", overtaken)
    with pytest.raises(Conflict):
        changes.deploy(None, request)
    assert list(Deployment.objects.filter(state="queued")) == others
    assert len(others) == 1
