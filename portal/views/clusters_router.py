"""A cluster's router, for administrators: its certificate, and HAProxy lines of their own."""

from datetime import datetime
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from deployments.clusters import custom, router_changes, tls
from deployments.clusters.models import Cluster
from deployments.errors import InvalidInput, SlipwayError
from portal import router_view
from portal.access import person, requires
from portal.forms.router import LinesForm, PlainHttpForm, TlsForm
from portal.models import Role
from portal.router_doors import doors
from router import admin_client


def _get(name: str) -> Cluster:
    try:
        return Cluster.objects.get(name=name)
    except Cluster.DoesNotExist as error:
        raise Http404(f"There is no cluster named {name}; it may have been detached.") from error


@requires(Role.ADMINISTRATOR)
@require_GET
def setup_part(request: HttpRequest, name: str) -> HttpResponse:
    """Whether the router follows, for pages that stand open."""
    cluster = _get(name)
    context = {"cluster": cluster, "setup": router_view.setup_view(cluster)}
    return render(request, "clusters/_setup.html", context)


@sensitive_post_parameters("key", "passphrase")
@requires(Role.ADMINISTRATOR)
@never_cache
@require_http_methods(["GET", "POST"])
def tls_page(request: HttpRequest, name: str) -> HttpResponse:
    """The certificate that stands, and the form of the next one."""
    cluster, now = _get(name), timezone.now()
    if request.method == "POST":
        form = TlsForm(request.POST, request.FILES)
        if form.is_valid() and _accepted(form, now) and _set(request, cluster, form):
            return redirect("cluster-tls", name)
    else:
        form = TlsForm(initial={"cname": cluster.tls_cname, "plain_http": cluster.tls_plain_http})
    found = router_view.certificate_of(cluster)
    context = {
        "cluster": cluster,
        "form": form,
        "tls": router_view.tls_view(cluster, now),
        "certificate": found,
        "notes": tls.notes(found, now) if found else [],
        "setup": router_view.setup_view(cluster),
    }
    status = 422 if form.errors else 200
    return render(request, "clusters/tls.html", context, status=status)


def _accepted(form: TlsForm, now: datetime) -> bool:
    """Says all problems at once, each beside its field."""
    data = form.cleaned_data
    cname = data["cname"].strip().lower().rstrip(".")
    for problem in tls.problems(data["chain"], data["key"], cname, now, data["passphrase"]):
        form.add_error(form.place(problem.field), problem.message)
    return not form.errors


def _set(request: HttpRequest, cluster: Cluster, form: TlsForm) -> bool:
    data = form.cleaned_data
    values = {name: data[name] for name in ("cname", "chain", "key", "passphrase", "plain_http")}
    first = not cluster.tls_chain
    try:
        router_changes.set_tls(person(request), cluster, **values)
    except InvalidInput as error:
        form.add_error(form.place(error.field), error.message)
        return False
    except SlipwayError as error:
        form.add_error(None, error.message)
        return False
    after = (
        "the router answers TLS in a moment. Services have new addresses: tell their clients."
        if first
        else "new connections get it within a second; no request is interrupted."
    )
    messages.success(request, f"{cluster.name} has the certificate for {data['cname']}; {after}")
    return True


@requires(Role.ADMINISTRATOR)
@require_POST
def plain_http(request: HttpRequest, name: str) -> HttpResponse:
    cluster = _get(name)
    form = PlainHttpForm(request.POST)
    form.is_valid()
    wanted = form.cleaned_data["plain_http"]
    try:
        router_changes.set_plain_http(person(request), cluster, wanted)
    except SlipwayError as error:
        messages.error(request, error.message)
    else:
        said = "scores beside TLS" if wanted else "answers 403 (HttpsRequired)"
        messages.success(request, f"The plain port of {name} {said} in a moment.")
    return redirect("cluster-tls", name)


@requires(Role.ADMINISTRATOR)
@require_POST
def tls_remove(request: HttpRequest, name: str) -> HttpResponse:
    cluster = _get(name)
    try:
        router_changes.remove_tls(person(request), cluster)
    except SlipwayError as error:
        messages.error(request, error.message)
        return redirect("cluster-tls", name)
    messages.success(
        request, f"{name} has no certificate any more; its services have plain addresses again."
    )
    return redirect("cluster-detail", name)


@requires(Role.ADMINISTRATOR)
@never_cache
@require_http_methods(["GET", "POST"])
def lines_page(request: HttpRequest, name: str) -> HttpResponse:
    """HAProxy lines of a person's own: checked by HAProxy itself before they are kept."""
    cluster = _get(name)
    warnings: list[str] = []
    if request.method == "POST":
        form = LinesForm(request.POST)
        if form.is_valid() and _agreed(cluster, form, warnings):
            if "try" not in request.POST:
                return _kept(request, cluster, form, warnings)
            messages.success(request, "HAProxy takes these lines. Nothing was changed yet.")
    else:
        form = LinesForm(initial=custom.texts(router_changes.custom_lines_of(cluster)))
    context = {
        "cluster": cluster,
        "form": form,
        "warnings": warnings,
        "setup": router_view.setup_view(cluster),
    }
    status = 422 if form.errors else 200
    return render(request, "clusters/lines.html", context, status=status)


def _agreed(cluster: Cluster, form: LinesForm, warnings: list[str]) -> bool:
    """Whether Slipway and HAProxy take the lines; what they say stands in the form."""
    if found := custom.problems(form.lines):
        for remark in found:
            form.add_error(remark.area, str(remark))
        return False
    try:
        ok, remarks = admin_client.check(doors(cluster).leader, form.lines)
    except SlipwayError as error:
        form.add_error(
            None,
            f"Nothing was saved: HAProxy could not be asked about the lines. {error.message}",
        )
        return False
    for remark in remarks:
        if ok:
            warnings.append(_placed(remark))
        else:
            form.add_error(remark.area or None, str(remark))
    if not ok and not form.errors:
        form.add_error(None, "HAProxy refuses the configuration with these lines.")
    return ok


def _placed(remark: custom.Remark) -> str:
    area = custom.AREA_WORDS.get(remark.area, "")
    return f"{area}, {str(remark)[:1].lower()}{str(remark)[1:]}" if area else str(remark)


def _kept(
    request: HttpRequest, cluster: Cluster, form: LinesForm, warnings: list[str]
) -> HttpResponse:
    try:
        router_changes.set_custom_lines(person(request), cluster, form.lines)
    except SlipwayError as error:
        messages.error(request, error.message)
    else:
        messages.success(request, "HAProxy takes these lines; the router has them in a moment.")
        for words in warnings:
            messages.warning(request, f"HAProxy remarks: {words}")
    return redirect("cluster-lines", cluster.name)


def router_context(cluster: Cluster) -> dict[str, Any]:
    """What the cluster's page shows of its router. Asks the router for at most a second."""
    asks = cluster.router_generation > 0
    return {
        "tls": router_view.tls_view(cluster, timezone.now()),
        "line_count": router_view.line_counts(cluster),
        "setup": router_view.setup_view(cluster) if asks else None,
    }
