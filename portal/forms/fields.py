"""Form fields that several nouns share: tags, model versions, several files at once.

A field turns what a browser sent into plain values or rows, in one query; it changes nothing.
"""

import re
from collections.abc import Mapping
from typing import Any, cast

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Q

from deployments.registry.models import ModelVersion

MOST_MODELS = 1000  # Azure's limit for one deployment
_LONGEST_TAG = 128


def tags_text(tags: Mapping[str, str]) -> str:
    """`team=risk, stage=test` for a dict, as TagsField reads it."""
    return ", ".join(f"{key}={value}" if value else key for key, value in tags.items())


class TagsField(forms.CharField):
    """`team=risk, stage=test` as a dict; a key alone has an empty value."""

    default_error_messages = {
        "empty_key": "“%(part)s” has no name before “=”; write name=value, separated by commas.",
        "long": f"“%(part)s” is too long; a tag has at most {_LONGEST_TAG} characters.",
        "twice": "“%(part)s” is there twice; keep one.",
    }

    def to_python(self, value: Any) -> Any:
        tags: dict[str, str] = {}
        for part in re.split(r"[,\n]", super().to_python(value) or ""):
            part = part.strip()
            if not part:
                continue
            key, _, text = part.partition("=")
            key = key.strip()
            if not key:
                raise self._wrong("empty_key", part)
            if len(part) > _LONGEST_TAG:
                raise self._wrong("long", part[:40])
            if key in tags:
                raise self._wrong("twice", key)
            tags[key] = text.strip()
        return tags

    def _wrong(self, code: str, part: str) -> ValidationError:
        return ValidationError(self.error_messages[code], code=code, params={"part": part})

    def prepare_value(self, value: Any) -> Any:
        return tags_text(value) if isinstance(value, Mapping) else value

    def has_changed(self, initial: Any, data: Any) -> bool:
        return self.prepare_value(initial) != data


def split_version(text: str) -> tuple[str, int] | None:
    """(`name`, version) of `name:3`; None where it is not of that shape."""
    name, colon, version = text.rpartition(":")
    if not colon or not name or not version.isascii() or not version.isdigit():
        return None
    return name, int(version[:9])


class ModelVersionsField(forms.Field):
    """Model versions as `name:version`, several; gives the rows in the order they were given."""

    widget = forms.MultipleHiddenInput
    default_error_messages = {
        "required": "Choose at least one model version.",
        "shape": "“%(text)s” is not a model version; write name:version.",
        "missing": "%(text)s is not registered (any more); choose another version.",
        "many": f"%(count)s models were chosen; one deployment takes at most {MOST_MODELS:,}.",
    }

    def to_python(self, value: Any) -> Any:
        wanted: dict[tuple[str, int], None] = {}
        for text in value or []:
            parts = split_version(str(text))
            if parts is None:
                raise ValidationError(
                    self.error_messages["shape"], code="shape", params={"text": text}
                )
            wanted[parts] = None
        if len(wanted) > MOST_MODELS:
            raise ValidationError(
                self.error_messages["many"], code="many", params={"count": f"{len(wanted):,}"}
            )
        if not wanted:
            return []
        found = versions_named(list(wanted))
        for name, version in wanted:
            if (name, version) not in found:
                raise ValidationError(
                    self.error_messages["missing"],
                    code="missing",
                    params={"text": f"{name}:{version}"},
                )
        return [found[key] for key in wanted]


def versions_named(wanted: list[tuple[str, int]]) -> dict[tuple[str, int], ModelVersion]:
    """The rows of these (name, version) pairs that exist, in few queries."""
    numbers: dict[str, list[int]] = {}
    for name, version in wanted:
        numbers.setdefault(name, []).append(version)
    found: dict[tuple[str, int], ModelVersion] = {}
    names = list(numbers)
    for start in range(0, len(names), 100):  # a long OR is slow to parse in SQLite
        condition = Q()
        for name in names[start : start + 100]:
            condition |= Q(model__name=name, version__in=numbers[name])
        for row in ModelVersion.objects.filter(condition).select_related("model"):
            found[row.model.name, row.version] = row
    return found


def set_choices(form: forms.Form, name: str, choices: Any) -> None:
    """The choices of one field of this form, its widget's too."""
    cast(forms.ChoiceField, form.fields[name]).choices = choices


class ManyFilesInput(forms.ClearableFileInput):
    allow_multiple_selected = True


class ManyFilesField(forms.FileField):
    """Several files of one input, as a list; empty where none was chosen."""

    widget = ManyFilesInput

    def clean(self, data: Any, initial: Any = None) -> Any:
        files = data if isinstance(data, (list, tuple)) else [data]
        return [super(ManyFilesField, self).clean(file, initial) for file in files if file]
