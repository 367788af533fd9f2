"""Which images may go from an Engine."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from deployments.clusters.models import Cluster, Sku
from deployments.environments.changes import create_environment, delete_environment
from deployments.environments.models import BuildState
from deployments.errors import Conflict
from deployments.images import jobs, retention
from deployments.images.models import ImageBuild
from deployments.images.retention import Kept, choose, needed_hashes
from deployments.services.models import Revision, Service
from tests.serving import serve

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def kept(name: str, days: float) -> Kept:
    return Kept(name, NOW - timedelta(days=days))


@pytest.mark.parametrize(
    ("rows", "needed", "keep", "expected"),
    [
        ([kept("a", 31)], (), 0, ["a"]),
        ([kept("a", 30)], (), 0, []),  # both sides of the boundary
        ([kept("a", 30.01)], (), 0, ["a"]),
        ([kept("a", 31)], ("a",), 0, []),
        ([kept("a", 31), kept("b", 40)], (), 1, ["b"]),  # the newest is kept
        ([kept("a", 31), kept("b", 40)], (), 2, []),
        ([kept("a", 31), kept("b", 40), kept("c", 1)], (), 1, ["b", "a"]),
        ([kept("a", 31), kept("b", 40)], ("b",), 1, []),
    ],
)
def test_what_is_old_and_needed_by_nobody_goes_the_oldest_first(
    rows: list[Kept], needed: tuple[str, ...], keep: int, expected: list[str]
) -> None:
    assert choose(rows, needed=needed, now=NOW, days=30, keep=keep) == expected


def test_the_last_revisions_of_each_service_can_be_rolled_back_to(db: None) -> None:
    sku = Sku.objects.create(name="This machine", family="CPU")
    cluster = Cluster.objects.create(name="local", sku=sku, router_url="http://127.0.0.1:1")
    service = Service.objects.create(name="diabetes", cluster=cluster)
    made = [create_environment(None, name=f"e{n}", pip_requirements=f"six=={n}") for n in range(7)]
    revisions = [
        Revision.objects.create(service=service, number=n + 1, environment=environment)
        for n, environment in enumerate(made)
    ]
    hashes = [environment.hash for environment in made]
    assert needed_hashes(hashes) == set(hashes[2:])  # SLIPWAY_IMAGE_HISTORY is 5
    serve(service, revisions[0])
    assert needed_hashes(hashes) == {hashes[0], *hashes[2:]}
    assert needed_hashes(hashes[:2]) == {hashes[0]}


def test_a_deleted_definition_takes_its_row_along_once_every_engine_is_clear(
    db: None, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    asked: list[str] = []
    clear = False
    monkeypatch.setattr(jobs, "enqueue_tidy", lambda: asked.append("tidy"))
    monkeypatch.setattr(retention, "all_engines", lambda: {"here": None})
    monkeypatch.setattr(retention, "_sweep", lambda spec, at: 0)
    monkeypatch.setattr(retention, "_remove_from", lambda spec, hash_: (False, clear))
    first = create_environment(None, name="one", pip_requirements="six")
    again = create_environment(None, name="two", pip_requirements="six")
    assert first.hash == again.hash
    ImageBuild.objects.create(hash=first.hash, state=BuildState.READY, reference="sha256:1")
    with django_capture_on_commit_callbacks(execute=True):
        delete_environment(None, first)
    retention.tidy()
    assert asked == []  # another version is the same image
    assert ImageBuild.objects.get().state == BuildState.READY
    with django_capture_on_commit_callbacks(execute=True):
        delete_environment(None, again)
    assert asked == ["tidy"]
    retention.tidy()  # an Engine is away
    assert ImageBuild.objects.get().state == BuildState.REMOVED
    clear = True
    retention.tidy()
    assert not ImageBuild.objects.exists()


def test_what_is_being_built_is_not_deleted(db: None) -> None:
    environment = create_environment(None, name="one", pip_requirements="six")
    ImageBuild.objects.create(
        hash=environment.hash,
        state=BuildState.BUILDING,
        claimed_by="elsewhere:1:1",
        claimed_until=timezone.now() + timedelta(minutes=1),
    )
    with pytest.raises(Conflict, match="being built"):
        delete_environment(None, environment)
