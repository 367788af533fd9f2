"""What runs, how it does, and what happened last: the first page."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from portal.access import requires
from portal.models import Role


@requires(Role.VIEWER)
def overview(request: HttpRequest) -> HttpResponse:
    return render(request, "base.html")
