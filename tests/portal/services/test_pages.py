"""The list, the overview and its live parts, history: what is on them, for whom, at what cost."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from deployments.clusters.models import Cluster
from deployments.environments.models import Environment
from deployments.registry.models import ModelVersion
from deployments.services.models import Deployment, Service
from portal.models import User
from router.samples import BUCKETS
from router.telemetry.models import Second, Series, pack_histogram
from tests.portal.services.conftest import add_revision
from tests.serving import serve

TABS = ("overview", "versions", "test", "consume", "settings", "history")
PARTS = ("header", "state", "timeline", "replicas", "figures", "keys", "versions-table")


@pytest.mark.parametrize("tab", TABS)
def test_every_tab_opens_for_a_viewer(
    tab: str, service: Service, viewer: User, client: Client
) -> None:
    client.force_login(viewer)
    answer = client.get(reverse(f"service-{tab}", args=["diabetes"]))
    assert answer.status_code == 200
    assert 'aria-current="page"' in answer.content.decode()


@pytest.mark.parametrize("part", PARTS)
def test_every_live_part_has_a_url_of_its_own_and_is_no_whole_page(
    part: str, service: Service, viewer: User, client: Client
) -> None:
    client.force_login(viewer)
    answer = client.get(reverse(f"service-{part}", args=["diabetes"]))
    assert answer.status_code == 200
    assert "<html" not in answer.content.decode()


def test_a_service_that_is_not_there_is_404(viewer: User, client: Client) -> None:
    client.force_login(viewer)
    assert client.get(reverse("service-overview", args=["nobody"])).status_code == 404


def test_the_overview_shows_the_cause_with_its_evidence_open(
    failed: Service, viewer: User, client: Client
) -> None:
    client.force_login(viewer)
    text = client.get(reverse("service-overview", args=["broken"])).content.decode()
    assert "score.py imports jsn, which is not installed." in text
    assert "UserScriptImportError" in text
    assert "<details open>" in text
    assert "ModuleNotFoundError" in text


def test_the_overview_shows_replicas_in_trouble_first_with_their_last_lines(
    service: Service, viewer: User, client: Client
) -> None:
    client.force_login(viewer)
    text = client.get(reverse("service-replicas", args=["diabetes"])).content.decode()
    assert text.index("diabetes-r1-2") < text.index("diabetes-r1-1")
    assert "killed by signal 9 (out of memory)" in text
    assert "MemoryError: no room" in text


def test_the_overview_never_says_zero_for_what_was_not_measured(
    service: Service, viewer: User, client: Client
) -> None:
    client.force_login(viewer)
    text = client.get(reverse("service-figures", args=["diabetes"])).content.decode()
    assert "Nothing was measured" in text
    assert "0.0" not in text


def test_the_timeline_asks_again_each_second_only_while_a_deployment_runs(
    service: Service, viewer: User, client: Client
) -> None:
    client.force_login(viewer)
    url = reverse("service-timeline", args=["diabetes"])
    assert "every 1s" not in client.get(url).content.decode()
    Deployment.objects.create(service=service, revision=service.current, state="running")
    assert "every 1s" in client.get(url).content.decode()


def test_usual_durations_are_of_the_other_deployments(
    service: Service, viewer: User, client: Client
) -> None:
    client.force_login(viewer)
    url = reverse("service-timeline", args=["diabetes"])
    assert "usually" not in client.get(url).content.decode()
    newest = Deployment.objects.create(service=service, revision=service.current, state="running")
    text = client.get(url).content.decode()
    assert f"Deployment {newest.pk}" in text
    assert "usually 3 s" in text


def measure_seconds(service: str, now: float, version: str = "default") -> None:
    """20 answers in each of the last seconds."""
    histogram = [0] * BUCKETS
    histogram[6] = 100
    series = Series.objects.create(cluster="local", service=service, version=version)
    Second.objects.bulk_create(
        Second(
            series=series, at=int(now) - back, ok=20, ready=2, histogram=pack_histogram(histogram)
        )
        for back in range(1, 30)
    )


def test_the_list_costs_the_same_number_of_queries_for_one_service_and_for_six(
    service: Service,
    cluster: Cluster,
    environment: Environment,
    diabetes: ModelVersion,
    viewer: User,
    client: Client,
    django_assert_num_queries: Any,
) -> None:
    client.force_login(viewer)
    url = reverse("service-rows")
    client.get(url)
    with django_assert_num_queries(8):
        client.get(url)
    for number in range(5):
        other = Service.objects.create(name=f"other-{number}", cluster=cluster)
        serve(other, add_revision(other, environment, [diabetes]))
    with django_assert_num_queries(8):
        client.get(url)


def test_the_list_shows_figures_replicas_and_models(
    service: Service, viewer: User, client: Client
) -> None:
    from django.utils import timezone

    measure_seconds("diabetes", timezone.now().timestamp())
    client.force_login(viewer)
    text = client.get(reverse("service-list")).content.decode()
    assert "20.0" in text
    assert "diabetes:1" in text
    assert "1 crashed" in text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=diab", ["diabetes"]),
        ("q=brok", ["broken"]),
        ("state=Failed", ["broken"]),
        ("state=Healthy", ["diabetes"]),
        ("cluster=local", ["broken", "diabetes"]),
        ("cluster=elsewhere", []),
        ("state=Nonsense", ["broken", "diabetes"]),
    ],
)
def test_the_list_is_filtered_by_its_query_string(
    query: str, found: list[str], service: Service, failed: Service, viewer: User, client: Client
) -> None:
    client.force_login(viewer)
    answer = client.get(f"{reverse('service-rows')}?{query}")
    assert [row.service.name for row in answer.context["rows"]] == found


def test_many_services_are_on_pages_that_keep_the_filter(
    service: Service, cluster: Cluster, viewer: User, client: Client
) -> None:
    Service.objects.bulk_create(
        Service(name=f"many-{number:02}", cluster=cluster) for number in range(51)
    )
    client.force_login(viewer)
    url = reverse("service-list")
    first = client.get(f"{url}?q=many")
    assert [row.service.name for row in first.context["rows"]][-1] == "many-49"
    text = first.content.decode()
    assert "1 to 50 of 51 services" in text
    assert f'href="{url}?q=many&amp;page=2"' in text
    # what is live asks for its own page again
    second = client.get(f"{url}?q=many&page=2")
    assert [row.service.name for row in second.context["rows"]] == ["many-50"]
    assert f'hx-get="{reverse("service-rows")}?q=many&amp;page=2"' in second.content.decode()


def test_an_empty_list_says_what_a_service_is_and_offers_a_viewer_no_button(
    viewer: User, deployer: User, sign_in: Callable[[User], Client]
) -> None:
    url = reverse("service-rows")
    assert reverse("service-deploy") not in sign_in(viewer).get(url).content.decode()
    assert reverse("service-deploy") in sign_in(deployer).get(url).content.decode()


def test_history_shows_what_changed_between_revisions(
    service: Service, environment: Environment, diabetes: ModelVersion, viewer: User, client: Client
) -> None:
    add_revision(service, environment, [diabetes], {"cpu_cores": 0.5}, note="more room")
    client.force_login(viewer)
    answer = client.get(reverse("service-history", args=["diabetes"]))
    newest, differences = answer.context["shown"][0]
    assert newest.number == 2
    assert [(one.label, one.before, one.after) for one in differences] == [
        ("CPU cores", "0.1", "0.5")
    ]
    assert "more room" in answer.content.decode()


def test_the_last_revision_of_a_history_page_still_has_something_to_differ_from(
    service: Service, environment: Environment, diabetes: ModelVersion, viewer: User, client: Client
) -> None:
    for _ in range(20):
        add_revision(service, environment, [diabetes])
    client.force_login(viewer)
    shown = client.get(reverse("service-history", args=["diabetes"])).context["shown"]
    assert len(shown) == 20
    assert shown[-1][0].number == 2
    assert shown[-1][1] == []
    rest = client.get(reverse("service-history", args=["diabetes"]) + "?page=2").context["shown"]
    assert [row.number for row, _ in rest] == [1]


def test_history_costs_the_same_for_two_revisions_and_for_ten(
    service: Service,
    environment: Environment,
    diabetes: ModelVersion,
    viewer: User,
    client: Client,
    django_assert_max_num_queries: Any,
) -> None:
    for _ in range(10):
        add_revision(service, environment, [diabetes])
    client.force_login(viewer)
    with django_assert_max_num_queries(12):
        client.get(reverse("service-history", args=["diabetes"]))


def test_the_log_of_a_newer_deployment_takes_the_place_of_the_one_shown(
    service: Service, viewer: User, client: Client
) -> None:
    client.force_login(viewer)
    deployment = Deployment.objects.create(service=service, revision=service.current)
    url = reverse("service-timeline", args=["diabetes"])
    same = client.get(url, {"log": deployment.pk}).content.decode()
    newer = client.get(url, {"log": deployment.pk - 1}).content.decode()
    assert "log-viewer" not in same
    assert 'id="deployment-log" hx-swap-oob="true"' in newer
    assert f'data-source="deployment:{deployment.pk}"' in newer
    assert f"{url}?log={deployment.pk}" in newer
