"""Who changed what."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from portal.access import requires
from portal.models import Role


@requires(Role.ADMINISTRATOR)
def audit_list(request: HttpRequest) -> HttpResponse:
    return render(request, "base.html")
