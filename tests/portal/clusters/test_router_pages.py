"""A router's certificate and own lines in the portal: who may, what is said, what is never shown."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from deployments.clusters import drivers
from deployments.clusters.catalogue import ensure_skus
from deployments.clusters.custom import Remark
from deployments.clusters.models import Cluster, Sku
from deployments.errors import Unavailable
from deployments.types import CustomLines
from portal import router_view
from portal.models import User
from router import admin_client
from router.setup import Status
from tests.deployments.clusters.authority import YEAR, Issued, issue
from tests.deployments.fakes import FakeDriver

pytestmark = pytest.mark.django_db(transaction=True)

HOST = "score.example.com"
NOW = timezone.now()


@pytest.fixture(scope="module")
def own() -> Issued:
    return issue(HOST, names=(HOST,), begins=NOW - timedelta(days=1), ends=NOW + YEAR)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    driver = FakeDriver()
    monkeypatch.setitem(drivers._BY_KIND, "process", lambda name: driver)
    drivers._driver.cache_clear()
    yield driver
    drivers._driver.cache_clear()


@pytest.fixture
def cluster(db: None, fake: FakeDriver) -> Cluster:
    ensure_skus()
    return Cluster.objects.create(
        name="local", sku=Sku.objects.get(name="this machine"), router_url="http://127.0.0.1:26080"
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[CustomLines]]:
    """A router whose HAProxy says this to every check; what it was asked."""

    def make(ok: bool = True, *remarks: Remark, away: bool = False) -> list[CustomLines]:
        calls: list[CustomLines] = []

        def check(socket: Path, lines: CustomLines) -> tuple[bool, list[Remark]]:
            calls.append(lines)
            if away:
                raise Unavailable("The router is not running.")
            return ok, list(remarks)

        monkeypatch.setattr(admin_client, "check", check)
        return calls

    return make


def sign_in(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


def upload(client: Client, issued: Issued, **more: Any) -> Any:
    data = {"cname": HOST, "chain": issued.pem, "key": issued.key_pem, **more}
    return client.post(reverse("cluster-tls", args=["local"]), data)


@pytest.mark.parametrize("name", ["cluster-tls", "cluster-lines"])
def test_only_administrators_see_these_pages(
    name: str, cluster: Cluster, viewer: User, deployer: User, administrator: User
) -> None:
    url = reverse(name, args=["local"])
    for person, status in ((viewer, 403), (deployer, 403), (administrator, 200)):
        client = sign_in(person)
        assert client.get(url).status_code == status
        shown = client.get(reverse("cluster-detail", args=["local"])).content.decode()
        assert (url in shown) is (status == 200)
    assert sign_in(administrator).get(reverse(name, args=["gone"])).status_code == 404


@pytest.mark.parametrize("name", ["cluster-tls-plain", "cluster-tls-remove"])
def test_a_deployer_changes_nothing_of_it(name: str, cluster: Cluster, deployer: User) -> None:
    assert sign_in(deployer).post(reverse(name, args=["local"])).status_code == 403


def test_a_pasted_certificate_turns_tls_on(
    cluster: Cluster, fake: FakeDriver, administrator: User, own: Issued
) -> None:
    client = sign_in(administrator)
    answer = upload(client, own)
    assert answer.status_code == 302
    assert fake.router_spec().tls is not None
    page = client.get(answer.url).content.decode()
    assert f"https://{HOST}:8443" in page
    assert "signed itself" in page
    assert "HttpsRequired" in page
    for secret in own.key_pem.splitlines()[1:-1]:
        assert secret not in page


def test_files_do_as_well(
    cluster: Cluster, fake: FakeDriver, administrator: User, own: Issued
) -> None:
    answer = sign_in(administrator).post(
        reverse("cluster-tls", args=["local"]),
        {
            "cname": HOST,
            "chain_file": SimpleUploadedFile("chain.pem", own.pem.encode()),
            "key_file": SimpleUploadedFile("key.pem", own.key_pem.encode()),
            "plain_http": "on",
        },
    )
    assert answer.status_code == 302
    assert fake.router_spec().tls.plain_http is True


def test_all_that_is_wrong_is_said_at_once_and_the_key_does_not_come_back(
    cluster: Cluster, administrator: User, own: Issued
) -> None:
    other = issue(HOST, names=(HOST,), begins=NOW - YEAR, ends=NOW - timedelta(days=1))
    answer = upload(sign_in(administrator), other, key=own.key_pem, cname="https://x")
    assert answer.status_code == 422
    assert set(answer.context["form"].errors) == {"cname", "chain", "key"}
    page = answer.content.decode()
    assert other.pem.splitlines()[1] in page  # what is public is kept
    assert own.key_pem.splitlines()[1] not in page
    cluster.refresh_from_db()
    assert cluster.tls_chain == ""


def test_problems_of_a_file_stand_beside_it_and_a_chain_stays(
    cluster: Cluster, administrator: User, own: Issued
) -> None:
    client, url = sign_in(administrator), reverse("cluster-tls", args=["local"])
    data = {"cname": HOST, "key": own.key_pem}
    wrong = SimpleUploadedFile("chain.pem", b"no certificate")
    answer = client.post(url, {**data, "chain_file": wrong})
    assert set(answer.context["form"].errors) == {"chain"}
    assert "no certificate</textarea>" in answer.content.decode()  # need not be chosen again
    key = SimpleUploadedFile("key.pem", b"no key")
    answer = client.post(url, {"cname": HOST, "chain": own.pem, "key_file": key})
    assert set(answer.context["form"].errors) == {"key_file"}
    assert "no key</textarea>" not in answer.content.decode()
    binary = SimpleUploadedFile("chain.der", b"\x30\x82\xff")
    said = client.post(url, {**data, "chain_file": binary}).context["form"].errors
    assert "not text in PEM" in said["chain_file"][0]
    both = SimpleUploadedFile("chain.pem", own.pem.encode())
    said = client.post(url, {**data, "chain": own.pem, "chain_file": both}).context["form"].errors
    assert "give the certificate chain once" in said["chain"][0]


def test_the_plain_port_and_removal_are_a_click_each(
    cluster: Cluster, fake: FakeDriver, administrator: User, own: Issued
) -> None:
    client = sign_in(administrator)
    upload(client, own)
    plain = reverse("cluster-tls-plain", args=["local"])
    for sent, wanted in (({"plain_http": "on"}, True), ({}, False)):
        assert client.post(plain, sent).status_code == 302
        assert fake.router_spec().tls.plain_http is wanted
    assert client.post(reverse("cluster-tls-remove", args=["local"])).status_code == 302
    assert fake.router_spec().tls is None


@pytest.mark.parametrize(
    ("left", "tone", "words"),
    [
        (timedelta(days=31), "", ""),
        (timedelta(days=30) - timedelta(minutes=1), "warn", "expires in 29 days"),
        (timedelta(minutes=-1), "bad", "has expired"),
    ],
)
def test_an_expiry_is_shown_on_the_overview_the_list_and_the_page(
    left: timedelta, tone: str, words: str, cluster: Cluster, viewer: User
) -> None:
    Cluster.objects.update(tls_cname=HOST, tls_chain="x", tls_not_after=timezone.now() + left)
    client = sign_in(viewer)
    overview = client.get(reverse("overview")).content.decode()
    assert ("banner" in overview) is bool(tone)
    assert words in overview
    assert ("alert-error" in overview) is (tone == "bad")
    listed = client.get(reverse("cluster-list")).content.decode()
    assert re.findall(r"chip-(warn|bad)", listed) == ([tone] if tone else [])
    assert words in client.get(reverse("cluster-detail", args=["local"])).content.decode()


def test_lines_that_haproxy_takes_are_kept(
    cluster: Cluster, fake: FakeDriver, administrator: User, asked: Any
) -> None:
    calls = asked(True, Remark("frontend", 1, "this rule comes late"))
    url = reverse("cluster-lines", args=["local"])
    answer = sign_in(administrator).post(
        url, {"defaults": "timeout client 30s\r\n", "frontend": "http-request deny"}, follow=True
    )
    lines = CustomLines(defaults=("timeout client 30s",), frontend=("http-request deny",))
    assert calls == [lines]
    assert fake.router_spec().custom == lines
    page = answer.content.decode()
    assert "frontend, line 1: this rule comes late" in page
    assert "timeout client 30s" in page


def test_a_try_changes_nothing(
    cluster: Cluster, fake: FakeDriver, administrator: User, asked: Any
) -> None:
    asked(True)
    answer = sign_in(administrator).post(
        reverse("cluster-lines", args=["local"]), {"defaults": "timeout client 30s", "try": "1"}
    )
    assert answer.status_code == 200
    assert "Nothing was changed yet" in answer.content.decode()
    assert fake.router_spec().custom == CustomLines()


def test_haproxys_words_stand_beside_the_area_and_what_was_typed_stays(
    cluster: Cluster, fake: FakeDriver, administrator: User, asked: Any
) -> None:
    asked(False, Remark("defaults", 2, "unknown keyword 'tymeout'"), Remark("", 0, "and more"))
    answer = sign_in(administrator).post(
        reverse("cluster-lines", args=["local"]), {"defaults": "# mine\ntymeout client 30s"}
    )
    assert answer.status_code == 422
    errors = answer.context["form"].errors
    assert errors["defaults"] == ["Line 2: unknown keyword 'tymeout'"]
    assert errors["__all__"] == ["and more"]
    assert "tymeout client 30s" in answer.content.decode()
    assert fake.router_spec().custom == CustomLines()


def test_a_refusal_without_words_is_said_too(
    cluster: Cluster, fake: FakeDriver, administrator: User, asked: Any
) -> None:
    asked(False)
    answer = sign_in(administrator).post(
        reverse("cluster-lines", args=["local"]), {"defaults": "# mine"}
    )
    assert answer.status_code == 422
    assert fake.router_spec().custom == CustomLines()


def test_a_line_that_breaks_out_is_refused_before_haproxy_is_asked(
    cluster: Cluster, administrator: User, asked: Any
) -> None:
    calls = asked(True)
    answer = sign_in(administrator).post(
        reverse("cluster-lines", args=["local"]), {"frontend": "# a\nbackend mine"}
    )
    assert answer.status_code == 422
    assert answer.context["form"].errors["frontend"][0].startswith("Line 2: “backend”")
    assert calls == []


def test_without_the_router_nothing_is_saved(
    cluster: Cluster, fake: FakeDriver, administrator: User, asked: Any
) -> None:
    asked(away=True)
    answer = sign_in(administrator).post(
        reverse("cluster-lines", args=["local"]), {"defaults": "timeout client 30s"}
    )
    assert answer.status_code == 422
    assert "Nothing was saved" in answer.content.decode()
    assert "timeout client 30s" in answer.content.decode()
    assert fake.router_spec().custom == CustomLines()


@pytest.mark.parametrize(
    ("generation", "wanted", "problem", "row", "state"),
    [
        (3, 3, "", 3, "applied"),
        (2, 3, "", 3, "applying"),
        (2, 2, "", 3, "applying"),
        (4, 4, "", 3, "applied"),
        (2, 3, "HAProxy refuses", 3, "refused"),
    ],
)
def test_three_generations_make_a_state(
    generation: int, wanted: int, problem: str, row: int, state: str
) -> None:
    assert router_view.judged(generation, wanted, problem, row).state == state


def test_haproxys_refusal_is_told_to_administrators_only(
    cluster: Cluster, viewer: User, administrator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    Cluster.objects.update(router_generation=2)
    words = "unknown keyword 'secret'"
    monkeypatch.setattr(admin_client, "status", lambda socket: Status(1, 2, words))
    for person, told in ((viewer, False), (administrator, True)):
        page = sign_in(person).get(reverse("cluster-detail", args=["local"])).content.decode()
        assert "Refused" in page
        assert ("unknown keyword" in page) is told


def test_an_open_page_asks_on_until_the_router_follows(
    cluster: Cluster, deployer: User, administrator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = reverse("cluster-setup", args=["local"])
    assert sign_in(deployer).get(url).status_code == 403
    client = sign_in(administrator)
    for status, words, asks in (
        (Status(1, 2), "within a few seconds", True),
        (Status(2, 2), "runs with the settings below", False),
        (Status(1, 2, "unknown keyword"), "unknown keyword", False),
    ):
        monkeypatch.setattr(admin_client, "status", lambda socket, status=status: status)
        part = client.get(url).content.decode()
        assert words in part
        assert ("every 1s" in part) is asks


def test_a_router_that_is_away_is_unknown(cluster: Cluster, administrator: User) -> None:
    Cluster.objects.update(
        router_generation=2, custom_lines=json.loads('{"defaults": ["# a", ""]}')
    )
    page = sign_in(administrator).get(reverse("cluster-detail", args=["local"])).content.decode()
    assert "Unknown" in page
    assert re.search(r"Own HAProxy lines</dt><dd>1\b", page)
