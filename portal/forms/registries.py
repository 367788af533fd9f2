"""Forms of the registries' pages. They check and convert; `deployments.images.registries` decides."""

from typing import Any

from django import forms

from deployments.images.models import Registry


def _plain(**attributes: str) -> forms.TextInput:
    return forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", **attributes})


class RegistryForm(forms.Form):
    """A registry. A stored password is never shown: an empty field keeps it."""

    name = forms.CharField(max_length=60, widget=_plain(), help_text="What pages and logs call it.")
    role = forms.ChoiceField(
        label="Kind", choices=Registry.Role.choices, widget=forms.RadioSelect, initial="workspace"
    )
    address = forms.CharField(
        max_length=255,
        widget=_plain(placeholder="registry.example.com", **{"class": "mono"}),
        help_text="Host, and port where it is not 443. Docker Hub is <code>docker.io</code>.",
    )
    repository = forms.CharField(
        required=False,
        max_length=200,
        initial="slipway",
        widget=_plain(**{"class": "mono"}),
        help_text="Images are <code>&lt;repository&gt;/env:&lt;hash&gt;</code>.",
    )
    plain_http = forms.BooleanField(
        required=False,
        label="Plain http, without TLS",
        help_text="Only on a loopback address of this machine, such as 127.0.0.1:5000.",
    )
    username = forms.CharField(
        required=False, max_length=200, widget=_plain(), help_text="Empty: without signing in."
    )
    password = forms.CharField(
        required=False,
        max_length=4096,
        strip=False,
        label="Password or token",
        widget=forms.PasswordInput(render_value=False, attrs={"autocomplete": "new-password"}),
        help_text="Kept encrypted and never shown.",
    )
    forget_password = forms.BooleanField(required=False, label="Forget the stored password")

    def __init__(self, *args: Any, stored: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if stored:
            self.fields["password"].help_text = (
                "One is stored, encrypted, and never shown. Empty keeps it; another address or user needs it "
                "again."
            )
        else:
            del self.fields["forget_password"]


def initial_from(registry: Registry) -> dict[str, Any]:
    """The form's values for this row; its password is not among them."""
    names = ("name", "role", "address", "repository", "plain_http", "username")
    return {name: getattr(registry, name) for name in names}
