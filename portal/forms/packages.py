"""Forms of an environment's packages, and of what a cluster refuses."""

from django import forms

from deployments.clusters.models import Severity
from deployments.images.findings import SEVERITIES

VENV, IMAGE = "venv", "image"


class PackagesFilter(forms.Form):
    """The query string of the page."""

    q = forms.CharField(
        required=False,
        max_length=100,
        widget=forms.TextInput(attrs={"type": "search", "placeholder": "Package or vulnerability"}),
    )
    severity = forms.ChoiceField(
        required=False,
        choices=[("", "Every severity"), *((word, word.capitalize()) for word in SEVERITIES)],
    )
    of = forms.ChoiceField(required=False, choices=[("", ""), (VENV, VENV), (IMAGE, IMAGE)])


class RefusingForm(forms.Form):
    """What a cluster refuses."""

    refuse_severity = forms.ChoiceField(
        label="Refuse what has known vulnerabilities that are",
        required=False,
        choices=[
            ("", "(refuse nothing)"),
            (Severity.CRITICAL.value, "critical"),
            (Severity.HIGH.value, "high or critical"),
            (Severity.MEDIUM.value, "medium or worse"),
            (Severity.LOW.value, "low or worse"),
        ],
        help_text="A deployment whose environment has one fails before it is pushed or applied, and names "
        "the worst. What runs already goes on.",
    )
