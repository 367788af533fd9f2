"""The audit page: filters, paging, before and after."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from deployments.audit.models import AuditEntry
from deployments.audit.record import record
from portal.diff import Line, diff
from portal.models import User
from portal.views.audit import PAGE


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        (None, None, []),
        ({"a": 1}, {"a": 1}, []),
        (None, {"a": 1}, [Line("a", "added", None, "1")]),
        ({"a": 1}, None, [Line("a", "removed", "1", None)]),
        ({"a": "x"}, {"a": None}, [Line("a", "changed", "x", "null")]),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, [Line("a.c", "changed", "2", "3")]),
        (
            {"a": {}},
            {"a": {"b": 1}},
            [Line("a", "removed", "{}", None), Line("a.b", "added", None, "1")],
        ),
        ({"a": [1]}, {"a": [1, 2]}, [Line("a", "changed", "[1]", "[1, 2]")]),
    ],
)
def test_only_what_differs_is_shown(before: dict, after: dict, lines: list[Line]) -> None:
    assert diff(before, after) == lines


@pytest.fixture
def page(client: Client, administrator: User) -> Client:
    client.force_login(administrator)
    record(administrator, "service.create", "service", "diabetes", after={"cpu_cores": 0.1})
    record(None, "model.delete", "model", "churn", before={"version": 3})
    return client


def test_who_what_and_the_values_are_shown(page: Client) -> None:
    html = page.get("/audit/").content.decode()
    for text in (
        "service.create",
        "diabetes",
        "cpu_cores",
        "<ins>0.1</ins>",
        "<del>3</del>",
        "slipway",
    ):
        assert text in html


@pytest.mark.parametrize(
    ("query", "shown", "hidden"),
    [("who=ad", "diabetes", "churn"), ("what=churn", "churn", "diabetes"),
     ("what=model", "churn", "diabetes"), ("what=service.create", "diabetes", "churn")],
)  # fmt: skip
def test_filters_narrow(query: str, shown: str, hidden: str, page: Client) -> None:
    html = page.get(f"/audit/?{query}").content.decode()
    assert shown in html
    assert hidden not in html


def test_days_are_whole_days(page: Client) -> None:
    today = timezone.localdate()
    assert "diabetes" in page.get(f"/audit/?since={today}&until={today}").content.decode()
    tomorrow = today + timedelta(days=1)
    assert "Nothing matches" in page.get(f"/audit/?since={tomorrow}").content.decode()


def test_a_date_that_is_none_is_said_and_filters_nothing(page: Client) -> None:
    html = page.get("/audit/?since=yesterday").content.decode()
    assert "Enter a valid date." in html
    assert "diabetes" in html


def test_an_empty_audit_explains_itself(client: Client, administrator: User) -> None:
    client.force_login(administrator)
    assert "Nothing has changed yet" in client.get("/audit/").content.decode()


def test_pages_keep_the_filter(page: Client, administrator: User) -> None:
    for number in range(PAGE + 1):
        record(administrator, "service.update", "service", f"s{number}")
    first = page.get("/audit/?what=service.update").content.decode()
    assert "?what=service.update&amp;page=2" in first
    assert "s0<" not in first
    assert "s0<" in page.get("/audit/?what=service.update&page=2").content.decode()


def test_values_are_escaped(page: Client, administrator: User) -> None:
    record(administrator, "x", "service", "<b>bold</b>", after={"<i>": "<script>"})
    html = page.get("/audit/").content.decode()
    assert "<script>" not in html.partition("<main")[2]
    assert "<b>bold" not in html
    assert AuditEntry.objects.filter(object_name="<b>bold</b>").exists()
