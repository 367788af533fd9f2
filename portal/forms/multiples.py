"""Query strings of the small charts of all services."""

from typing import Any

from django import forms

from router.telemetry.multiples import BY_KEY, SPANS, Span

DEFAULT_SPAN = "15m"
MOST_NAMES = 100


class MultiplesForm(forms.Form):
    """Which services (by name, apart by commas), over which span, and from where on."""

    span = forms.ChoiceField(choices=[(item.key, item.label) for item in SPANS], required=False)
    names = forms.CharField(required=False, max_length=34 * MOST_NAMES)
    after = forms.IntegerField(min_value=0, required=False)

    def clean_names(self) -> list[str]:
        names = list(filter(None, self.cleaned_data["names"].split(",")))
        if len(names) > MOST_NAMES:
            raise forms.ValidationError(f"At most {MOST_NAMES} services at once.")
        return names

    def chosen(self) -> Span:
        """The span asked for; of a valid form."""
        return BY_KEY[self.cleaned_data["span"] or DEFAULT_SPAN]


def span_of(data: Any) -> Span:
    """The span of a page's query string; one that is unknown is the shortest."""
    return BY_KEY.get(data.get("span", ""), BY_KEY[DEFAULT_SPAN])
