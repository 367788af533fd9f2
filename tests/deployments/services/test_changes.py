"""Deploy, roll back, change access, delete: what is written down, and what is refused."""

import pytest

from deployments.audit.models import AuditEntry
from deployments.clusters.models import Cluster
from deployments.codec import to_json
from deployments.errors import Conflict, InvalidInput, NotFound
from deployments.services import changes, keys, versions
from deployments.services.changes import DeployRequest, check, deploy
from deployments.services.models import Deployment, DeploymentState, Revision, Service
from deployments.services.specs import model_versions_of
from deployments.types import Capacity, NodeCapacity
from tests.deployments.conftest import built


def fields(request: DeployRequest) -> list[str]:
    return [problem.field for problem in check(request)]


def finish(deployment: Deployment, state: str = DeploymentState.SUCCEEDED) -> None:
    """As if the job and the controller had done their part."""
    Deployment.objects.filter(pk=deployment.pk).update(state=state)
    if state == DeploymentState.SUCCEEDED:
        service = Service.objects.get(pk=deployment.service_id)
        version = versions.find(service, deployment.version_name)
        versions.set_current(service, version, deployment.revision)
        versions.prove(deployment)


@pytest.fixture(autouse=True)
def queued(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ids put on the queue."""
    found: list[int] = []
    monkeypatch.setattr(changes, "enqueue_deployment", found.append)
    return found


def test_a_first_deployment_makes_service_revision_and_deployment(
    deployer, request_for, queued, django_capture_on_commit_callbacks
):
    with django_capture_on_commit_callbacks(execute=True):
        deployment = deploy(
            deployer,
            request_for(
                config={"cpu_cores": 0.5}, tags={"team": "a"}, note="first", cors_origins=("*",)
            ),
        )
    service = Service.objects.get(name="diabetes")
    revision = service.revisions.get()
    assert (revision.number, revision.note, revision.created_by) == (1, "first", deployer)
    assert revision.config["cpu_cores"] == 0.5
    assert [str(v) for v in model_versions_of(revision)] == ["diabetes:1"]
    assert (deployment.kind, deployment.state) == ("create", "queued")
    assert (service.state, service.current, service.cors_origins) == ("Transitioning", None, ["*"])
    assert service.scoring_uri == "http://127.0.0.1:25080/api/v1/service/diabetes/score"
    assert queued == [deployment.pk]
    entry = AuditEntry.objects.get(action="service.create")
    assert (entry.actor, entry.object_name) == (deployer, "diabetes")


def test_no_key_reaches_the_audit_or_the_row(deployer, request_for):
    deploy(deployer, request_for(keys=("p" * 20, "s" * 20)))
    service = Service.objects.get()
    assert keys.read(service) == ("p" * 20, "s" * 20)
    stored = f"{service.primary_key}{service.secondary_key}"
    said = "".join(str(entry.after) for entry in AuditEntry.objects.all())
    for secret in ("p" * 20, "s" * 20):
        assert secret not in stored
        assert secret not in said


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("abc", True),
        ("ab", False),
        ("a" * 32, True),
        ("a" * 33, False),
        ("1bc", False),
        ("ab-", False),
        ("a-c", True),
        ("Abc", False),
        ("a_c", False),
    ],
)
def test_the_rule_for_names(request_for, name, good):
    assert fields(request_for(name)) == ([] if good else ["name"])


def test_a_taken_name_is_said_beside_the_name(deployer, request_for):
    deploy(deployer, request_for())
    assert fields(request_for()) == ["name"]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"cluster": None}, "cluster"),
        ({"source": None}, "source"),
        ({"environment": None}, "environment"),
        ({"entry_script": "other.py"}, "entry_script"),
        ({"entry_script": "../score.py"}, "entry_script"),
        ({"entry_script": "score.txt"}, "entry_script"),
        ({"config": {"num_replicas": 0}}, "num_replicas"),
        ({"config": {"nonsense": 1}}, "nonsense"),
        ({"keys": ("short", "s" * 20)}, "primary_key"),
        ({"keys": ("s" * 20, "s" * 20)}, "secondary_key"),
        # no-code: the model is of no framework that can be served without a script
        ({"entry_script": ""}, "entry_script"),
        ({"entry_script": "", "model_versions": ()}, "model_versions"),
    ],
)
def test_each_problem_names_its_field(request_for, values, field):
    assert fields(request_for(**values)) == [field]


def test_a_thousand_models_and_not_one_more(request_for, make_model):
    version = make_model()
    many = tuple(type(version)(pk=n, model=version.model, version=n) for n in range(1, 1002))
    assert "model_versions" not in fields(request_for(model_versions=many[:1000]))
    (problem,) = check(request_for(model_versions=many))
    assert problem.field == "model_versions"
    assert "1,001" in problem.message
    assert "1,000" in problem.message


def test_a_second_operation_while_one_runs_is_a_conflict(deployer, request_for, queued):
    first = deploy(deployer, request_for())
    for state in ("queued", "running", "rolling"):
        Deployment.objects.filter(pk=first.pk).update(state=state)
        with pytest.raises(Conflict):
            deploy(deployer, DeployRequest(name="diabetes", update=True))
    assert Revision.objects.count() == 1


def test_an_update_keeps_what_it_does_not_say(deployer, request_for, make_model):
    finish(deploy(deployer, request_for(config={"cpu_cores": 0.7}, description="old")))
    make_model()  # a second version of the same model
    second = deploy(deployer, DeployRequest(name="diabetes", update=True, config={"memory_gb": 2}))
    assert (second.kind, second.revision.number) == ("update", 2)
    assert second.previous is not None
    assert second.previous.number == 1
    assert second.revision.config["cpu_cores"] == 0.7
    assert second.revision.config["memory_gb"] == 2
    assert second.revision.entry_script == "score.py"
    assert second.service.description == "old"
    # never picked up by itself
    assert [str(v) for v in model_versions_of(second.revision)] == ["diabetes:1"]


def test_after_a_failed_update_the_next_one_starts_from_what_serves(deployer, request_for):
    finish(deploy(deployer, request_for(config={"cpu_cores": 0.7})))
    bad = DeployRequest(name="diabetes", update=True, config={"cpu_cores": 3})
    finish(deploy(deployer, bad), DeploymentState.FAILED)
    third = deploy(deployer, DeployRequest(name="diabetes", update=True, note="again"))
    assert third.revision.number == 3
    assert third.revision.config["cpu_cores"] == 0.7


def test_an_update_cannot_move_a_service(deployer, request_for, cluster):
    finish(deploy(deployer, request_for()))
    other = Cluster.objects.create(name="other", sku=cluster.sku, router_url="http://x")
    assert fields(DeployRequest(name="diabetes", update=True, cluster=other)) == ["cluster"]


def test_an_update_of_nothing_is_not_found(db):
    with pytest.raises(NotFound):
        deploy(None, DeployRequest(name="diabetes", update=True))


def test_properties_can_only_be_added(deployer, request_for):
    finish(deploy(deployer, request_for(properties={"a": "1"})))
    changed = DeployRequest(name="diabetes", update=True, properties={"a": "2", "b": "3"})
    assert fields(changed) == ["properties"]
    added = DeployRequest(name="diabetes", update=True, properties={"b": "3"})
    deploy(deployer, added)
    assert Service.objects.get().properties == {"a": "1", "b": "3"}


def test_no_code_takes_an_environment_of_the_models_version(deployer, request_for, make_model):
    version = make_model("iris", framework="ScikitLearn", framework_version="1.9.1")
    request = request_for(source=None, entry_script="", environment=None, model_versions=(version,))
    finish(deploy(deployer, request))
    revision = Revision.objects.get()
    assert (revision.entry_script, revision.source) == ("", None)
    assert "scikit-learn==1.9.1" in revision.environment.pip_requirements
    newer = make_model("iris", b"2", framework="ScikitLearn", framework_version="1.8.0")
    second = deploy(deployer, DeployRequest(name="diabetes", update=True, model_versions=(newer,)))
    assert "scikit-learn==1.8.0" in second.revision.environment.pip_requirements


def test_an_onnx_models_version_is_the_formats_and_pins_no_package(
    deployer, request_for, make_model
):
    version = make_model("iris", framework="Onnx", framework_version="1.3")
    request = request_for(source=None, entry_script="", environment=None, model_versions=(version,))
    deploy(deployer, request)
    environment = Revision.objects.get().environment
    assert environment.name == "no-code-onnxruntime-newest"
    assert environment.pip_requirements.split() == ["onnxruntime", "numpy"]


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        ({"memory_gb": 8.0}, []),
        ({"memory_gb": 8.1}, ["memory_gb"]),
        ({"cpu_cores": 4.0}, []),
        ({"cpu_cores": 4.5}, ["cpu_cores"]),
        ({"gpu_cores": 1}, ["gpu_cores"]),
    ],
)
def test_what_no_node_could_ever_hold_is_refused_wherever_it_is_asked_for(
    deployer, request_for, cluster, config, wrong
):
    capacity = Capacity(0.0, (NodeCapacity("here", 4.0, 0.0, 8.0, 0.0),))
    Cluster.objects.filter(pk=cluster.pk).update(capacity=to_json(capacity))
    cluster.refresh_from_db()
    assert fields(request_for(config=config)) == wrong
    finish(deploy(deployer, request_for()))
    later = DeployRequest(name="diabetes", update=True, config=config)
    assert fields(later) == wrong
    if wrong:
        with pytest.raises(InvalidInput):
            deploy(deployer, later)


def test_an_unknown_capacity_refuses_nothing(request_for, cluster):
    assert cluster.capacity is None
    assert fields(request_for(config={"memory_gb": 9999, "gpu_cores": 8})) == []


def test_rolling_back_deploys_the_earlier_revision_itself(deployer, request_for):
    finish(deploy(deployer, request_for()))
    finish(deploy(deployer, DeployRequest(name="diabetes", update=True, note="two")))
    service = Service.objects.get()
    first = service.revisions.get(number=1)
    deployment = changes.roll_back(deployer, service, first)
    assert (deployment.kind, deployment.revision, deployment.previous.number) == (
        "rollback",
        first,
        2,
    )
    assert Revision.objects.count() == 2
    assert AuditEntry.objects.filter(action="service.rollback", actor=deployer).exists()


def test_rolling_back_to_what_serves_is_refused(deployer, request_for):
    finish(deploy(deployer, request_for()))
    service = Service.objects.get()
    with pytest.raises(InvalidInput):
        changes.roll_back(deployer, service, service.current)


def test_access_changes_at_once_and_without_a_revision(
    deployer, request_for, fake, django_capture_on_commit_callbacks
):
    deployment = deploy(deployer, request_for())
    finish(deployment)
    revision = deployment.revision
    Revision.objects.filter(pk=revision.pk).update(package=revision.source)
    built(revision.environment)
    with django_capture_on_commit_callbacks(execute=True):
        changes.update_access(deployer, deployment.service, auth_enabled=False)
    assert fake.specs["diabetes"].auth.key_enabled is False
    assert Revision.objects.count() == 1
    entry = AuditEntry.objects.get(action="service.access")
    assert (entry.before, entry.after) == ({"auth_enabled": True}, {"auth_enabled": False})
    with django_capture_on_commit_callbacks(execute=True):
        changes.update_access(deployer, Service.objects.get(), auth_enabled=False)
    assert AuditEntry.objects.filter(action="service.access").count() == 1


def test_deleting_cancels_what_runs_and_tells_the_cluster(
    deployer, request_for, fake, django_capture_on_commit_callbacks
):
    deployment = deploy(deployer, request_for())
    fake.specs["diabetes"] = None
    with django_capture_on_commit_callbacks(execute=True):
        changes.delete_service(deployer, deployment.service)
        changes.delete_service(deployer, Service.objects.get())
    deployment.refresh_from_db()
    assert deployment.state == "cancelled"
    assert fake.specs == {}
    assert Service.objects.get().deleting is True
    assert AuditEntry.objects.filter(action="service.delete").count() == 1
    with pytest.raises(Conflict):
        deploy(deployer, DeployRequest(name="diabetes", update=True))
