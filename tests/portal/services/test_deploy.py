"""The deployment form, from what a browser sends to the Deployment row, with the real back end."""

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from django.core import signing
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from deployments.clusters.models import Cluster
from deployments.environments.changes import create_environment
from deployments.environments.models import Environment
from deployments.registry.models import ModelVersion
from deployments.services import keys, sources
from deployments.services.models import Deployment, Service
from portal import project_source
from portal.models import User

NEW = "/services/_deploy/"
SCRIPT = "def init():\n    pass\n\n\ndef run(data):\n    return data\n"


@pytest.fixture
def desk(deployer: User, cluster: Cluster) -> Client:
    client = Client()
    client.force_login(deployer)
    return client


def _form(**more: Any) -> dict[str, Any]:
    return {
        "name": "risk",
        "cluster": "local",
        "models": ["diabetes:1"],
        "serving": "no_code",
        "replicas_mode": "autoscale",
        "auth_enabled": "on",
        **more,
    }


def _zip(**files: str) -> SimpleUploadedFile:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/").replace("_py", ".py"), text)
    return SimpleUploadedFile("project.zip", buffer.getvalue(), "application/zip")


def test_a_model_is_deployed_without_code(desk: Client, diabetes: ModelVersion) -> None:
    answer = desk.post(NEW, _form(description="Risk", tags="team=risk, urgent", note="first"))
    assert answer.url == reverse("service-overview", args=["risk"])
    deployment = Deployment.objects.get()
    revision = deployment.revision
    assert (deployment.state, deployment.kind, revision.number) == ("queued", "create", 1)
    assert [str(link.model_version) for link in revision.model_links.all()] == ["diabetes:1"]
    assert revision.environment.pip_requirements.startswith("scikit-learn==1.7.2")
    assert revision.entry_script == ""
    assert deployment.service.tags == {"team": "risk", "urgent": ""}
    assert deployment.service.auth_enabled is True
    assert revision.config["autoscale_enabled"] is True
    assert (revision.config["cpu_cores"], revision.config["memory_gb"]) == (0.1, 0.5)
    assert revision.note == "first"


def test_a_script_written_in_the_page_becomes_the_project_folder(
    desk: Client, diabetes: ModelVersion, environment: Environment
) -> None:
    desk.post(
        NEW,
        _form(
            serving="entry_script",
            source_kind="editor",
            entry_script="score.py",
            score_py=SCRIPT.replace("\n", "\r\n"),
            environment="sklearn:1",
            replicas_mode="fixed",
            num_replicas="3",
        ),
    )
    revision = Deployment.objects.get().revision
    assert revision.source is not None
    assert sources.read_text(revision.source, "score.py") == SCRIPT
    assert revision.environment == environment
    assert (revision.config["num_replicas"], revision.config["autoscale_enabled"]) == (3, False)


def test_an_entry_script_without_an_environment_gets_that_of_the_models_framework(
    desk: Client, diabetes: ModelVersion
) -> None:
    desk.post(
        NEW,
        _form(
            serving="entry_script", source_kind="editor", entry_script="score.py", score_py=SCRIPT
        ),
    )
    environment = Deployment.objects.get().revision.environment
    assert "scikit-learn==1.7.2" in environment.pip_requirements


def test_a_custom_model_needs_an_environment_and_the_field_says_so(
    desk: Client, add_version: Callable[..., ModelVersion]
) -> None:
    add_version("forecast", framework="Custom")
    answer = desk.post(
        NEW,
        _form(
            models=["forecast:1"],
            serving="entry_script",
            source_kind="editor",
            entry_script="score.py",
            score_py=SCRIPT,
        ),
    )
    assert answer.status_code == 422
    assert "choose one" in answer.context["form"].errors["environment"][0]


def test_a_zip_is_kept_when_another_field_is_wrong_and_used_on_the_next_try(
    desk: Client, diabetes: ModelVersion, environment: Environment
) -> None:
    fields = _form(
        name="No Good",
        serving="entry_script",
        source_kind="upload",
        entry_script="score.py",
        environment="sklearn:1",
    )
    first = desk.post(NEW, fields | {"archive": _zip(score_py=SCRIPT, lib__a_py="A = 1\n")})
    assert first.status_code == 422
    assert list(first.context["form"].errors) == ["name"]
    kept = first.context["kept"]
    assert [path for path, _ in kept.files] == ["lib/a.py", "score.py"]
    again = fields | {"name": "risk", "source_kind": "kept", "kept_source": kept.token}
    second = desk.post(NEW, again)
    assert second.status_code == 302
    assert Deployment.objects.get().revision.source == kept.blob


def test_a_folder_arrives_with_its_paths(
    desk: Client, diabetes: ModelVersion, environment: Environment
) -> None:
    files = [
        SimpleUploadedFile("score.py", SCRIPT.encode()),
        SimpleUploadedFile("a.py", b"A = 1\n"),
    ]
    answer = desk.post(
        NEW,
        _form(
            serving="entry_script",
            source_kind="upload",
            entry_script="score.py",
            environment="sklearn:1",
            folder=files,
            folder_paths=["project/score.py", "project/lib/a.py"],
        ),
    )
    assert answer.status_code == 302
    source = Deployment.objects.get().revision.source
    assert source is not None
    assert [path for path, _ in sources.listing(source)] == ["lib/a.py", "score.py"]


@pytest.mark.parametrize(
    ("paths", "field"), [(["../evil.py"], "folder"), (["/etc/passwd"], "folder")]
)
def test_a_path_trick_in_a_folder_is_refused_beside_the_field(
    paths: list[str], field: str, desk: Client, diabetes: ModelVersion
) -> None:
    answer = desk.post(
        NEW,
        _form(
            serving="entry_script",
            source_kind="upload",
            entry_script="score.py",
            folder=[SimpleUploadedFile("x.py", b"1")],
            folder_paths=paths,
        ),
    )
    assert answer.status_code == 422
    assert answer.context["form"].errors[field]
    assert not Deployment.objects.exists()


def test_an_entry_script_that_is_not_in_the_folder_is_named(
    desk: Client, diabetes: ModelVersion, environment: Environment
) -> None:
    answer = desk.post(
        NEW,
        _form(
            serving="entry_script",
            source_kind="upload",
            entry_script="main.py",
            environment="sklearn:1",
            archive=_zip(score_py=SCRIPT),
        ),
    )
    assert "score.py" in answer.context["form"].errors["entry_script"][0]


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"name": "ab"}, "name"),
        ({"name": "Upper"}, "name"),
        ({"models": []}, "models"),
        ({"models": ["diabetes:9"]}, "models"),
        ({"models": ["nonsense"]}, "models"),
        ({"cluster": "elsewhere"}, "cluster"),
        ({"cpu_cores": "0"}, "cpu_cores"),
        ({"cpu_cores": "lots"}, "cpu_cores"),
        ({"cpu_cores": "2", "cpu_cores_limit": "1"}, "cpu_cores_limit"),
        ({"memory_gb": "-1"}, "memory_gb"),
        ({"autoscale_min_replicas": "0"}, "autoscale_min_replicas"),
        (
            {"autoscale_min_replicas": "5", "autoscale_max_replicas": "4"},
            "autoscale_max_replicas",
        ),
        ({"autoscale_target_utilization": "101"}, "autoscale_target_utilization"),
        ({"replicas_mode": "fixed"}, "num_replicas"),
        ({"replicas_mode": "fixed", "num_replicas": "0"}, "num_replicas"),
        ({"scoring_timeout_ms": "0"}, "scoring_timeout_ms"),
        ({"period_seconds": "0"}, "period_seconds"),
        ({"tags": "=x"}, "tags"),
        ({"environment": "unknown:1"}, "environment"),
        ({"gpu_cores": "1"}, "gpu_cores"),
        ({"memory_gb": "9"}, "memory_gb"),
        ({"cpu_cores": "4.1"}, "cpu_cores"),
        ({"serving": "entry_script", "source_kind": "editor", "score_py": " "}, "score_py"),
        ({"serving": "entry_script", "source_kind": "upload"}, "archive"),
    ],
)
def test_every_message_stands_beside_its_field_and_nothing_is_lost(
    sent: dict[str, Any], field: str, desk: Client, diabetes: ModelVersion
) -> None:
    answer = desk.post(NEW, _form(description="kept words", entry_script="score.py") | sent)
    assert answer.status_code == 422
    form = answer.context["form"]
    assert list(form.errors) == [field]
    assert "kept words" in answer.content.decode()
    assert f'id="id_{field}_error"' in answer.content.decode()
    assert not Service.objects.exists()


def test_what_fits_exactly_is_not_refused(desk: Client, diabetes: ModelVersion) -> None:
    assert desk.post(NEW, _form(memory_gb="8", cpu_cores="4")).status_code == 302


def test_a_taken_name_is_said_beside_the_name(desk: Client, service: Service) -> None:
    answer = desk.post(NEW, _form(name="diabetes"))
    assert "exists" in answer.context["form"].errors["name"][0]


def test_the_form_is_prefilled_for_a_model(
    desk: Client, add_version: Callable[..., ModelVersion]
) -> None:
    add_version("My Model_2.0".replace(" ", "-"), framework="Custom")
    answer = desk.get(f"{NEW}?model=My-Model_2.0:1")
    initial = answer.context["form"].initial
    assert initial["name"] == "my-model-2-0"
    assert initial["serving"] == "entry_script"
    assert [str(row) for row in answer.context["selected_models"]] == ["My-Model_2.0:1"]


def test_models_are_offered_most_recent_first_and_found_by_name(
    desk: Client, add_version: Callable[..., ModelVersion]
) -> None:
    for number in range(1, 41):
        add_version("churn", number)
    add_version("other")
    answer = desk.get("/services/_deploy/models/?model_query=")
    shown = [str(row) for row in answer.context["other_models"]]
    assert shown[:2] == ["other:1", "churn:40"]
    assert answer.context["more_models"] is True
    one = desk.get("/services/_deploy/models/?model_query=hur:7&models=other:1")
    assert [str(row) for row in one.context["other_models"]] == ["churn:7"]
    assert [str(row) for row in one.context["selected_models"]] == ["other:1"]


def test_without_a_cluster_the_page_says_what_to_do(deployer: User, client: Client) -> None:
    client.force_login(deployer)
    assert "No cluster yet" in client.get(NEW).content.decode()


def test_settings_hold_the_revision_that_serves_and_deploy_the_next(
    desk: Client, service: Service
) -> None:
    page = desk.get(reverse("service-settings", args=["diabetes"]))
    assert page.context["form"].initial["models"] == ["diabetes:1"]
    answer = desk.post(
        reverse("service-settings", args=["diabetes"]),
        {
            "models": ["diabetes:1"],
            "serving": "no_code",
            "replicas_mode": "fixed",
            "num_replicas": "2",
            "note": "two at all times",
        },
    )
    assert answer.url == reverse("service-overview", args=["diabetes"])
    deployment = Deployment.objects.first()
    assert deployment is not None
    assert (deployment.kind, deployment.revision.number) == ("update", 2)
    assert deployment.revision.config["num_replicas"] == 2


def test_a_new_revision_never_brings_back_an_access_that_was_changed(
    desk: Client, service: Service
) -> None:
    desk.post(reverse("service-access", args=["diabetes"]), {})
    desk.post(
        reverse("service-settings", args=["diabetes"]),
        {"models": ["diabetes:1"], "serving": "no_code", "replicas_mode": "autoscale"},
    )
    service.refresh_from_db()
    assert service.next_revision == 3
    assert service.auth_enabled is False


def test_the_script_of_a_failed_deployment_is_mended_in_the_page(
    desk: Client, failed: Service
) -> None:
    url = reverse("service-settings", args=["broken"])
    page = desk.get(url)
    form = page.context["form"]
    assert form.initial["score_py"] == "import jsn\n"
    assert form.initial["replicas_mode"] == "fixed"
    desk.post(
        url,
        {
            "models": ["diabetes:1"],
            "serving": "entry_script",
            "source_kind": "editor",
            "entry_script": "score.py",
            "score_py": SCRIPT,
            "kept_source": form.initial["kept_source"],
            "environment": "sklearn:1",
            "replicas_mode": "fixed",
            "num_replicas": "2",
        },
    )
    deployment = Deployment.objects.first()
    assert deployment is not None
    source = deployment.revision.source
    assert source is not None
    assert sources.read_text(source, "score.py") == SCRIPT
    assert sources.read_text(source, "lib/a.py") == "A = 1\n"


def test_a_second_operation_is_refused_and_the_form_keeps_everything(
    desk: Client, service: Service
) -> None:
    Deployment.objects.create(service=service, revision=service.current, state="running")
    answer = desk.post(
        reverse("service-settings", args=["diabetes"]),
        {
            "models": ["diabetes:1"],
            "serving": "no_code",
            "replicas_mode": "autoscale",
            "note": "kept words",
        },
    )
    assert answer.status_code == 422
    assert "one operation on a service runs at a time" in answer.content.decode()
    assert "kept words" in answer.content.decode()


def test_a_note_of_a_project_folder_is_for_the_person_who_got_it(
    desk: Client, failed: Service, deployer: User, viewer: User
) -> None:
    blob = failed.revisions.get().source
    assert blob is not None
    note = project_source.token(deployer, blob)
    assert project_source.from_token(deployer, note) is not None
    assert project_source.from_token(viewer, note) is None
    assert project_source.from_token(deployer, note + "x") is None
    forged = signing.dumps({"sha256": blob.pk, "user": deployer.pk}, salt="another")
    assert project_source.from_token(deployer, forged) is None


def test_the_plan_says_what_will_happen_and_what_does_not_fit(
    desk: Client, diabetes: ModelVersion
) -> None:
    fits = desk.post("/services/_deploy/plan/", _form()).content.decode()
    assert "A new service risk on local." in fits
    assert "It serves diabetes:1" in fits
    assert "It fits local." in fits
    not_fits = desk.post("/services/_deploy/plan/", _form(gpu_cores="1")).content.decode()
    assert "GPUs:" in not_fits
    assert "It fits local." not in not_fits


def test_the_plan_of_an_unfinished_form_complains_of_nothing(desk: Client) -> None:
    answer = desk.post("/services/_deploy/plan/", {"cluster": "local"})
    assert answer.status_code == 200
    assert "alert" not in answer.content.decode()


def test_the_plan_does_not_claim_a_fit_when_the_room_is_unknown(
    desk: Client, diabetes: ModelVersion, cluster: Cluster
) -> None:
    Cluster.objects.update(capacity=None)
    text = desk.post("/services/_deploy/plan/", _form()).content.decode()
    assert "is not known" in text
    assert "It fits" not in text


def test_the_calculator_shows_its_formula(desk: Client) -> None:
    answer = desk.get(
        "/services/_deploy/capacity/",
        {
            "requests_per_second": "20",
            "seconds_per_request": "10",
            "autoscale_target_utilization": "70",
            "replica_max_concurrent_requests": "1",
        },
    )
    assert answer.context["capacity"].replicas == 286
    assert "20 requests/s × 10 s ÷ 0.7 target ÷ 1 at once" in answer.content.decode()


@pytest.mark.parametrize("wrong", ["0", "-1", "x", "nan"])
def test_the_calculator_refuses_what_is_no_load(wrong: str, desk: Client) -> None:
    answer = desk.get(
        "/services/_deploy/capacity/", {"requests_per_second": wrong, "seconds_per_request": "1"}
    )
    assert answer.status_code == 200
    assert answer.context["capacity"] is None


def _json(name: str, value: Any) -> SimpleUploadedFile:
    text = value if isinstance(value, str) else json.dumps(value)
    return SimpleUploadedFile(f"{name}.json", text.encode(), "application/json")


def test_azures_files_fill_in_the_form_and_unknown_keys_are_named(
    desk: Client, environment: Environment
) -> None:
    deployment = {
        "computeType": "aks",
        "numReplicas": 4,
        "containerResourceRequirements": {"cpu": 0.5, "memoryInGB": 2, "colour": "blue"},
        "keys": {"primaryKey": "super-secret-key-123"},
        "whatever": 1,
    }
    inference = {
        "entryScript": "score.py",
        "sourceDirectory": "src",
        "environment": {"name": "sklearn", "version": "1"},
        "surprise": True,
    }
    answer = desk.post(
        "/services/_deploy/fill/",
        {
            "name": "typed-before",
            "cluster": "local",
            "deploymentconfig": _json("deploymentconfig", deployment),
            "inferenceconfig": _json("inferenceconfig", inference),
        },
    )
    form, filled = answer.context["form"], answer.context["filled"]
    values = form.initial
    assert values["name"] == "typed-before"
    assert (values["replicas_mode"], values["num_replicas"]) == ("fixed", 4)
    assert (values["cpu_cores"], values["memory_gb"]) == (0.5, 2)
    assert (values["serving"], values["entry_script"]) == ("entry_script", "score.py")
    assert values["environment"] == "sklearn:1"
    assert {key for _, key in filled.unknown} == {
        "whatever",
        "containerResourceRequirements.colour",
        "surprise",
    }
    text = answer.content.decode()
    assert "super-secret-key-123" not in text
    assert "upload the folder src" in text
    assert values["source_kind"] == "upload"


@pytest.mark.parametrize("text", ["{", "[]", '{"computeType": "aci"}', "\ufeff{"])
def test_a_file_that_cannot_be_read_is_said_and_nothing_typed_is_lost(
    text: str, desk: Client
) -> None:
    answer = desk.post(
        "/services/_deploy/fill/",
        {
            "name": "typed-before",
            "cluster": "local",
            "deploymentconfig": _json("deploymentconfig", text),
        },
    )
    assert answer.context["filled"].problems
    assert answer.context["form"].initial["name"] == "typed-before"


def test_filling_in_without_a_file_asks_for_one(desk: Client) -> None:
    text = desk.post("/services/_deploy/fill/", {"cluster": "local"}).content.decode()
    assert "Choose an inferenceconfig.json" in text


def test_a_thousand_and_one_models_are_refused_with_that_number(desk: Client) -> None:
    answer = desk.post(NEW, _form(models=[f"m{number}:1" for number in range(1001)]))
    assert answer.status_code == 422
    assert answer.context["form"].errors["models"] == [
        "1,001 models were chosen; one deployment takes at most 1,000."
    ]


PRIMARY, SECONDARY = "azure-primary-key-of-old", "azure-secondary-key-of-old"
CONDA = {
    "name": "project_environment",
    "dependencies": ["python=3.11", {"pip": ["azureml-defaults", "numpy"]}],
    "channels": ["conda-forge"],
}


def _fill(desk: Client, **files: Any) -> Any:
    given = {
        name: SimpleUploadedFile("env.yml", value.encode())
        if name == "condafile"
        else _json(name, value)
        for name, value in files.items()
    }
    return desk.post("/services/_deploy/fill/", {"cluster": "local", **given})


def test_keys_of_a_file_go_on_working_and_are_never_in_a_page(
    desk: Client, diabetes: ModelVersion
) -> None:
    file = {"keys": {"primaryKey": PRIMARY, "secondaryKey": SECONDARY}}
    page = _fill(desk, deploymentconfig=file)
    token = page.context["form"].initial["brought_keys"]
    assert token
    assert PRIMARY not in page.content.decode() + token
    plan = desk.post("/services/_deploy/plan/", _form(brought_keys=token)).content.decode()
    assert "become those of deploymentconfig.json" in plan
    assert desk.post("/services/_deploy/", _form(brought_keys=token)).status_code == 302
    assert keys.read(Service.objects.get()) == (PRIMARY, SECONDARY)


def test_a_single_key_of_a_file_gets_a_fresh_one_beside_it(
    desk: Client, diabetes: ModelVersion
) -> None:
    page = _fill(desk, deploymentconfig={"keys": {"primaryKey": PRIMARY, "secondaryKey": None}})
    desk.post(
        "/services/_deploy/", _form(brought_keys=page.context["form"].initial["brought_keys"])
    )
    primary, secondary = keys.read(Service.objects.get())
    assert primary == PRIMARY
    assert len(secondary) == 32


def test_keys_that_cannot_be_taken_over_are_said(desk: Client) -> None:
    page = _fill(desk, deploymentconfig={"keys": {"primaryKey": "short"}})
    assert "brought_keys" not in page.context["filled"].values
    assert "16 to 256" in page.context["filled"].notes[0]


def test_brought_keys_are_for_the_person_who_brought_them(
    desk: Client, administrator: User, diabetes: ModelVersion
) -> None:
    page = _fill(desk, deploymentconfig={"keys": {"primaryKey": PRIMARY}})
    token = page.context["form"].initial["brought_keys"]
    other = Client()
    other.force_login(administrator)
    answer = other.post("/services/_deploy/", _form(brought_keys=token))
    assert answer.status_code == 422
    assert "not kept any more" in answer.content.decode()
    assert not Service.objects.exists()


def test_an_environment_of_a_file_is_made_when_it_is_deployed(
    desk: Client, diabetes: ModelVersion
) -> None:
    file = {
        "entryScript": "score.py",
        "environment": {
            "name": "project environment",
            "environmentVariables": {"LEVEL": "5"},
            "docker": {
                "baseImage": "azureml/base:1",
                "baseImageRegistry": {"address": "mcr.example", "username": None, "password": None},
            },
            "python": {"userManagedDependencies": False, "condaDependencies": CONDA},
        },
    }
    page = _fill(desk, inferenceconfig=file)
    values, filled = page.context["form"].initial, page.context["filled"]
    assert (filled.unknown, filled.notes, filled.problems) == ([], [], [])
    assert values["environment"] == "brought"
    assert not Environment.objects.filter(name="project-environment").exists()
    sent = _form(
        serving="entry_script",
        entry_script="score.py",
        score_py=SCRIPT,
        environment="brought",
        brought_environment=values["brought_environment"],
    )
    plan = desk.post("/services/_deploy/plan/", sent).content.decode()
    assert "project-environment is made as inferenceconfig.json says" in plan
    assert desk.post("/services/_deploy/", sent).status_code == 302
    made = Service.objects.get().revisions.get().environment
    assert str(made) == "project-environment:1"
    assert made.variables == {"LEVEL": "5"}
    assert made.base_image == "mcr.example/azureml/base:1"
    assert "azureml-defaults" in made.conda_yaml
    again = _fill(desk, inferenceconfig=file)
    assert again.context["form"].initial["environment"] == "project-environment:1"


def test_the_conda_file_that_an_older_file_names_is_asked_for_and_taken(desk: Client) -> None:
    file = {"entryScript": "score.py", "runtime": "python", "condaFile": "myenv.yml"}
    alone = _fill(desk, inferenceconfig=file).context["filled"]
    assert "choose the conda file myenv.yml as well" in alone.notes[0]
    assert "environment" not in alone.values
    both = _fill(desk, inferenceconfig=file, condafile="dependencies:\n  - numpy\n").context[
        "filled"
    ]
    assert both.notes == []
    assert both.values["environment"] == "brought"


def test_a_mistake_in_a_files_environment_is_said_with_its_line(desk: Client) -> None:
    page = _fill(desk, inferenceconfig={"entryScript": "a.py"}, condafile="dependencies:\n  - [\n")
    assert "Line " in page.context["filled"].problems[0]
    assert page.context["form"].initial["entry_script"] == "a.py"


def test_rules_of_azure_that_a_file_breaks_are_said(desk: Client) -> None:
    page = _fill(
        desk, deploymentconfig={"autoScaler": {"autoscaleEnabled": True}, "numReplicas": 3}
    )
    assert "cannot be set while autoscaling is on" in page.context["filled"].notes[0]


def test_an_environment_this_machine_cannot_make_is_said_before_it_is_submitted(
    desk: Client, diabetes: ModelVersion
) -> None:
    made = create_environment(None, name="gpu", conda_yaml="dependencies:\n  - cudatoolkit=11\n")
    sent = _form(environment=str(made))
    assert "cudatoolkit (line 2) is not on PyPI" in (
        desk.post("/services/_deploy/plan/", sent).content.decode()
    )
    answer = desk.post("/services/_deploy/", sent)
    assert answer.status_code == 422
    assert "needs a Docker or Kubernetes" in answer.context["form"].errors["environment"][0]
