"""Forms of a cluster's router: its certificate, its plain port, HAProxy lines of a person's own.

They check and convert. A private key that was sent goes into no page again, not even beside an error.
"""

from typing import Any

from django import forms
from django.http import QueryDict

from deployments.clusters import custom
from deployments.clusters.router_changes import MOST_CORES
from deployments.clusters.tls import LONGEST_TEXT
from deployments.types import CustomLines

_PEM = {"rows": 5, "spellcheck": "false", "autocomplete": "off", "wrap": "off", "class": "mono"}


class _Unshown(forms.Textarea):
    """A text that never comes back into a page."""

    def format_value(self, value: Any) -> None:
        return None


class TlsForm(forms.Form):
    """A chain and its key, each as a file or pasted. `cleaned_data["chain"]` and `["key"]` are texts."""

    cname = forms.CharField(
        label="Name (cname)",
        max_length=253,
        widget=forms.TextInput(
            attrs={
                "autocomplete": "off",
                "spellcheck": "false",
                "placeholder": "score.example.com",
            }
        ),
        help_text="Scoring addresses begin with it, and the certificate must be for it.",
    )
    chain_file = forms.FileField(
        label="Certificate chain",
        required=False,
        allow_empty_file=True,
        widget=forms.FileInput(attrs={"accept": ".pem,.crt,.cer"}),
        help_text="PEM: the server’s own certificate first, then each one’s issuer.",
    )
    chain = forms.CharField(
        label="Or paste the chain",
        required=False,
        widget=forms.Textarea({**_PEM, "placeholder": "-----BEGIN CERTIFICATE-----"}),
    )
    key_file = forms.FileField(
        label="Private key",
        required=False,
        allow_empty_file=True,
        widget=forms.FileInput(attrs={"accept": ".pem,.key"}),
        help_text="PEM. It is stored encrypted and never shown again.",
    )
    key = forms.CharField(
        label="Or paste the key",
        required=False,
        widget=_Unshown({**_PEM, "placeholder": "-----BEGIN PRIVATE KEY-----"}),
    )
    passphrase = forms.CharField(
        label="The key’s passphrase",
        required=False,
        strip=False,
        max_length=1000,
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text="Only when the key is encrypted. It is used once and not kept.",
    )
    plain_http = forms.BooleanField(
        label="Also answer plain HTTP",
        required=False,
        help_text="Keys and tokens then travel readable for who listens in. Without it the plain port "
        "answers 403 (HttpsRequired).",
    )

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        for name, what in (("chain", "certificate chain"), ("key", "private key")):
            data[name] = self._text(data, name, what)
        return data

    def _text(self, data: dict[str, Any], name: str, what: str) -> str:
        file, pasted = data.get(f"{name}_file"), data.get(name) or ""
        if file is None:
            return pasted
        if pasted.strip():
            self.add_error(name, f"There is a file and a pasted text; give the {what} once.")
            return ""
        if file.size > LONGEST_TEXT:
            self.add_error(f"{name}_file", f"The file is too large for a {what}.")
            return ""
        try:
            text = str(file.read().decode("utf-8-sig"))
        except UnicodeDecodeError:
            self.add_error(
                f"{name}_file",
                f"The file is not text in PEM; a DER or PKCS 12 {what} is converted with openssl.",
            )
            return ""
        if name == "chain":  # no secret: it stands in the page, should anything be wrong
            data = QueryDict(mutable=True)
            data.update(self.data)
            data["chain"] = text
            self.data = data
        return text

    def place(self, field: str) -> str | None:
        """The field a problem is shown beside: for a key in a file, the file's."""
        if field == "key" and self.files.get("key_file"):
            return "key_file"
        return field if field in self.fields else None


class PlainHttpForm(forms.Form):
    plain_http = forms.BooleanField(required=False)


class LinesForm(forms.Form):
    """Four areas of lines. `lines` is what was typed, by section."""

    global_section = forms.CharField(
        label="global",
        required=False,
        strip=False,
        max_length=200_000,
        help_text="Process-wide: logging, tuning, TLS ciphers. They come after Slipway’s, and win.",
    )
    defaults = forms.CharField(
        label="defaults",
        required=False,
        strip=False,
        max_length=200_000,
        help_text="Timeouts and options of every frontend and backend. They come after Slipway’s, and win.",
    )
    frontend = forms.CharField(
        label="frontend",
        required=False,
        strip=False,
        max_length=200_000,
        help_text="What a request meets first, before its route and its key are looked at.",
    )
    backend = forms.CharField(
        label="backend",
        required=False,
        strip=False,
        max_length=200_000,
        help_text="Every backend of replicas has these lines.",
    )

    _EXAMPLES = {
        "global_section": "log 10.0.0.5:514 local0 notice",
        "defaults": "timeout client 90s",
        "frontend": "http-request deny deny_status 403 unless { src 10.0.0.0/8 127.0.0.0/8 }",
        "backend": "http-response set-header strict-transport-security max-age=31536000",
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for area in custom.AREAS:
            self.fields[area].widget = forms.Textarea(
                {
                    "rows": 5,
                    "wrap": "off",
                    "spellcheck": "false",
                    "autocomplete": "off",
                    "class": "mono",
                    "placeholder": self._EXAMPLES[area],
                }
            )

    @property
    def lines(self) -> CustomLines:
        return custom.read({area: self.cleaned_data.get(area, "") for area in custom.AREAS})


class CoresForm(forms.Form):
    """How many cores a router may use; empty is all of its machine's."""

    cores = forms.IntegerField(
        label="Cores the router may use",
        required=False,
        min_value=1,
        max_value=MOST_CORES,
        help_text="Its threads at most. Empty: as many as its machine has.",
    )
