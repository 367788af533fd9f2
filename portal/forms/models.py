"""Forms of the models' pages. They judge by the registry's own rules."""

import json
from collections.abc import Sequence
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from deployments.errors import InvalidInput
from deployments.registry import rules
from deployments.registry.models import Framework, ModelVersion


class FilterForm(forms.Form):
    """The list's query string. What is wrong in it is left out."""

    q = forms.CharField(
        required=False,
        max_length=100,
        label="Find",
        widget=forms.TextInput(attrs={"type": "search", "placeholder": "Name or description"}),
    )
    framework = forms.ChoiceField(
        required=False, choices=[("", "Every framework"), *Framework.choices]
    )
    tag = forms.CharField(
        required=False,
        max_length=rules.LONGEST_TAG_NAME + rules.LONGEST_TAG_VALUE + 1,
        widget=forms.TextInput(attrs={"placeholder": "Tag or tag=value"}),
    )


class RegisterForm(forms.Form):
    """A new version. The files are judged by their paths; their content is never looked at.

    `paths` are those of the chosen files and `problem` is why the upload was not taken, if it was not.
    """

    name = forms.CharField(
        max_length=255,
        help_text="A name that exists gets its next version.",
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "spellcheck": "false", "list": "model-names"}
        ),
    )
    description = forms.CharField(
        required=False, max_length=2000, widget=forms.Textarea(attrs={"rows": 2})
    )
    framework = forms.ChoiceField(
        required=False,
        choices=[("", "Detect from file names"), *Framework.choices],
        help_text="scikit-learn and ONNX models can be deployed without an entry script.",
    )
    framework_version = forms.CharField(
        required=False,
        max_length=40,
        help_text="The version the model was made with, such as 1.9.1.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    tags = forms.CharField(
        required=False,
        max_length=20_000,
        help_text="One a line: name=value.",
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false", "class": "mono"}),
    )
    sample_input = forms.CharField(
        required=False,
        strip=False,
        help_text="A JSON request body that the model answers. The Test tab starts with it.",
        widget=forms.Textarea(
            attrs={
                "rows": 6,
                "spellcheck": "false",
                "class": "mono",
                "placeholder": '{"data": [[5.1, 3.5, 1.4, 0.2]]}',
            }
        ),
    )
    upload = forms.Field(required=False)

    def __init__(
        self, *args: Any, paths: Sequence[str] = (), problem: str = "", **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.paths = list(paths)
        self.problem = problem

    def clean_name(self) -> str:
        return self._judged(rules.checked_name, self.cleaned_data["name"].strip())

    def clean_framework_version(self) -> str:
        return self._judged(rules.checked_framework_version, self.cleaned_data["framework_version"])

    def clean_tags(self) -> dict[str, str]:
        return self._judged(rules.parsed_tags, self.cleaned_data["tags"])

    def clean_sample_input(self) -> str:
        return self._judged(rules.checked_sample_input, self.cleaned_data["sample_input"])

    def clean_upload(self) -> list[str]:
        if self.problem:
            raise ValidationError(self.problem)
        return self._judged(rules.checked_paths, self.paths)

    @staticmethod
    def _judged(rule: Any, value: Any) -> Any:
        try:
            return rule(value)
        except InvalidInput as error:
            raise ValidationError(error.message) from error


class CheckForm(forms.Form):
    """What the page knows of the files before it sends them: their paths and sizes, as JSON."""

    paths = forms.JSONField(required=False)
    total = forms.IntegerField(min_value=0)

    def clean_paths(self) -> list[str]:
        paths = self.cleaned_data["paths"]
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise ValidationError("A list of paths is needed.")
        return paths


def initial_from(newest: ModelVersion | None, name: str) -> dict[str, str]:
    """What the form starts with: the newest version's words, for a version after it."""
    if newest is None:
        return {"name": name}
    return {
        "name": name,
        "description": newest.description,
        "framework": newest.framework,
        "framework_version": newest.framework_version,
        "tags": rules.tags_as_text(newest.tags),
        "sample_input": newest.sample_input,
    }


def pretty_json(text: str) -> str:
    """JSON laid out for reading, short lists and objects in one line; other text stays as it is."""
    try:
        return _laid_out(json.loads(text), "")
    except ValueError:
        return text


def _laid_out(value: Any, indent: str) -> str:
    line = json.dumps(value, ensure_ascii=False)
    if len(line) <= 72 - len(indent) or not isinstance(value, (dict, list)):
        return line
    deeper = indent + "  "
    if isinstance(value, list):
        items = [_laid_out(item, deeper) for item in value]
        opened, closed = "[", "]"
    else:
        items = [
            f"{json.dumps(key, ensure_ascii=False)}: {_laid_out(item, deeper)}"
            for key, item in value.items()
        ]
        opened, closed = "{", "}"
    return f"{opened}\n{deeper}" + f",\n{deeper}".join(items) + f"\n{indent}{closed}"
