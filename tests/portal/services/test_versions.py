"""The Versions tab, and the version wherever a page speaks of one."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from deployments.codec import to_json
from deployments.environments.models import Environment
from deployments.registry.models import ModelVersion
from deployments.services import changes, versions
from deployments.services.models import Deployment, Service, ServiceVersion
from portal.models import User
from portal.version_view import going_back, views
from tests.portal.services.conftest import add_revision, replica
from tests.portal.services.test_pages import measure_seconds
from tests.serving import serve

POSTS = (
    "service-traffic",
    "service-promote",
    "service-promote-undo",
    "service-control",
    "service-version-delete",
)


@pytest.fixture(autouse=True)
def no_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "enqueue_deployment", lambda pk: True)


@pytest.fixture
def two(service: Service, environment: Environment, diabetes: ModelVersion) -> Service:
    """`diabetes` with a second version, `green`, on revision 2 with one replica."""
    revision = add_revision(service, environment, [diabetes], {"cpu_cores": 0.5})
    serve(service, revision, "green")
    Deployment.objects.create(
        service=service, version="green", revision=revision, state="succeeded"
    )
    service.replicas += to_json([replica(7, version="green")])
    service.save(update_fields=["replicas"])
    return service


@pytest.fixture
def desk(deployer: User) -> Client:
    client = Client()
    client.force_login(deployer)
    return client


def read(client: Client, name: str, query: str = "") -> str:
    return client.get(reverse(name, args=["diabetes"]) + query).content.decode()


def split() -> dict[str, int]:
    return versions.shares(versions.rows_of(Service.objects.get(name="diabetes")))


def test_a_version_is_shown_with_its_own_replicas_share_and_figures(two: Service) -> None:
    versions.set_traffic(None, two, {"green": 30})
    now = timezone.now().timestamp()
    measure_seconds("diabetes", now, version="green")
    default, green = views(Service.objects.get(), now)
    assert (default.name, default.share, default.control) == ("default", 70, True)
    assert (default.ready, default.crashed, default.figures) == (1, 1, None)
    assert (green.name, green.share, green.control) == ("green", 30, False)
    assert (green.ready, green.crashed) == (1, 0)
    assert green.figures is not None
    assert green.figures.requests_per_second == pytest.approx(20)


def test_replicas_nobody_has_seen_are_unknown_and_not_zero(failed: Service) -> None:
    (only,) = views(failed, timezone.now().timestamp())
    assert (only.ready, only.desired) == (None, None)


def test_the_page_costs_the_same_for_two_versions_and_for_six(
    two: Service, desk: Client, django_assert_num_queries: Any
) -> None:
    url = reverse("service-versions-table", args=["diabetes"])
    desk.get(url)
    with django_assert_num_queries(6):
        desk.get(url)
    for name in ("a", "b", "c", "d"):
        ServiceVersion.objects.create(service=two, name=name)
    with django_assert_num_queries(6):
        desk.get(url)


def test_a_service_of_one_version_is_told_what_a_second_is_for(
    service: Service, desk: Client
) -> None:
    text = read(desk, "service-versions")
    assert "One version takes all requests" in text
    assert "traffic-form" not in text
    assert "Treatment" not in text


def test_shares_are_changed_in_the_form(two: Service, desk: Client) -> None:
    answer = desk.post(reverse("service-traffic", args=["diabetes"]), {"share-green": "35"})
    assert answer.status_code == 302
    assert split() == {"default": 65, "green": 35}


@pytest.mark.parametrize("percent", ["101", "-1", "", "many", "1.5"])
def test_a_share_that_cannot_be_is_said_beside_its_field(
    percent: str, two: Service, desk: Client
) -> None:
    answer = desk.post(reverse("service-traffic", args=["diabetes"]), {"share-green": percent})
    assert answer.status_code == 422
    assert answer.context["form"].errors["share-green"]
    assert split() == {"default": 100, "green": 0}


def test_shares_over_100_together_are_said_beside_the_larger(two: Service, desk: Client) -> None:
    serve(two, two.current, "red")
    url = reverse("service-traffic", args=["diabetes"])
    answer = desk.post(url, {"share-green": "70", "share-red": "40"})
    assert answer.status_code == 422
    assert "110 %" in str(answer.context["form"].errors["share-green"])


def test_a_version_that_never_answered_takes_no_share(two: Service, desk: Client) -> None:
    ServiceVersion.objects.create(service=two, name="young")
    answer = desk.get(reverse("service-versions", args=["diabetes"]))
    assert answer.context["form"].fields["share-young"].disabled is True
    url = reverse("service-traffic", args=["diabetes"])
    assert desk.post(url, {"share-green": "5", "share-young": "50"}).status_code == 302
    assert split() == {"default": 95, "green": 5, "young": 0}


def test_promoting_and_undoing_is_one_click_each(two: Service, desk: Client) -> None:
    versions.set_traffic(None, two, {"green": 30})
    assert "Undo the promotion" not in read(desk, "service-versions")
    desk.post(reverse("service-promote", args=["diabetes"]), {"version": "green"})
    assert split() == {"green": 100, "default": 0}
    assert going_back(versions.rows_of(two)) == "default 70 %, green 30 %"
    assert "default 70 %, green 30 %" in read(desk, "service-versions")
    answer = desk.post(reverse("service-promote-undo", args=["diabetes"]), follow=True)
    assert "As before the promotion: default 70 %, green 30 %." in answer.content.decode()
    assert split() == {"default": 70, "green": 30}
    assert Deployment.objects.filter(state="queued").count() == 0


@pytest.mark.parametrize(
    ("ready", "said"),
    [(0, "would get 503"), (1, "1 replica is ready in it, and 2 serve"), (2, ""), (3, "")],
)
def test_promoting_what_is_smaller_than_what_serves_is_warned_of(
    ready: int, said: str, two: Service
) -> None:
    two.replicas = to_json(
        [replica(1), replica(2)] + [replica(10 + n, version="green") for n in range(ready)]
    )
    two.save(update_fields=["replicas"])
    default, green = views(two, timezone.now().timestamp())
    assert default.caution == ""
    assert (said in green.caution) if said else (green.caution == "")


def test_the_control_is_chosen(two: Service, desk: Client) -> None:
    desk.post(reverse("service-control", args=["diabetes"]), {"version": "green"})
    assert versions.control_of(versions.rows_of(two)) == "green"


def test_a_failure_is_not_news_any_more_once_its_version_is_deleted(
    two: Service, desk: Client
) -> None:
    Deployment.objects.filter(version="green").update(state="failed", cause="it was wrong")
    text = read(desk, "service-state")
    assert "it was wrong" in text
    assert "version green, failed" in text
    versions.delete_version(None, two, "green")
    assert "it was wrong" not in read(desk, "service-state")
    assert "it was wrong" not in read(desk, "service-overview").partition('id="timeline"')[0]


def test_a_version_is_deleted_and_the_default_is_not(two: Service, desk: Client) -> None:
    url = reverse("service-version-delete", args=["diabetes"])
    answer = desk.post(url, {"version": "default"}, follow=True)
    assert "promote another one first" in answer.content.decode()
    desk.post(url, {"version": "green"})
    assert split() == {"default": 100}


@pytest.mark.parametrize("name", POSTS)
@pytest.mark.parametrize("version", ["pink", "Not A Name", ""])
def test_what_is_no_version_changes_nothing(
    name: str, version: str, two: Service, desk: Client
) -> None:
    desk.post(reverse(name, args=["diabetes"]), {"version": version, "share-pink": "5"})
    assert split() == {"default": 100, "green": 0}


@pytest.mark.parametrize("name", POSTS)
def test_a_viewer_may_look_and_change_nothing(
    name: str, two: Service, viewer: User, client: Client
) -> None:
    client.force_login(viewer)
    text = read(client, "service-versions")
    assert "traffic-form" not in text
    assert reverse(name, args=["diabetes"]) not in text
    answer = client.post(reverse(name, args=["diabetes"]), {"version": "green", "share-green": "9"})
    assert answer.status_code == 403
    assert split() == {"default": 100, "green": 0}


@pytest.mark.parametrize("name", POSTS)
def test_a_change_is_never_a_get(name: str, two: Service, desk: Client) -> None:
    assert desk.get(reverse(name, args=["diabetes"])).status_code == 405


# ---- deploying to a version ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "version", "revision"),
    [
        ("", "default", 1),
        ("?version=default", "default", 1),
        ("?version=green", "green", 2),
        ("?version=nobody", "default", 1),
        ("?version=_new", "v2", 1),
        ("?revision=2", "green", 2),
    ],
)
def test_the_form_holds_what_serves_in_the_version_asked_for(
    query: str, version: str, revision: int, two: Service, desk: Client
) -> None:
    answer = desk.get(reverse("service-settings", args=["diabetes"]) + query)
    assert answer.context["form"]["version"].value() == version
    assert answer.context["from_revision"].number == revision
    assert "which does not serve" not in answer.content.decode()


@pytest.mark.parametrize(
    ("version", "kind"), [("green", "update"), ("blue", "create"), ("", "update")]
)
def test_a_revision_is_deployed_to_a_version(
    version: str, kind: str, two: Service, desk: Client
) -> None:
    data = {
        "version": version,
        "models": ["diabetes:1"],
        "serving": "no_code",
        "replicas_mode": "fixed",
        "num_replicas": "1",
    }
    answer = desk.post(reverse("service-settings", args=["diabetes"]), data)
    assert answer.status_code == 302, answer.context["form"].errors
    row = Deployment.objects.first()
    assert row is not None
    assert (row.version, row.kind) == (version or "default", kind)


def test_a_version_that_cannot_be_is_said_beside_the_field(two: Service, desk: Client) -> None:
    url = reverse("service-settings", args=["diabetes"])
    answer = desk.post(url, {"version": "No Name", "models": ["diabetes:1"], "serving": "no_code"})
    assert answer.status_code == 422
    assert answer.context["form"].errors["version"]


def test_the_plan_says_what_becomes_of_the_version(two: Service, desk: Client) -> None:
    url = reverse("service-deploy-plan")
    data = {"service": "diabetes", "models": ["diabetes:1"], "serving": "no_code"}
    new = desk.post(url, {**data, "version": "blue"}).content.decode()
    assert "in a new version blue beside default, green" in new
    old = desk.post(url, {**data, "version": "green"}).content.decode()
    assert "Revision 3 of diabetes, version green. What serves now goes on" in old


# ---- elsewhere ----------------------------------------------------------------------------------


def test_replicas_are_those_of_one_version_when_asked(two: Service, desk: Client) -> None:
    every = read(desk, "service-replicas")
    assert {"diabetes-r1-1", "diabetes-r1-7"} <= set(re.findall(r"diabetes-r1-\d", every))
    green = read(desk, "service-replicas", "?version=green")
    assert set(re.findall(r"diabetes-r1-\d", green)) == {"diabetes-r1-7"}
    assert "?version=green" in green.split(">")[0]  # and stays so when it is read again


def test_history_names_the_version_of_each_deployment_and_goes_back_within_it(
    two: Service, environment: Environment, diabetes: ModelVersion, desk: Client
) -> None:
    serve(two, add_revision(two, environment, [diabetes]), "green")
    answer = desk.get(reverse("service-history", args=["diabetes"]))
    text = answer.content.decode()
    assert "Serving in default" in text
    assert "Serving in green" in text
    assert "Roll green back to 2" in text
    desk.post(
        reverse("service-roll-back", args=["diabetes"]), {"revision": "2", "version": "green"}
    )
    row = Deployment.objects.first()
    assert row is not None
    assert (row.version, row.kind, row.revision.number) == ("green", "rollback", 2)


def test_consume_shows_how_to_reach_one_version(
    service: Service, desk: Client, environment: Environment, diabetes: ModelVersion
) -> None:
    assert "azureml-model-deployment" not in read(desk, "service-consume")
    serve(service, add_revision(service, environment, [diabetes]), "green")
    text = read(desk, "service-consume")
    assert "azureml-model-deployment: green" in text


@pytest.mark.parametrize("page", ["overview", "versions", "metrics", "settings", "history"])
def test_no_page_takes_a_version_for_the_products_own(
    page: str, two: Service, sign_in: Callable[[User], Client], deployer: User
) -> None:
    text = read(sign_in(deployer), f"service-{page}")
    footer = text[text.index("<footer") :]
    assert re.search(r"Slipway \d+\.\d+", footer)
