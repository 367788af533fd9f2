"""Signing in and the people of the portal."""

from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from portal.access import requires
from portal.models import Role


class SignIn(LoginView):
    template_name = "people/login.html"
    redirect_authenticated_user = True


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
