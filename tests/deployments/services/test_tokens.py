"""A service's tokens: issued once, known by their ids, revoked, forgotten."""

from datetime import timedelta

import jwt
import pytest
from django.utils import timezone

from deployments.audit.models import AuditEntry
from deployments.clusters import signing
from deployments.clusters.router_settings import CLOCKS_DIFFER
from deployments.errors import Conflict, InvalidInput, NotFound
from deployments.services import changes, keys, tokens
from deployments.services.models import IssuedToken, Service
from deployments.services.removal import finish_removal


@pytest.fixture
def service(cluster) -> Service:
    return Service.objects.create(
        name="diabetes",
        cluster=cluster,
        token_auth_enabled=True,
        primary_key=keys.encrypt(keys.generate()),
        secondary_key=keys.encrypt(keys.generate()),
    )


def test_a_token_says_who_for_what_and_until_when(service, deployer):
    now = timezone.now()
    made = tokens.issue(deployer, service, lifetime=timedelta(hours=10), now=now)
    [key] = service.cluster.signing_keys.all()
    header = jwt.get_unverified_header(made.token)
    assert (header["alg"], header["kid"]) == ("ES256", key.kid)
    claims = jwt.decode(made.token, key.public_pem, algorithms=["ES256"], audience="diabetes")
    second = int(now.timestamp())
    assert claims == {
        "iss": "slipway",
        "aud": "diabetes",
        "sub": "dan",
        "jti": made.jti,
        "iat": second,
        "exp": second + 36000,
    }
    assert made.refresh_after == made.issued_at + timedelta(hours=8)
    assert made.expires_at == made.issued_at + timedelta(hours=10)


def test_the_token_itself_is_kept_nowhere(service, deployer):
    made = tokens.issue(deployer, service)
    row = IssuedToken.objects.get()
    assert made.expires_at - made.issued_at == tokens.DEFAULT_LIFETIME
    assert made.token not in repr(made)
    kept = [str(row.__dict__), *(f"{entry.after}" for entry in AuditEntry.objects.all())]
    assert not any(part in text for text in kept for part in made.token.split("."))
    entry = AuditEntry.objects.get(action="service.tokens.issue")
    assert (entry.actor, entry.after["subject"]) == (deployer, "dan")


@pytest.mark.parametrize(
    ("lifetime", "good"),
    [
        (timedelta(seconds=59), False),
        (timedelta(seconds=60), True),
        (timedelta(days=30), True),
        (timedelta(days=30, seconds=1), False),
    ],
)
def test_a_lifetime_has_limits(service, deployer, lifetime, good):
    if good:
        made = tokens.issue(deployer, service, lifetime=lifetime)
        assert made.expires_at - made.issued_at == lifetime
        return
    with pytest.raises(InvalidInput) as caught:
        tokens.issue(deployer, service, lifetime=lifetime)
    assert caught.value.field == "lifetime"


@pytest.mark.parametrize("subject", ["a b", "a:b", "-x", "a\nb", "ä", "x" * 101])
def test_a_subject_could_not_break_a_line_of_a_map_or_a_log(service, deployer, subject):
    with pytest.raises(InvalidInput) as caught:
        tokens.issue(deployer, service, subject=subject)
    assert caught.value.field == "subject"


def test_somebody_whose_name_a_map_cannot_hold_gets_a_number(service, deployer):
    deployer.username = "zoë"
    assert tokens.issue(deployer, service).subject == f"user-{deployer.pk}"
    assert tokens.issue(deployer, service, subject=" batch-job ").subject == "batch-job"
    assert tokens.issue(None, service).subject == "slipway"


def test_a_service_that_takes_no_tokens_gives_none(service, deployer):
    Service.objects.update(token_auth_enabled=False)
    with pytest.raises(Conflict) as caught:
        tokens.issue(deployer, service)  # the row that was read is older than the switch
    assert caught.value.code == "TokenAuthDisabled"
    Service.objects.update(token_auth_enabled=True, deleting=True)
    with pytest.raises(Conflict, match="being deleted"):
        tokens.issue(deployer, service)
    assert not IssuedToken.objects.exists()


def test_there_is_a_most_of_valid_tokens(service, deployer, monkeypatch):
    monkeypatch.setattr(tokens, "MOST_LIVE", 2)
    first = tokens.issue(deployer, service)
    tokens.issue(deployer, service)
    with pytest.raises(Conflict) as caught:
        tokens.issue(deployer, service)
    assert caught.value.code == "TooManyTokens"
    tokens.revoke(deployer, service, first.jti)
    tokens.issue(deployer, service)


def test_revoking_one_tells_the_router_its_id_and_leaves_the_others(
    service, deployer, fake, django_capture_on_commit_callbacks
):
    gone, stays = tokens.issue(deployer, service), tokens.issue(deployer, service)
    with django_capture_on_commit_callbacks(execute=True):
        row = tokens.revoke(deployer, service, gone.jti)
    assert fake.router.revoked_tokens == (row.jti,)
    assert [token.jti for token in tokens.live(service)] == [stays.jti]
    generation = fake.router.generation
    with django_capture_on_commit_callbacks(execute=True):
        tokens.revoke(deployer, service, gone.jti)
    assert fake.router.generation == generation
    assert AuditEntry.objects.filter(action="service.tokens.revoke").count() == 1


def test_a_token_of_another_service_is_not_found_here(service, deployer):
    other = Service.objects.create(name="other", cluster=service.cluster, token_auth_enabled=True)
    made = tokens.issue(deployer, other)
    with pytest.raises(NotFound):
        tokens.revoke(deployer, service, made.jti)
    assert tokens.live(other).count() == 1


def test_revoking_all_leaves_other_services_alone(
    service, deployer, fake, django_capture_on_commit_callbacks
):
    other = Service.objects.create(name="other", cluster=service.cluster, token_auth_enabled=True)
    tokens.issue(deployer, other)
    for _ in range(3):
        tokens.issue(deployer, service)
    with django_capture_on_commit_callbacks(execute=True):
        assert tokens.revoke_all(deployer, service) == 3
    assert len(fake.router.revoked_tokens) == 3
    assert tokens.live(other).count() == 1
    assert tokens.revoke_all(deployer, service) == 0
    assert AuditEntry.objects.filter(action="service.tokens.revoke_all").count() == 1


def test_the_next_service_of_a_name_does_not_take_the_tokens_of_the_last(
    service, deployer, fake, django_capture_on_commit_callbacks
):
    tokens.issue(deployer, service)
    [row] = tokens.live(service)
    Service.objects.update(deleting=True)
    with django_capture_on_commit_callbacks(execute=True):
        finish_removal(service)
    assert not Service.objects.exists()
    assert fake.router.revoked_tokens == (row.jti,)


def test_expired_tokens_are_forgotten_once_no_clock_could_think_otherwise(
    service, deployer, fake, django_capture_on_commit_callbacks
):
    revoked = tokens.issue(deployer, service)
    tokens.issue(deployer, service)
    tokens.issue(deployer, service, lifetime=timedelta(days=2))
    tokens.revoke(deployer, service, revoked.jti)
    end = revoked.expires_at + CLOCKS_DIFFER
    assert tokens.prune(end) == 0
    with django_capture_on_commit_callbacks(execute=True):
        assert tokens.prune(end + timedelta(seconds=1)) == 2
    assert IssuedToken.objects.count() == 1
    assert fake.router.revoked_tokens == ()


def test_an_expired_token_is_not_shown_as_valid(service, deployer):
    made = tokens.issue(deployer, service, lifetime=timedelta(minutes=1))
    second = timedelta(seconds=1)
    assert tokens.live(service, made.expires_at - second).count() == 1
    assert tokens.live(service, made.expires_at).count() == 0


def test_switching_tokens_on_makes_the_first_signing_key_at_once(service, deployer):
    Service.objects.update(token_auth_enabled=False)
    changes.update_access(deployer, service, auth_enabled=False)
    assert not service.cluster.signing_keys.exists()
    changes.update_access(deployer, service, token_auth_enabled=True)
    assert service.cluster.signing_keys.count() == 1


def test_after_a_rotation_the_key_that_every_router_knows_signs_first(service, administrator):
    first = signing.ensure(service.cluster)
    second = signing.rotate(administrator, service.cluster)
    kid = [
        jwt.get_unverified_header(tokens.issue(administrator, service, now=at).token)["kid"]
        for at in (timezone.now(), timezone.now() + signing.SETTLE * 2)
    ]
    assert kid == [first.kid, second.kid]
