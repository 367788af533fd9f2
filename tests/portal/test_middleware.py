"""Headers of every page, pages for errors, and who is told what."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import HttpRequest, HttpResponse
from django.test import AsyncRequestFactory, Client, RequestFactory, override_settings
from django.urls import include, path

from deployments.errors import Conflict, InvalidInput, NotFound, SlipwayError, Unavailable
from portal.context import THEME_COOKIE
from portal.middleware import StaticFilesMiddleware
from portal.models import User


def _raiser(error: Exception) -> Callable[[HttpRequest], HttpResponse]:
    def view(request: HttpRequest) -> HttpResponse:
        raise error

    return view


urlpatterns = [
    path("", include("portal.urls")),
    path("missing/", _raiser(NotFound("There is no model churn; look at the list."))),
    path("busy/", _raiser(Conflict("A deployment is running.", code="ServiceBusy"))),
    path("bad/", _raiser(InvalidInput("No such range."))),
    path("away/", _raiser(Unavailable("The router is not there.", delay=7))),
    path("odd/", _raiser(SlipwayError("Odd."))),
    path("bug/", _raiser(ZeroDivisionError())),
    path("tampered/", _raiser(SuspiciousOperation("x"))),
    path("refused/", _raiser(PermissionDenied())),
]
here = override_settings(ROOT_URLCONF=__name__)


@pytest.fixture
def signed_in(client: Client, viewer: User) -> Client:
    client.force_login(viewer)
    client.raise_request_exception = False
    return client


def test_the_policy_lets_nothing_in_from_elsewhere_and_nothing_inline(
    client: Client, db: None
) -> None:
    for url in ("/login/", "/no-such-page/"):
        headers = client.get(url).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "camera=()" in headers["Permissions-Policy"]


@here
@pytest.mark.parametrize(
    ("url", "status", "words"),
    [("/missing/", 404, "There is no model churn"), ("/busy/", 409, "ServiceBusy"),
     ("/bad/", 400, "No such range."), ("/away/", 503, "Try again"), ("/odd/", 500, "Odd."),
     ("/bug/", 500, "Something broke in the portal"), ("/tampered/", 400, "did not understand"),
     ("/refused/", 403, "Your role does not allow this"), ("/nowhere/", 404, "Nothing is moored here")],
)  # fmt: skip
def test_each_error_is_a_page_in_the_design(
    url: str, status: int, words: str, signed_in: Client
) -> None:
    response = signed_in.get(url)
    assert response.status_code == status
    assert words in response.content.decode()
    assert "css/app" in response.content.decode()


@here
def test_what_may_pass_says_when_to_come_back(signed_in: Client) -> None:
    assert signed_in.get("/away/").headers["Retry-After"] == "7"
    assert "Retry-After" not in signed_in.get("/missing/").headers


@here
def test_htmx_gets_the_sentence_alone(signed_in: Client) -> None:
    response = signed_in.get("/busy/", headers={"HX-Request": "true"})
    assert response.status_code == 409
    assert response.headers["Content-Type"].startswith("text/plain")
    assert response.content.decode() == "A deployment is running."


@here
def test_the_way_back_never_leads_to_another_site(signed_in: Client) -> None:
    html = signed_in.get(
        "/bad/", headers={"Referer": "https://evil.example/services/"}
    ).content.decode()
    assert "evil.example" not in html
    assert 'href="/services/"' in html


def test_a_form_without_its_token_is_a_page_too(viewer: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(viewer)
    response = client.post("/logout/")
    assert response.status_code == 403
    assert "This form has expired" in response.content.decode()


def test_a_stranger_who_meets_a_404_sees_no_navigation(client: Client, db: None) -> None:
    html = client.get("/no-such-page/").content.decode()
    assert "Nothing is moored here" in html
    assert 'aria-label="Main"' not in html


@pytest.mark.parametrize(
    ("cookie", "attribute"),
    [
        ("dark", 'data-theme="dark"'),
        ("light", 'data-theme="light"'),
        ("auto", None),
        ('"><script>', None),
    ],
)
def test_the_first_paint_has_the_chosen_colours(
    cookie: str, attribute: str | None, client: Client, db: None
) -> None:
    client.cookies[THEME_COOKIE] = cookie
    head = client.get("/login/").content.decode().partition("<body")[0]
    assert (attribute in head) if attribute else ("data-theme" not in head)


def test_the_navigation_marks_where_one_is(client: Client, administrator: User) -> None:
    client.force_login(administrator)
    html = client.get("/people/add/").content.decode()
    assert html.count("aria-current=") == 1
    assert '<a href="/people/" aria-current="true">' in html
    assert '<a href="/people/" aria-current="page">' in client.get("/people/").content.decode()


def test_a_viewer_is_not_shown_administration(client: Client, viewer: User) -> None:
    client.force_login(viewer)
    html = client.get("/password/").content.decode()
    assert "/audit/" not in html
    assert "/people/" not in html


def test_the_htmx_settings_are_json_and_forbid_eval(client: Client, db: None) -> None:
    html = client.get("/login/").content.decode()
    text = html.partition('name="htmx-config" content=\'')[2].partition("'")[0]
    config = json.loads(text)
    assert config["allowEval"] is False
    assert config["includeIndicatorStyles"] is False


def test_the_context_works_without_a_resolved_url(rf: RequestFactory) -> None:
    from portal.context import site

    request = rf.get("/")
    request.resolver_match = None
    assert not any(item.active for item in site(request)["nav"])


@pytest.mark.filterwarnings("error")
def test_static_files_are_streamed_without_a_warning_under_asgi(settings, tmp_path: Path) -> None:
    settings.STATIC_ROOT = tmp_path
    (tmp_path / "app.css").write_text("body{}")

    async def answer(method: str, **headers: str) -> tuple[int, bytes]:
        request = AsyncRequestFactory().generic(method, "/static/app.css", headers=headers)
        response = StaticFilesMiddleware(lambda request: HttpResponse(status=500))(request)
        assert response.is_async
        body = b"".join([chunk async for chunk in response])
        response.close()
        return response.status_code, body

    assert async_to_sync(answer)("GET") == (200, b"body{}")
    assert async_to_sync(answer)("GET", Range="bytes=0-3") == (206, b"body")
    assert async_to_sync(answer)("HEAD") == (200, b"")


def test_static_files_are_plain_files_under_wsgi(
    rf: RequestFactory, settings, tmp_path: Path, db: None
) -> None:
    settings.STATIC_ROOT = tmp_path
    (tmp_path / "app.css").write_text("body{}")
    middleware = StaticFilesMiddleware(lambda request: HttpResponse(status=500))
    response = middleware(rf.get("/static/app.css"))
    assert b"".join(response) == b"body{}"
    response.close()
    assert middleware(rf.get("/elsewhere/")).status_code == 500
