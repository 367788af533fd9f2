"""Who changed what, when, with the values before and after. Read only."""

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from deployments.audit.models import AuditEntry
from portal.access import requires
from portal.diff import diff
from portal.forms.audit import AuditFilter
from portal.models import Role

PAGE = 50


@require_safe
@requires(Role.ADMINISTRATOR)
def audit_list(request: HttpRequest) -> HttpResponse:
    form = AuditFilter(request.GET)
    entries = AuditEntry.objects.filter(form.query()).order_by("-at", "-pk")
    page = Paginator(entries, PAGE).get_page(request.GET.get("page"))
    query = request.GET.copy()
    query.pop("page", None)
    context = {
        "form": form,
        "page": page,
        "rows": [(entry, diff(entry.before, entry.after)) for entry in page],
        "query": query.urlencode(),
        "filtered": any(form.cleaned_data.values()) if form.is_valid() else True,
    }
    return render(request, "audit/list.html", context)
