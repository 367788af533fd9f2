"""A service's two keys."""

import hashlib

import pytest

from deployments.audit.models import AuditEntry
from deployments.errors import InvalidInput, PermanentError
from deployments.services import keys
from deployments.services.models import Revision, Service
from tests.deployments.conftest import built
from tests.serving import serve


@pytest.fixture
def service(db, request_for, deployer, monkeypatch) -> Service:
    from deployments.services import changes

    monkeypatch.setattr(changes, "enqueue_deployment", lambda pk: True)
    deployment = changes.deploy(deployer, request_for())
    Revision.objects.update(package=deployment.revision.source)
    built(deployment.revision.environment)
    serve(Service.objects.get(), deployment.revision)
    return Service.objects.get()


def test_keys_are_long_and_never_alike():
    made = {keys.generate() for _ in range(50)}
    assert len(made) == 50
    assert {len(key) for key in made} == {32}


def test_a_stored_key_opens_with_the_same_secret_only(settings):
    stored = keys.encrypt("k" * 32)
    assert "k" * 32 not in stored
    assert keys.decrypt(stored) == "k" * 32
    settings.SECRET_KEY = "another"
    with pytest.raises(PermanentError) as caught:
        keys.decrypt(stored)
    assert caught.value.code == "KeysUnreadable"


def test_looking_at_keys_leaves_an_audit_row(service, viewer):
    primary, secondary = keys.reveal(viewer, service)
    assert primary != secondary
    entry = AuditEntry.objects.get(action="service.keys.reveal")
    assert (entry.actor, entry.object_name) == (viewer, "diabetes")
    assert primary not in f"{entry.before}{entry.after}"


@pytest.mark.parametrize("which", ["primary", "secondary"])
def test_regenerating_one_key_keeps_the_other_and_tells_the_cluster(
    service, deployer, fake, which, django_capture_on_commit_callbacks
):
    before = dict(zip(("primary", "secondary"), keys.read(service), strict=True))
    with django_capture_on_commit_callbacks(execute=True):
        fresh = keys.regenerate(deployer, service, which)
    after = dict(zip(("primary", "secondary"), keys.read(Service.objects.get()), strict=True))
    other = "secondary" if which == "primary" else "primary"
    assert after[which] == fresh != before[which]
    assert after[other] == before[other]
    spec = fake.specs["diabetes"]
    assert set(spec.auth.key_digests) == {
        hashlib.sha256(key.encode()).hexdigest() for key in after.values()
    }
    assert Revision.objects.count() == 1
    entry = AuditEntry.objects.get(action="service.keys.regenerate")
    assert entry.after == {"key": which}


def test_a_cluster_that_is_away_gets_the_new_key_later(
    service, deployer, fake, django_capture_on_commit_callbacks
):
    fake.away = True
    with django_capture_on_commit_callbacks(execute=True):
        keys.regenerate(deployer, service, "primary")
    assert Service.objects.get().generation == service.generation


def test_there_is_no_third_key(service, deployer):
    with pytest.raises(InvalidInput):
        keys.regenerate(deployer, service, "third")
