"""The What if tab: asking, watching, comparing, applying."""

import csv
from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from deployments.audit.models import AuditEntry
from deployments.codec import to_json
from deployments.services.models import Deployment, Revision, Service
from portal import what_if as words
from portal.models import User
from router.telemetry import what_if
from router.telemetry.as_set import USUAL_START_SECONDS
from router.telemetry.models import Decision, Second, Series, WhatIf
from tests.portal.services.conftest import replica

PAGE = "/services/diabetes/what-if/"


def local(at: float) -> str:
    moment = datetime.fromtimestamp(at, timezone.get_current_timezone())
    return moment.strftime("%Y-%m-%dT%H:%M:%S")


def ask(client: Client, **values: Any) -> Any:
    return client.post(f"{PAGE}ask/", {"span": "15m", **values})


class TestAsking:
    def test_the_page_begins_with_the_settings_as_they_are(
        self, client: Client, viewer: User, service: Service
    ) -> None:
        client.force_login(viewer)
        page = client.get(PAGE).content.decode()
        assert 'name="maximum" value="10"' in page
        assert 'name="target" value="70"' in page
        assert "Try other settings on what really came" in page
        assert "None yet." in page

    def test_a_viewer_asks_and_is_led_to_the_run(
        self, client: Client, viewer: User, series: Series, queued: list[int],
        django_capture_on_commit_callbacks: Any,
    ) -> None:  # fmt: skip
        client.force_login(viewer)
        with django_capture_on_commit_callbacks(execute=True):
            answer = ask(client, maximum=25, concurrency=2, price="0.4")
        row = WhatIf.objects.get()
        assert (answer.status_code, answer["Location"]) == (302, f"{PAGE}{row.pk}/")
        assert queued == [row.pk]
        assert (row.asked_by, row.length, row.version) == ("vera", 900, "default")
        assert row.inputs["settings"] | {"start_seconds": 0} == {
            "minimum": 1, "maximum": 25, "target": 70, "concurrency": 2, "start_seconds": 0,
            "autoscale": True, "refresh_seconds": 1,
        }  # fmt: skip
        assert row.inputs["as_set"]["maximum"] == 10
        assert row.inputs["price"] == 0.4
        assert row.inputs["queue_seconds"] == 0.5

    def test_exact_times_are_read_in_the_portals_zone(
        self, client: Client, viewer: User, series: Series, begin: int
    ) -> None:
        client.force_login(viewer)
        ask(client, span="exact", since=local(begin), until=local(begin + 120))
        row = WhatIf.objects.get()
        assert (row.since, row.until) == (begin, begin + 120)

    @pytest.mark.parametrize(
        ("values", "field"),
        [
            ({"minimum": 0}, "minimum"),
            ({"maximum": 1001}, "maximum"),
            ({"minimum": 5, "maximum": 4}, "maximum"),
            ({"minimum": 11}, "maximum"),  # above what was set
            ({"target": 101}, "target"),
            ({"concurrency": 0}, "concurrency"),
            ({"start_seconds": -1}, "start_seconds"),
            ({"price": "cheap"}, "price"),
            ({"span": "exact"}, "since"),
            ({"span": "7y"}, "span"),
            ({"span": "exact", "since": "2026-11-22T10:00", "until": "2026-11-22T09:00"}, "until"),
            ({"version": "none"}, "version"),
        ],
    )
    def test_what_cannot_be_run_is_said_beside_its_field(
        self, client: Client, viewer: User, series: Series, values: dict[str, Any], field: str
    ) -> None:
        client.force_login(viewer)
        answer = ask(client, **values)
        assert answer.status_code == 422
        assert list(answer.context["form"].errors) == [field] or field == "since"
        assert field in answer.context["form"].errors
        assert not WhatIf.objects.exists()

    def test_a_preset_without_requests_says_so_at_the_range(
        self, client: Client, viewer: User, service: Service
    ) -> None:
        client.force_login(viewer)
        answer = ask(client)
        assert answer.status_code == 422
        assert answer.context["form"].errors == {"span": ["No request came in this range."]}

    def test_nothing_was_deployed_of_a_service_without_versions(
        self, client: Client, viewer: User, service: Service
    ) -> None:
        client.force_login(viewer)
        service.versions.all().delete()
        assert b"has no version yet" in client.get(PAGE).content
        assert ask(client).status_code == 422

    def test_a_stranger_is_sent_to_sign_in(self, client: Client, service: Service) -> None:
        assert client.get(PAGE).status_code == 302
        assert ask(client)["Location"].startswith("/login/")


class TestSettingsThen:
    def test_they_are_those_of_the_revision_that_served_as_the_range_began(
        self, service: Service, begin: int
    ) -> None:
        old = Revision.objects.get(service=service)
        new = Revision.objects.create(
            service=service, number=9, environment=old.environment,
            config=old.config | {"autoscale_max_replicas": 40},
        )  # fmt: skip
        Deployment.objects.create(
            service=service, revision=new, version="default", state="succeeded",
            finished_at=datetime.fromtimestamp(begin + 60, UTC),
        )  # fmt: skip
        Deployment.objects.update_or_create(
            revision=old, defaults={"finished_at": datetime.fromtimestamp(begin - 9_000, UTC)}
        )
        found = words.then(service, "default", begin, begin + 120)
        assert found.settings.maximum == 10
        assert "1 deployment ended in this range" in found.notes[0]
        found = words.then(service, "default", begin + 60, begin + 120)
        assert (found.settings.maximum, len(found.notes)) == (40, 1)

    def test_the_start_is_what_the_ledger_had_learnt(self, series: Series, begin: int) -> None:
        service = Service.objects.get()
        for at, learnt in ((begin - 50, 33.0), (begin + 10, None), (begin + 900, 99.0)):
            Decision.objects.create(
                series=series, at=at, before=1, after=2, code="up", reason="B.", applied=True,
                inputs={"start_seconds": learnt},
            )  # fmt: skip
        assert words.then(service, "default", begin, begin + 120).settings.start_seconds == 33.0

    def test_else_what_replicas_that_run_took_else_a_guess_that_is_told(
        self, service: Service, begin: int
    ) -> None:
        def start(*ready: float) -> tuple[float, int]:
            service.replicas = to_json(
                [_replica(number, took) for number, took in enumerate(ready)]
            )
            found = words.then(service, "default", begin, begin + 120)
            return found.settings.start_seconds, len(found.notes)

        assert start(7.0, 9.0, 30.0) == (9.0, 0)
        assert start() == (USUAL_START_SECONDS, 1)


def _replica(number: int, took: float) -> Any:
    from dataclasses import replace

    return replace(replica(number), created_at=1_000.0, ready_at=1_000.0 + took)


class TestRun:
    def test_its_card_shows_how_far_it_is_and_is_read_again(
        self, client: Client, viewer: User, row: WhatIf
    ) -> None:
        client.force_login(viewer)
        WhatIf.objects.update(state="running", progress=0.42, claimed_by="x")
        page = client.get(f"{PAGE}{row.pk}/").content.decode()
        assert '<progress max="100" value="42"' in page
        assert f'data-live="whatif:{row.pk}"' in page
        part = client.get(f"{PAGE}{row.pk}/state/").content.decode()
        assert part.lstrip().startswith("<section")
        assert "42 % of the simulation is done" in part

    def test_a_waiting_one_says_how_many_are_before_it(
        self, client: Client, viewer: User, row: WhatIf
    ) -> None:
        client.force_login(viewer)
        WhatIf.objects.filter(pk=row.pk).update(id=row.pk + 5)
        other = WhatIf(pk=row.pk + 1, service="other", since=0, until=1, state="running")
        other.created_at = 0.0
        other.save(force_insert=True)
        page = client.get(f"{PAGE}{row.pk + 5}/").content.decode()
        assert "Waiting: 1 other first" in page

    def test_as_it_was_stands_beside_as_it_would_be(
        self, client: Client, viewer: User, done: WhatIf
    ) -> None:
        client.force_login(viewer)
        page = client.get(f"{PAGE}{done.pk}/").content.decode()
        for text in (
            "As it was, measured",
            "As it was set, simulated",
            "As it would be, simulated",
            "Rejected (503)",
            "Replica-hours",
            "Cost at 0.5 a replica-hour",
            "from figures of 1 s",
            "2 to 20 replicas, target 60 %, 1 at a time, starting in 2",
        ):
            assert text in page
        assert "data-live=" not in page.split('id="what-if-run"')[1].split(">")[0]
        assert "Apply these settings</button>" not in page
        assert "needs the role deployer" in page

    def test_the_form_begins_with_what_was_asked(
        self, client: Client, viewer: User, done: WhatIf, begin: int
    ) -> None:
        client.force_login(viewer)
        form = client.get(f"{PAGE}{done.pk}/").context["form"]
        assert form.initial["maximum"] == 20
        assert form.initial["since"].timestamp() == begin

    def test_the_chart_has_all_three_runs(self, client: Client, viewer: User, done: WhatIf) -> None:
        client.force_login(viewer)
        chart = client.get(f"{PAGE}{done.pk}/data/").json()
        assert len(chart["x"]) == len(chart["settings"]["replicas"]) == 120
        assert sum(chart["arrivals"]) == sum(Second.objects.values_list("arrivals", flat=True))
        rows = list(
            csv.reader(client.get(f"{PAGE}{done.pk}/data.csv").content.decode().splitlines())
        )
        assert rows[0][:3] == ["time", "arrivals", "recorded_replicas"]
        assert len(rows) == 121

    def test_one_without_a_result_has_no_chart(
        self, client: Client, viewer: User, row: WhatIf
    ) -> None:
        client.force_login(viewer)
        assert client.get(f"{PAGE}{row.pk}/data/").status_code == 404
        assert client.get(f"{PAGE}{row.pk}/data.csv").status_code == 404
        assert client.get(f"{PAGE}999/").status_code == 404

    def test_a_failure_says_why(self, client: Client, viewer: User, row: WhatIf) -> None:
        client.force_login(viewer)
        WhatIf.objects.update(state="failed", cause="It <broke>.")
        assert b"It &lt;broke&gt;." in client.get(f"{PAGE}{row.pk}/").content

    def test_it_can_be_cancelled_once(self, client: Client, viewer: User, row: WhatIf) -> None:
        client.force_login(viewer)
        assert client.post(f"{PAGE}{row.pk}/cancel/").status_code == 302
        assert WhatIf.objects.get().state == "cancelled"
        page = client.post(f"{PAGE}{row.pk}/cancel/", follow=True).content.decode()
        assert "It had ended already." in page

    def test_what_was_not_measured_and_what_is_coarse_is_remarked(self, done: WhatIf) -> None:
        assert done.result is not None
        done.result |= {"step": 60, "measured": 80}
        found = words.remarks(done)
        assert any("figures of 1 minute" in text for text in found)
        assert any(text.startswith("40") for text in found)


class TestComparison:
    @pytest.mark.parametrize(
        ("before", "after", "text"),
        [
            (100, 100, ""),
            (100, 112, "+12 %"),
            (100, 88, "−12 %"),
            (1_000, 1_004, "+0.4 %"),
            (0, 5, "+5"),
            (1, 12, "+11"),
            (None, 5, ""),
        ],
    )
    def test_a_difference_is_a_share_where_there_is_something_to_share(
        self, before: float | None, after: float | None, text: str
    ) -> None:
        assert words._difference(before, after, words._count) == text

    def test_less_is_better_and_unknown_is_said(self, done: WhatIf) -> None:
        assert done.result is not None
        done.result["recorded"]["wait_p95"] = None
        done.result["as_set"]["rejected"] = 10
        done.result["settings"]["rejected"] = 5
        lines = {line.label: line for line in words.comparison(done)}
        assert lines["Wait in the queue, p95"].recorded == "unknown"
        assert (lines["Rejected (503)"].change, lines["Rejected (503)"].tone) == ("−50 %", "good")
        assert lines["Requests"].tone == ""
        done.inputs["price"] = None
        assert len(words.comparison(done)) == len(lines) - 1


class TestApplying:
    def test_a_deployer_deploys_a_revision_with_the_settings(
        self, client: Client, deployer: User, done: WhatIf
    ) -> None:
        client.force_login(deployer)
        page = client.get(f"{PAGE}{done.pk}/").content.decode()
        assert 'data-confirm-action="Apply"' in page
        answer = client.post(f"{PAGE}{done.pk}/apply/")
        assert answer["Location"] == "/services/diabetes/"
        revision = Revision.objects.order_by("-number")[0]
        assert revision.config["autoscale_max_replicas"] == 20
        assert revision.config["autoscale_min_replicas"] == 2
        assert revision.config["autoscale_target_utilization"] == 60
        assert revision.note == f"Settings of what-if {done.pk}"
        assert Deployment.objects.filter(revision=revision, state="queued").exists()
        assert AuditEntry.objects.filter(action="service.update", object_name="diabetes").exists()

    def test_a_viewer_may_not(self, client: Client, viewer: User, done: WhatIf) -> None:
        client.force_login(viewer)
        assert client.post(f"{PAGE}{done.pk}/apply/").status_code == 403
        assert Revision.objects.count() == 1

    def test_what_has_not_ended_has_nothing_to_apply(
        self, client: Client, deployer: User, row: WhatIf
    ) -> None:
        client.force_login(deployer)
        page = client.post(f"{PAGE}{row.pk}/apply/", follow=True).content.decode()
        assert "has no result whose settings could be applied" in page
        assert Revision.objects.count() == 1


class TestApi:
    LIST = "/api/v1/services/diabetes/whatIfs"

    def test_asked_listed_read_and_cancelled(
        self, client: Client, viewer: User, series: Series, begin: int
    ) -> None:
        client.force_login(viewer)
        until = datetime.fromtimestamp(begin + 120, UTC)
        answer = client.post(
            self.LIST,
            {"since": begin, "until": until.isoformat(), "maxReplicas": 30, "startSeconds": 3},
            content_type="application/json",
        )
        assert answer.status_code == 202
        asked = answer.json()
        assert (asked["state"], asked["settings"]["maximum"]) == ("queued", 30)
        assert asked["settings"]["start_seconds"] == 3
        what_if.run(asked["id"])
        assert [row["id"] for row in client.get(self.LIST).json()["value"]] == [asked["id"]]
        found = client.get(f"{self.LIST}/{asked['id']}").json()
        assert (found["state"], found["progress"]) == ("done", 1.0)
        assert found["result"]["settings"]["requests"] > 0
        assert client.post(f"{self.LIST}/{asked['id']}/cancel").json()["state"] == "done"

    @pytest.mark.parametrize(
        ("values", "field"),
        [
            ({"since": "yesterday"}, "since"),
            ({"until": None}, "until"),
            ({"maxReplicas": 0}, "maxReplicas"),
            ({"maxReplicas": 2, "minReplicas": 3}, "maximum"),
            ({"replicas": 2}, "replicas"),
            ({"version": "none"}, "version"),
            ({"since": 1e20}, "since"),
        ],
    )
    def test_what_is_wrong_is_named(
        self, client: Client, viewer: User, series: Series, begin: int, values: Any, field: str
    ) -> None:
        client.force_login(viewer)
        answer = client.post(
            self.LIST, {"since": begin, "until": begin + 120} | values, "application/json"
        )
        assert answer.status_code == 400
        assert answer.json()["error"]["field"] == field

    def test_applying_needs_a_deployer(
        self, client: Client, viewer: User, deployer: User, done: WhatIf
    ) -> None:
        client.force_login(viewer)
        assert client.post(f"{self.LIST}/{done.pk}/apply").status_code == 403
        client.force_login(deployer)
        assert client.post(f"{self.LIST}/{done.pk}/apply").status_code == 202
        assert client.post(f"{self.LIST}/999/apply").status_code == 404
