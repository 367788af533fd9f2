"""Query strings of the Decisions tab."""

import re
from datetime import datetime

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone

from deployments.services.models import version_name_validator
from router.telemetry.ledger import Cursor, Search

_KINDS = (
    ("", "Any"),
    ("up", "Scaled up"),
    ("down", "Scaled down"),
    ("prevented", "Prevented"),
)
_CURSOR = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)_(\d{1,18})")


def write_cursor(cursor: Cursor) -> str:
    return f"{cursor[0]!r}_{cursor[1]}"


class CursorField(forms.Field):
    """A row's place in the list, as `write_cursor` writes it."""

    def to_python(self, value: object) -> Cursor | None:
        text = str(value or "").strip()
        if not text:
            return None
        found = _CURSOR.fullmatch(text)
        if not found:
            raise ValidationError("This is no place in the list.")
        return float(found[1]), int(found[2])


class MomentField(forms.Field):
    """Epoch seconds, or a date and time; without an offset in the portal's zone."""

    def to_python(self, value: object) -> float | None:
        text = str(value or "").strip()
        if not text:
            return None
        try:
            if re.fullmatch(r"\d{1,12}(\.\d{1,9})?", text):
                return float(text)
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=timezone.get_current_timezone())
            return moment.timestamp()
        except (ValueError, OverflowError) as error:
            raise ValidationError("Write a time as 2026-03-01 03:12:00.") from error


class DecisionSearch(forms.Form):
    """What to list; `open` is a row to show, `at` a moment whose decision is asked for. `before`,
    `least` and `state` are what a page has already."""

    kind = forms.ChoiceField(choices=_KINDS, required=False, label="Kind")
    version = forms.CharField(
        max_length=32, required=False, label="Version", validators=[version_name_validator]
    )
    since = forms.DateTimeField(required=False, label="From")
    until = forms.DateTimeField(required=False, label="To")
    open = forms.IntegerField(min_value=1, max_value=2**63 - 1, required=False)
    at = MomentField(required=False)
    before = CursorField(required=False)
    least = CursorField(required=False)
    state = forms.CharField(max_length=200, required=False)

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        for name in ("since", "until"):
            self.fields[name].widget = forms.DateTimeInput(
                attrs={"type": "datetime-local", "step": "1"}, format="%Y-%m-%dT%H:%M:%S"
            )

    def offer(self, versions: list[str]) -> None:
        """The versions to choose from; another one may still be asked for by address."""
        asked = self.data.get("version", "")
        names = versions if asked in ("", *versions) else [*versions, asked]
        self.fields["version"].widget = forms.Select(
            choices=[("", "Any"), *((name, name) for name in names)]
        )

    def search(self) -> Search:
        """What is looked for; of a valid form."""
        values = self.cleaned_data
        since, until = values["since"], values["until"]
        return Search(
            kind=values["kind"],
            version=values["version"],
            since=None if since is None else since.timestamp(),
            until=None if until is None else until.timestamp(),
        )
