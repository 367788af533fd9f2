"""Forms of the services pages but the deployment form: filter, access, confirmations, a try.

A form checks and converts; it stores nothing.
"""

import json
from typing import Any

from django import forms

from deployments.errors import InvalidInput
from deployments.services import cors
from deployments.services.models import Service, version_name_validator
from deployments.types import ServiceState
from portal.forms.fields import set_choices

LARGEST_BODY = 100 * 10**6  # bytes; the router's limit


class ServiceFilter(forms.Form):
    """The query string of the list."""

    q = forms.CharField(
        required=False,
        max_length=100,
        widget=forms.TextInput(
            attrs={"type": "search", "placeholder": "Name, description or model"}
        ),
    )
    state = forms.ChoiceField(
        required=False,
        choices=[("", "Every state"), *((state.value, state.value) for state in ServiceState)],
    )
    cluster = forms.CharField(required=False, max_length=24)


class AccessForm(forms.Form):
    """Who may call a service, and from which pages."""

    auth_enabled = forms.BooleanField(
        label="Requests may bring a key",
        required=False,
        help_text="Either of the service’s two keys lets a request in.",
    )
    token_auth_enabled = forms.BooleanField(
        label="Requests may bring a token",
        required=False,
        help_text="Tokens are issued under Consume; each expires by itself. Keys and tokens may both "
        "be on. With neither, anyone who reaches the router may score.",
    )
    cors_origins = forms.CharField(
        label="Web pages that may call it (CORS)",
        required=False,
        max_length=4000,
        widget=forms.Textarea(
            attrs={"rows": 3, "placeholder": "https://app.example.com", "spellcheck": "false"}
        ),
        help_text="One origin a line, such as https://app.example.com, or * for every page. Empty: no "
        "page of another origin. The router answers the browser’s question (OPTIONS) itself.",
    )

    def clean_cors_origins(self) -> list[str]:
        text = self.cleaned_data["cors_origins"].replace(",", "\n")
        try:
            return list(cors.origins(line for line in text.splitlines() if line.strip()))
        except InvalidInput as error:
            raise forms.ValidationError(error.message) from error


class DeleteForm(forms.Form):
    """The service's name, typed, so that no slip of the finger deletes it."""

    confirm = forms.CharField(label="Type the service’s name to confirm", max_length=64)

    def __init__(self, *args: Any, service: Service, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.service = service
        self.fields["confirm"].widget.attrs |= {"autocomplete": "off", "spellcheck": "false"}

    def clean_confirm(self) -> str:
        if self.cleaned_data["confirm"] != self.service.name:
            raise forms.ValidationError(f"This is not {self.service.name}; nothing was deleted.")
        return self.cleaned_data["confirm"]


class RegenerateForm(forms.Form):
    which = forms.ChoiceField(choices=[("primary", "Primary"), ("secondary", "Secondary")])


class RollBackForm(forms.Form):
    revision = forms.IntegerField(min_value=1)
    version = forms.CharField(required=False, max_length=32, validators=[version_name_validator])


class TryForm(forms.Form):
    """One request to a service. Broken JSON may be sent on purpose; it is remarked, not refused."""

    body = forms.CharField(
        label="Body",
        required=False,
        strip=False,
        max_length=4 * 2**20,
        widget=forms.Textarea(
            attrs={"rows": 14, "spellcheck": "false", "wrap": "off", "data-editor": "json"}
        ),
    )
    file = forms.FileField(
        label="Or a file as the body", required=False, help_text="Up to 100 MB; sent as it is."
    )
    content_type = forms.RegexField(
        regex=r"^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(;[ -~]*)?$",
        label="Content type",
        required=False,
        max_length=200,
        initial="application/json",
        widget=forms.TextInput(attrs={"class": "mono", "spellcheck": "false"}),
    )
    version = forms.ChoiceField(label="Version", required=False)

    def __init__(self, *args: Any, versions: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        named = [(name, name) for name in versions]
        set_choices(self, "version", [("", "As the router decides"), *named])

    def clean_file(self) -> Any:
        file = self.cleaned_data["file"]
        if file and file.size > LARGEST_BODY:
            raise forms.ValidationError(
                f"The file has {file.size / 10**6:.0f} MB; the router takes at most 100 MB."
            )
        return file

    @property
    def json_problem(self) -> str:
        """Where the body stops being JSON; empty when it is, or is not meant to be."""
        data = self.cleaned_data
        if data.get("file") or "json" not in (data.get("content_type") or "json"):
            return ""
        try:
            json.loads(data.get("body") or "")
        except ValueError as error:
            return f"The body that was sent is not JSON: {error}."
        return ""
