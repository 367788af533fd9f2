"""Creating versions, building on request, and removing what nobody uses."""

from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import settings

from deployments.audit.models import AuditEntry
from deployments.environments import jobs
from deployments.environments.changes import (
    create_environment,
    delete_environment,
    remove_build,
    request_build,
)
from deployments.environments.models import BuildState, Environment, EnvironmentBuild
from deployments.environments.usage import services_using
from deployments.errors import Conflict, InvalidInput
from deployments.services.models import DeploymentState
from portal.models import User


def built(environment: Environment) -> Path:
    """As if it had been built: a row, and a folder with its marker."""
    venv = settings.HOME.environments / environment.hash / "attempt"
    venv.mkdir(parents=True, exist_ok=True)
    (venv / ".complete").touch()
    EnvironmentBuild.objects.update_or_create(
        hash=environment.hash,
        defaults={"state": BuildState.READY, "location": str(venv), "size": 10},
    )
    return venv


def test_versions_count_up_and_the_same_again_is_the_same_row(deployer: User) -> None:
    one = create_environment(deployer, name="e", pip_requirements="six==1.16.0")
    two = create_environment(deployer, name="e", pip_requirements="six==1.17.0")
    again = create_environment(deployer, name="e", pip_requirements="six==1.17.0\r\n")
    assert (one.version, two.version, again.pk) == (1, 2, two.pk)
    assert one.hash != two.hash
    assert create_environment(deployer, name="other", pip_requirements="six==1.17.0").version == 1


def test_other_variables_are_another_version_with_the_same_hash(deployer: User) -> None:
    one = create_environment(deployer, name="e", pip_requirements="six")
    two = create_environment(deployer, name="e", pip_requirements="six", variables={"A": "1"})
    assert (two.version, two.hash) == (2, one.hash)


def test_creating_writes_who_and_the_names_of_variables_but_not_their_values(
    deployer: User,
) -> None:
    create_environment(deployer, name="e", variables={"TOKEN": "hush"})
    entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.object_name) == (deployer, "environment.create", "e:1")
    assert entry.after == {"hash": Environment.objects.get().hash, "variables": ["TOKEN"]}


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": "-x"}, "name"),
        ({"name": "x", "conda_yaml": "["}, "conda_yaml"),
        ({"name": "x", "pip_requirements": "a=1"}, "pip_requirements"),
        ({"name": "x", "docker_steps": "FROM y"}, "docker_steps"),
        ({"name": "x", "base_image": "A B"}, "base_image"),
        ({"name": "x", "variables": {"1": "2"}}, "variables"),
    ],
)
def test_what_is_wrong_is_refused_with_its_field(
    db: None, values: dict[str, str], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        create_environment(None, **values)
    assert caught.value.field == field
    assert not Environment.objects.exists()


def test_services_that_run_on_a_hash_or_are_about_to_use_it(
    environment: Environment, use: Callable
) -> None:
    use(environment, "b-now")
    use(environment, "a-soon", current=False, deployment=DeploymentState.QUEUED)
    use(environment, "c-failed", current=False, deployment=DeploymentState.FAILED)
    other = create_environment(None, name="other")
    use(environment, "d-before")
    use(other, "d-before")
    assert services_using([environment.hash, other.hash]) == {
        environment.hash: ["a-soon", "b-now"],
        other.hash: ["d-before"],
    }


def test_an_unused_build_is_removed_from_the_disk(environment: Environment, deployer: User) -> None:
    venv = built(environment)
    remove_build(deployer, environment)
    assert not venv.parent.exists()
    assert EnvironmentBuild.objects.get().state == BuildState.REMOVED
    assert AuditEntry.objects.filter(action="environment.remove_build", actor=deployer).exists()


@pytest.mark.parametrize("remove", [remove_build, delete_environment])
def test_what_is_used_stays_and_it_is_said_where(
    environment: Environment, use: Callable, remove: Callable
) -> None:
    venv = built(environment)
    use(environment, "diabetes")
    with pytest.raises(Conflict, match="diabetes"):
        remove(None, environment)
    assert (venv / ".complete").exists()
    assert EnvironmentBuild.objects.get().state == BuildState.READY


def test_a_build_that_an_old_revision_had_can_go_but_its_definition_cannot(
    environment: Environment, use: Callable
) -> None:
    built(environment)
    use(environment)
    use(create_environment(None, name="newer"))
    with pytest.raises(Conflict, match="diabetes revision 1, which can be rolled back to"):
        delete_environment(None, environment)
    remove_build(None, environment)
    assert EnvironmentBuild.objects.get().state == BuildState.REMOVED


def test_deleting_a_version_keeps_the_build_another_version_has(environment: Environment) -> None:
    twin = create_environment(None, name="twin", pip_requirements="six==1.17.0")
    venv = built(environment)
    delete_environment(None, environment)
    assert venv.exists()
    delete_environment(None, twin)
    assert not venv.exists()
    assert not EnvironmentBuild.objects.exists()
    assert not Environment.objects.exists()


def test_a_build_is_asked_for_once_and_again_after_a_failure(
    environment: Environment,
    deployer: User,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Callable,
) -> None:
    queued: list[int] = []
    monkeypatch.setattr(jobs, "enqueue_build", queued.append)
    with django_capture_on_commit_callbacks(execute=True):
        request_build(deployer, environment)
    EnvironmentBuild.objects.update(state=BuildState.FAILED, error="no such package")
    with django_capture_on_commit_callbacks(execute=True):
        request_build(deployer, environment)
    assert queued == [environment.pk, environment.pk]
    row = EnvironmentBuild.objects.get()
    assert (row.state, row.error) == (BuildState.QUEUED, "")
    built(environment)
    with pytest.raises(Conflict, match="built already"):
        request_build(deployer, environment)


def test_a_queue_out_of_reach_fails_the_build_and_says_so(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    EnvironmentBuild.objects.create(hash=environment.hash)

    def unreachable(name: str) -> None:
        raise ConnectionError(name)

    monkeypatch.setattr("django_rq.get_queue", unreachable)
    jobs.enqueue_build(environment.pk)
    row = EnvironmentBuild.objects.get()
    assert row.state == BuildState.FAILED
    assert "Check that Redis runs" in row.error
