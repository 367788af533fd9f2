"""Query strings of the metrics pages."""

from django import forms

from deployments.services.models import version_name_validator
from router.telemetry.queries import BY_KEY, RANGES, Range

DEFAULT_RANGE = "30m"


def _version() -> forms.CharField:
    """One version's figures, or those of all together when empty."""
    return forms.CharField(required=False, max_length=32, validators=[version_name_validator])


class ChartForm(forms.Form):
    """Which range of a chart, of which version, and from where on."""

    version = _version()

    range = forms.ChoiceField(choices=[(item.key, item.label) for item in RANGES], required=False)
    # The newest bucket and the newest decision that the page already has.
    after = forms.IntegerField(min_value=0, required=False)
    decision = forms.IntegerField(min_value=0, required=False)
    # A moment in the past to show in the middle, epoch seconds; without it the range ends at now.
    around = forms.FloatField(min_value=0, max_value=1e11, required=False)

    def span(self) -> Range:
        """The range asked for; of a valid form."""
        return BY_KEY[self.cleaned_data["range"] or DEFAULT_RANGE]
