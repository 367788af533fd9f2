"""Every component on one page, for whoever changes the stylesheet. Served under DEBUG only."""

from datetime import timedelta

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from portal.access import requires
from portal.models import Role
from portal.templatetags.slipway import ICONS

STATES = (
    "Healthy",
    "Transitioning",
    "Unhealthy",
    "Unschedulable",
    "Failed",
    "queued",
    "running",
    "rolling",
    "succeeded",
    "cancelled",
    "ready",
    "building",
    "removed",
    "scheduling",
    "pulling",
    "starting",
    "loading",
    "draining",
    "stopped",
    "crashed",
    "pass",
    "fail",
    "unknown",
)


class ExampleForm(forms.Form):
    name = forms.CharField(help_text="3 to 32 of a-z, 0-9 and '-'.")
    purpose = forms.ChoiceField(choices=[("dev", "Dev-test"), ("fast", "FastProd")])
    cpu = forms.FloatField(label="CPU cores", initial=0.1)
    memory = forms.FloatField(label="Memory (GiB)", initial=0.5)
    autoscale = forms.BooleanField(required=False, help_text="Between the two limits.")
    auth = forms.ChoiceField(
        choices=[("key", "Key"), ("token", "Token")], widget=forms.RadioSelect, label="Let in by"
    )
    score = forms.CharField(
        widget=forms.Textarea(attrs={"class": "code", "rows": 6}), label="score.py", required=False
    )


@requires(Role.VIEWER)
def styleguide(request: HttpRequest) -> HttpResponse:
    now = timezone.now()
    return render(
        request,
        "portal/styleguide.html",
        {
            "form": ExampleForm({"name": "", "cpu": "x", "purpose": "dev", "auth": "key"}),
            "states": STATES,
            "icons": sorted(ICONS),
            "times": [now, now - timedelta(minutes=3), now - timedelta(days=2), None],
            "figures": [3, 4, 8, 6, None, None, 12, 14, 9, 10, 11, 16, 18, 12, 9, 7],
        },
    )
