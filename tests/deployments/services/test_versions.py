"""Versions of a service: made by deploying, split, promoted, taken back, deleted."""

import pytest

from deployments.audit.models import AuditEntry
from deployments.errors import Conflict, InvalidInput, NotFound
from deployments.services import changes, versions
from deployments.services.changes import DeployRequest, check, deploy
from deployments.services.models import Deployment, Revision, Service, ServiceVersion
from deployments.services.specs import service_spec
from tests.deployments.conftest import built
from tests.serving import serve


@pytest.fixture(autouse=True)
def queued(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    monkeypatch.setattr(changes, "enqueue_deployment", found.append)
    return found


def ended(deployment: Deployment, state: str = "succeeded") -> None:
    """As if the job and the controller had done their part."""
    Deployment.objects.filter(pk=deployment.pk).update(state=state)
    Revision.objects.filter(pk=deployment.revision_id).update(package=deployment.revision.source)
    built(deployment.revision.environment)
    if state == "succeeded":
        serve(
            Service.objects.get(pk=deployment.service_id),
            deployment.revision,
            deployment.version_name,
        )


def to(version: str, **values) -> Deployment:
    return deploy(None, DeployRequest(name="diabetes", update=True, version=version, **values))


@pytest.fixture
def service(request_for) -> Service:
    """`diabetes` with three versions that run: default, green, red."""
    ended(deploy(None, request_for()))
    ended(to("green", config={"cpu_cores": 0.2}))
    ended(to("red"))
    return Service.objects.get()


def split() -> dict[str, int]:
    return versions.shares(versions.rows_of(Service.objects.get()))


def test_a_new_service_has_its_default_version(request_for):
    deployment = deploy(None, request_for())
    (row,) = ServiceVersion.objects.all()
    assert (row.name, row.is_default, row.current, row.proven) == ("default", True, None, False)
    assert deployment.version == "default"
    assert split() == {"default": 100}


def test_the_first_version_may_be_named(request_for):
    deploy(None, request_for(version="blue"))
    (row,) = ServiceVersion.objects.all()
    assert (row.name, row.is_default) == ("blue", True)


def test_a_new_name_makes_a_version_without_traffic_from_what_the_default_has(request_for):
    ended(deploy(None, request_for(config={"cpu_cores": 0.7})))
    deployment = to("green", config={"memory_gb": 2})
    assert (deployment.kind, deployment.version, deployment.previous) == ("create", "green", None)
    assert deployment.revision.config["cpu_cores"] == 0.7
    assert deployment.revision.config["memory_gb"] == 2
    ended(deployment)
    assert split() == {"default": 100, "green": 0}


def test_each_version_goes_on_from_its_own_revision(service):
    deployment = to("green", config={"memory_gb": 3})
    assert (deployment.kind, deployment.previous.number) == ("update", 2)
    assert deployment.revision.config["cpu_cores"] == 0.2
    assert deployment.revision.number == 4
    ended(deployment)
    service.refresh_from_db()
    assert service.current.number == 1  # the default's


def test_a_service_serves_before_it_gets_a_second_version(request_for):
    ended(deploy(None, request_for()), "failed")
    (problem,) = check(DeployRequest(name="diabetes", update=True, version="green"))
    assert problem.field == "version"
    assert "does not serve yet" in problem.message


def test_six_versions_and_not_one_more(service):
    for name in ("a", "b", "c"):
        ended(to(name))
    (problem,) = check(DeployRequest(name="diabetes", update=True, version="d"))
    assert problem.field == "version"
    assert "6 versions" in problem.message
    to("c")  # one that is there may be deployed to


@pytest.mark.parametrize("name", ["Green", "-a", "a-", "a_b", "a b", "x" * 33])
def test_the_rule_for_a_versions_name(service, name):
    request = DeployRequest(name="diabetes", update=True, version=name)
    assert [problem.field for problem in check(request)] == ["version"]


def test_one_operation_on_a_service_at_a_time_whatever_its_version(service):
    to("green")
    with pytest.raises(Conflict):
        to("red")


def test_what_the_cluster_should_want(service):
    versions.set_traffic(None, service, {"green": 20, "red": 10})
    spec = service_spec(Service.objects.get())
    assert [
        (v.name, v.revision.number, v.traffic_percent, v.is_default, v.revision.resources.cpu)
        for v in spec.versions
    ] == [
        ("default", 1, 70, True, 0.1),
        ("green", 2, 20, False, 0.2),
        ("red", 3, 10, False, 0.1),
    ]


def test_a_split_costs_the_same_queries_for_two_versions_and_for_three(
    service, django_assert_max_num_queries
):
    with django_assert_max_num_queries(12):
        service_spec(Service.objects.get())


def test_shares_change_at_once_with_an_audit_row_and_no_deployment(
    service, deployer, fake, django_capture_on_commit_callbacks
):
    deployments = Deployment.objects.count()
    with django_capture_on_commit_callbacks(execute=True):
        versions.set_traffic(deployer, service, {"green": 25})
    assert {v.name: v.traffic_percent for v in fake.specs["diabetes"].versions} == {
        "default": 75, "green": 25, "red": 0,
    }  # fmt: skip
    entry = AuditEntry.objects.get(action="service.traffic")
    assert entry.actor == deployer
    assert entry.before == {"traffic": {"default": 100, "green": 0, "red": 0}}
    assert entry.after["traffic"]["green"] == 25
    assert Deployment.objects.count() == deployments
    with django_capture_on_commit_callbacks(execute=True):
        versions.set_traffic(deployer, service, {"green": 25})
    assert AuditEntry.objects.filter(action="service.traffic").count() == 1


def test_shares_that_cannot_be_change_nothing(service):
    before = Service.objects.get().generation
    with pytest.raises(InvalidInput) as caught:
        versions.set_traffic(None, service, {"green": 60, "red": 50})
    assert caught.value.field == "green"
    assert split() == {"default": 100, "green": 0, "red": 0}
    assert Service.objects.get().generation == before


def test_shares_may_change_while_a_deployment_runs(service):
    to("red")
    versions.set_traffic(None, service, {"green": 40})
    assert split()["green"] == 40


def test_a_version_that_never_answered_gets_no_traffic(service):
    to("young")
    with pytest.raises(InvalidInput) as caught:
        versions.set_traffic(None, service, {"young": 1})
    assert caught.value.field == "young"
    with pytest.raises(InvalidInput):
        versions.promote(None, service, "young")


def test_a_share_given_with_a_deployment_comes_when_it_succeeds(service):
    deployment = to("young", traffic_percent=30)
    assert split() == {"default": 100, "green": 0, "red": 0, "young": 0}
    versions.prove(deployment)
    assert split()["young"] == 30
    assert split()["default"] == 70


def test_a_share_that_does_not_fit_is_refused_before_anything_is_made(service):
    versions.set_traffic(None, service, {"green": 80})
    request = DeployRequest(name="diabetes", update=True, version="young", traffic_percent=21)
    assert [problem.field for problem in check(request)] == ["traffic_percentile"]
    with pytest.raises(InvalidInput):
        deploy(None, request)
    assert not ServiceVersion.objects.filter(name="young").exists()


def test_promoting_gives_all_requests_and_undoing_brings_everything_back(
    service, deployer, fake, django_capture_on_commit_callbacks
):
    versions.set_traffic(None, service, {"green": 20, "red": 10})
    with django_capture_on_commit_callbacks(execute=True):
        versions.promote(deployer, service, "green")
    assert split() == {"green": 100, "default": 0, "red": 0}
    service.refresh_from_db()
    assert service.current.number == 2
    first = fake.specs["diabetes"].versions[0]
    assert (first.name, first.is_default, first.traffic_percent) == ("green", True, 100)
    assert versions.can_undo(versions.rows_of(service)) == "default"
    with django_capture_on_commit_callbacks(execute=True):
        versions.undo_promotion(deployer, service)
    assert split() == {"default": 70, "green": 20, "red": 10}
    service.refresh_from_db()
    assert service.current.number == 1
    assert fake.specs["diabetes"].versions[0].name == "default"
    assert versions.can_undo(versions.rows_of(service)) == ""
    actions = AuditEntry.objects.filter(actor=deployer).values_list("action", flat=True)
    assert set(actions) == {"service.promote", "service.promote.undo"}


def test_undoing_forgets_shares_of_versions_that_came_later(service):
    versions.promote(None, service, "green")
    ended(to("late"))
    versions.set_traffic(None, service, {"late": 50})
    versions.undo_promotion(None, service)
    assert split() == {"default": 100, "green": 0, "red": 0, "late": 0}


def test_there_is_nothing_to_undo_twice_or_without_a_promotion(service):
    with pytest.raises(InvalidInput):
        versions.undo_promotion(None, service)
    versions.promote(None, service, "green")
    versions.undo_promotion(None, service)
    with pytest.raises(InvalidInput):
        versions.undo_promotion(None, service)


def test_promoting_what_has_everything_already_is_refused(service):
    with pytest.raises(InvalidInput):
        versions.promote(None, service, "default")
    versions.set_traffic(None, service, {"green": 1})
    versions.promote(None, service, "default")  # it had 99
    assert split()["default"] == 100
    with pytest.raises(NotFound):
        versions.promote(None, service, "pink")


def test_the_control_is_one_and_the_default_unless_said(service):
    assert versions.control_of(versions.rows_of(service)) == "default"
    versions.set_control(None, service, "red")
    versions.set_control(None, service, "green")
    assert versions.control_of(versions.rows_of(service)) == "green"
    assert ServiceVersion.objects.filter(is_control=True).count() == 1
    versions.delete_version(None, service, "green")
    assert versions.control_of(versions.rows_of(service)) == "default"


def test_a_deleted_version_leaves_the_cluster_and_its_share_to_the_default(
    service, deployer, fake, django_capture_on_commit_callbacks
):
    versions.set_traffic(None, service, {"green": 20})
    with django_capture_on_commit_callbacks(execute=True):
        versions.delete_version(deployer, service, "green")
    assert split() == {"default": 100, "red": 0}
    assert [v.name for v in fake.specs["diabetes"].versions] == ["default", "red"]
    assert AuditEntry.objects.filter(action="service.version.delete", actor=deployer).exists()
    assert Revision.objects.filter(number=2).exists()  # the history stays


def test_the_default_version_is_not_deleted(service):
    with pytest.raises(InvalidInput, match="promote another"):
        versions.delete_version(None, service, "default")


def test_deleting_the_version_to_go_back_to_leaves_nothing_to_undo(service):
    versions.promote(None, service, "green")
    versions.delete_version(None, service, "default")
    assert versions.can_undo(versions.rows_of(service)) == ""
    with pytest.raises(InvalidInput):
        versions.undo_promotion(None, service)


def test_deleting_cancels_the_versions_own_deployment_and_waits_for_anothers(service):
    deployment = to("green")
    with pytest.raises(Conflict):
        versions.delete_version(None, service, "red")
    versions.delete_version(None, service, "green")
    deployment.refresh_from_db()
    assert deployment.state == "cancelled"
    versions.delete_version(None, service, "red")


def test_nothing_changes_on_a_service_that_is_being_deleted(service):
    Service.objects.update(deleting=True)
    for act in (
        lambda: versions.set_traffic(None, service, {"green": 1}),
        lambda: versions.promote(None, service, "green"),
        lambda: versions.set_control(None, service, "green"),
        lambda: versions.delete_version(None, service, "green"),
    ):
        with pytest.raises(Conflict):
            act()


def test_rolling_back_is_within_a_version(service):
    ended(to("green"))
    first = service.revisions.get(number=2)
    deployment = changes.roll_back(None, service, first, "green")
    assert (deployment.version, deployment.previous.number) == ("green", 4)
    Deployment.objects.update(state="succeeded")
    with pytest.raises(InvalidInput):
        changes.roll_back(None, service, service.revisions.get(number=3), "red")
    with pytest.raises(NotFound):
        changes.roll_back(None, service, first, "pink")
