"""The keys that a cluster's tokens are signed with: how they stand, and making the next one."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_POST

from deployments.clusters import signing
from deployments.clusters.models import Cluster
from deployments.errors import SlipwayError
from portal.access import person, requires
from portal.models import Role


def signing_context(cluster: Cluster) -> dict[str, Any]:
    """What the card shows. `dropped` is how many valid tokens the next rotation would revoke."""
    standings = signing.standings(cluster, timezone.now())
    return {
        "cluster": cluster,
        "signing_keys": standings,
        "dropped": sum(key.tokens for key in standings[1:]),
    }


@requires(Role.VIEWER)
@require_GET
def card(request: HttpRequest, name: str) -> HttpResponse:
    cluster = get_object_or_404(Cluster, name=name)
    return render(request, "clusters/_signing.html", signing_context(cluster))


@requires(Role.ADMINISTRATOR)
@require_POST
def rotate(request: HttpRequest, name: str) -> HttpResponse:
    cluster = get_object_or_404(Cluster, name=name)
    try:
        made = signing.rotate(person(request), cluster)
    except SlipwayError as error:
        messages.error(request, error.message)
    else:
        messages.success(
            request,
            f"Key {made.kid} signs the tokens of {name} in a few seconds; those of the key before it "
            "stay valid until they expire.",
        )
    return redirect("cluster-detail", name)
