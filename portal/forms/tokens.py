"""Forms of a service's tokens. A form checks and converts; it stores nothing."""

from datetime import timedelta
from typing import Any

from django import forms

from deployments.services import tokens

_UNITS = {"minutes": 60, "hours": 3600, "days": 86400}


class IssueTokenForm(forms.Form):
    """Who a token is for and how long it lives. `cleaned_data["life"]` is the timedelta."""

    subject = forms.CharField(
        label="For",
        max_length=100,
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "spellcheck": "false", "placeholder": "nightly-batch"}
        ),
        help_text="Who or what will use it: named in this list and in the request log.",
    )
    lifetime = forms.IntegerField(label="Valid for", min_value=1, max_value=100_000, initial=12)
    unit = forms.ChoiceField(
        label="Unit", choices=[(name, name) for name in _UNITS], initial="hours"
    )

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if data.get("lifetime") and data.get("unit"):
            life = timedelta(seconds=data["lifetime"] * _UNITS[data["unit"]])
            if life > tokens.LONGEST:
                self.add_error(
                    "lifetime", f"A token is valid for at most {tokens.LONGEST.days} days."
                )
            data["life"] = life
        return data


class TokenSwitchForm(forms.Form):
    enabled = forms.BooleanField(required=False)


class RevokeForm(forms.Form):
    jti = forms.RegexField(r"^[0-9a-f]{32}$")
