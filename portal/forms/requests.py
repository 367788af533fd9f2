"""The search of the request log."""

from django import forms

from router.telemetry.requests import Search

CODES = (
    ("", "Any"),
    ("2xx", "2xx good"),
    ("4xx", "4xx client's error"),
    ("5xx", "5xx all failures"),
    ("401", "401 key refused"),
    ("502", "502 failed"),
    ("503", "503 overloaded or not ready"),
    ("504", "504 timed out"),
)


class RequestSearch(forms.Form):
    """Query string of the Requests tab; `before` and `after` are rows that the page already has."""

    q = forms.CharField(
        max_length=100,
        required=False,
        label="Id",
        help_text="The request's or its client's, whole.",
    )
    code = forms.ChoiceField(choices=CODES, required=False, label="Answer")
    version = forms.CharField(max_length=63, required=False, label="Version")
    who = forms.CharField(max_length=300, required=False, label="Who")
    slower = forms.IntegerField(min_value=0, required=False, label="Slower than, ms")
    since = forms.DateTimeField(required=False, label="From")
    until = forms.DateTimeField(required=False, label="To")
    before = forms.IntegerField(min_value=1, required=False)
    after = forms.IntegerField(min_value=0, required=False)

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.fields["q"].widget.attrs |= {"placeholder": "request id", "autocomplete": "off"}
        self.fields["who"].widget.attrs["placeholder"] = "primary, token:ann"
        for name in ("since", "until"):
            self.fields[name].widget = forms.DateTimeInput(
                attrs={"type": "datetime-local", "step": "1"}, format="%Y-%m-%dT%H:%M:%S"
            )

    def search(self) -> Search:
        """What is looked for; of a valid form."""
        values = self.cleaned_data
        since, until = values["since"], values["until"]
        return Search(
            text=values["q"].strip(),
            code=values["code"],
            version=values["version"].strip(),
            who=values["who"].strip(),
            since=None if since is None else since.timestamp(),
            until=None if until is None else until.timestamp(),
            slower=values["slower"],
        )
