"""The form of the What if tab: a past range, and the settings to try on it."""

import time
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from deployments.services.config import MOST_REPLICAS
from portal.forms.fields import set_choices

SPANS = {"15m": 900, "1h": 3_600, "6h": 21_600, "24h": 86_400, "7d": 604_800}
EXACT = "exact"
_SPAN_CHOICES = (
    ("15m", "Last 15 minutes"),
    ("1h", "Last hour"),
    ("6h", "Last 6 hours"),
    ("24h", "Last 24 hours"),
    ("7d", "Last 7 days"),
    (EXACT, "Exact times"),
)
SETTINGS = ("minimum", "maximum", "target", "concurrency", "start_seconds")


def _moment() -> forms.DateTimeInput:
    return forms.DateTimeInput(
        attrs={"type": "datetime-local", "step": "1"}, format="%Y-%m-%dT%H:%M:%S"
    )


class WhatIfForm(forms.Form):
    """Settings that are left empty stay as they were in the range."""

    version = forms.ChoiceField(label="Version", required=False)
    span = forms.ChoiceField(label="Range", choices=_SPAN_CHOICES, initial="1h")
    since = forms.DateTimeField(label="From", required=False, widget=_moment())
    until = forms.DateTimeField(label="To", required=False, widget=_moment())
    minimum = forms.IntegerField(
        label="Least replicas", required=False, min_value=1, max_value=MOST_REPLICAS
    )
    maximum = forms.IntegerField(
        label="Most replicas", required=False, min_value=1, max_value=MOST_REPLICAS
    )
    target = forms.IntegerField(
        label="Target utilisation, %", required=False, min_value=1, max_value=100
    )
    concurrency = forms.IntegerField(
        label="Requests a replica takes at a time", required=False, min_value=1, max_value=1000
    )
    start_seconds = forms.FloatField(
        label="Seconds a replica takes to start",
        required=False,
        min_value=0,
        max_value=3600,
        help_text="Not a setting of the service: what if models loaded faster?",
    )
    price = forms.FloatField(
        label="Price of a replica-hour",
        required=False,
        min_value=0,
        max_value=1e6,
        help_text="In any currency; empty shows no costs.",
    )

    def __init__(self, *args: Any, versions: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        set_choices(self, "version", [(name, name) for name in versions])

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if values.get("span") == EXACT:
            for name in ("since", "until"):
                if name not in self.errors and values.get(name) is None:
                    self.add_error(name, ValidationError("Give a time, or choose another range."))
        return values

    def range(self, now: float | None = None) -> tuple[int, int]:
        """Epoch seconds from and to; of a valid form."""
        now = time.time() if now is None else now
        values = self.cleaned_data
        if values["span"] == EXACT:
            return int(values["since"].timestamp()), int(values["until"].timestamp())
        return int(now) - SPANS[values["span"]], int(now)

    def settings(self) -> dict[str, float | None]:
        return {name: self.cleaned_data[name] for name in SETTINGS}

    def add_problem(self, field: str, message: str) -> None:
        """An error of a service function, beside the field it is about."""
        self.add_error(field if field in self.fields else None, message)
