"""The admin panel, for administrators: it shows what is kept; the portal's pages change it.

Signing in and out and passwords are the portal's, so that one limit on tries and one audit hold.
"""

from typing import Any

from django.contrib import admin
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from portal.access import allows
from portal.models import Role


class SlipwayAdminSite(admin.AdminSite):
    site_header = "Slipway administration"
    site_title = "Slipway"
    index_title = "Everything that is kept"
    site_url = None  # the template links to the portal by its name

    def has_permission(self, request: HttpRequest) -> bool:
        return allows(request.user, Role.ADMINISTRATOR)

    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The portal's own page; somebody signed in without the role is told which it takes."""
        if request.user.is_authenticated and not self.has_permission(request):
            raise PermissionDenied(
                "The admin panel needs the role administrator. Ask an administrator for it."
            )
        return redirect_to_login(request.GET.get("next") or reverse("admin:index"))

    def logout(  # type: ignore[override]  # a plain response does
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        from portal.views.people import SignOut

        return SignOut.as_view()(request)

    def password_change(  # type: ignore[override]
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return redirect("password")
