"""Signing in and the people of the portal."""

from typing import Any

from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render

from portal import live
from portal.access import requires
from portal.models import Role


class SignIn(LoginView):
    template_name = "people/login.html"
    redirect_authenticated_user = True


class SignOut(LogoutView):
    """By POST only. The person's open pages hear of it."""

    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        pk = request.user.pk
        response = super().post(request, *args, **kwargs)
        if pk is not None:
            live.signed_out(pk)
        return response


def password(request: HttpRequest) -> HttpResponse:
    return render(request, "base.html")


@requires(Role.ADMINISTRATOR)
def people_list(request: HttpRequest) -> HttpResponse:
    return render(request, "base.html")


@requires(Role.ADMINISTRATOR)
def person_add(request: HttpRequest) -> HttpResponse:
    return render(request, "base.html")


@requires(Role.ADMINISTRATOR)
def person_edit(request: HttpRequest, pk: int) -> HttpResponse:
    return render(request, "base.html")
