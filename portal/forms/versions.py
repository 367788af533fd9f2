"""Forms of a service's versions: their shares, and the name of one."""

from typing import Any

from django import forms

from deployments.services.models import version_name_validator


class VersionNameForm(forms.Form):
    """Which version is meant."""

    version = forms.CharField(max_length=32, validators=[version_name_validator])


class TrafficForm(forms.Form):
    """A number for each version but the default; `shares` of a valid form are what was given.

    Fields are named after their version, with `share-` before it.
    """

    def __init__(self, *args: Any, shares: dict[str, int], locked: set[str], **kwargs: Any) -> None:
        """`shares`: percent by version's name; `locked`: those that cannot take requests yet."""
        super().__init__(*args, **kwargs)
        for name, percent in shares.items():
            closed = name in locked
            self.fields[f"share-{name}"] = forms.IntegerField(
                label=name,
                initial=percent,
                min_value=0,
                max_value=100,
                disabled=closed,
                error_messages={
                    "required": "Give a number, 0 for no requests.",
                    "invalid": "Give a whole number of percent.",
                    "min_value": "A share is between 0 and 100.",
                    "max_value": "A share is between 0 and 100.",
                },
                help_text="No deployment of it has succeeded yet." if closed else "",
                widget=forms.NumberInput(
                    attrs={"data-share": name, "inputmode": "numeric", "min": 0, "max": 100}
                ),
            )

    @property
    def shares(self) -> dict[str, int]:
        return {
            name.removeprefix("share-"): value
            for name, value in self.cleaned_data.items()
            if not self.fields[name].disabled
        }

    def add_problem(self, version: str, message: str) -> None:
        """A room's complaint, beside the version it is about."""
        field = f"share-{version}"
        self.add_error(field if field in self.fields else None, message)
