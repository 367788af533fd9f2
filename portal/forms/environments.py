"""Forms of the environments' pages. They judge by the definition's own rules, field by field."""

from typing import Any

from django import forms
from django.core.files.uploadedfile import UploadedFile

from deployments.environments.definition import LONGEST_TEXT, parse_variables, problems
from deployments.environments.models import Environment
from deployments.errors import InvalidInput
from deployments.registry.models import name_validator

_CONDA = "dependencies:\n  - python=3.11\n  - pip:\n      - scikit-learn==1.9.1"


def _code(rows: int, placeholder: str) -> forms.Textarea:
    return forms.Textarea(
        attrs={"rows": rows, "class": "mono", "spellcheck": "false", "placeholder": placeholder}
    )


class SearchForm(forms.Form):
    """The list's query string."""

    q = forms.CharField(
        required=False,
        max_length=100,
        widget=forms.TextInput(
            attrs={"type": "search", "placeholder": "Name, hash or description"}
        ),
    )


class DefinitionForm(forms.Form):
    """What an environment is made of, without its name: all that the live validation needs."""

    conda_yaml = forms.CharField(
        required=False,
        strip=False,
        label="Conda YAML",
        help_text="As of <code>conda env export</code>. Process clusters take its packages from PyPI.",
        widget=_code(11, _CONDA),
    )
    pip_requirements = forms.CharField(
        required=False,
        strip=False,
        label="Pip requirements",
        help_text="One a line, instead of conda YAML or on top of it.",
        widget=_code(6, "scikit-learn==1.9.1\npandas>=2,<3"),
    )
    variables = forms.CharField(
        required=False,
        strip=False,
        label="Environment variables",
        help_text="<code>NAME=value</code>, one a line, for each replica. Viewers see them too.",
        widget=_code(3, "OMP_NUM_THREADS=1"),
    )
    base_image = forms.CharField(
        required=False,
        max_length=512,
        label="Base image",
        help_text="For Docker and Kubernetes clusters. Empty: the cluster's own.",
        widget=forms.TextInput(
            attrs={
                "class": "mono",
                "spellcheck": "false",
                "autocomplete": "off",
                "placeholder": "mcr.microsoft.com/azureml/minimal-ubuntu22.04-py39-cpu-inference:latest",
            }
        ),
    )
    docker_steps = forms.CharField(
        required=False,
        strip=False,
        label="Docker steps",
        help_text="Dockerfile instructions that follow the base image's <code>FROM</code>.",
        widget=_code(4, "RUN apt-get update && apt-get install -y libgomp1"),
    )

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        try:
            values["variables"] = parse_variables(values.get("variables", ""))
        except InvalidInput as error:
            self.add_error("variables", error.message)
        texts = ("conda_yaml", "pip_requirements", "base_image", "docker_steps")
        for problem in problems(**{name: values.get(name, "") for name in texts}):
            self.add_error(problem.field, problem.message)
        return values


class EnvironmentForm(DefinitionForm):
    """A new version. An uploaded file takes the place of the text beside it."""

    name = forms.CharField(
        max_length=255,
        validators=[name_validator],
        help_text="A name that exists gets its next version.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    description = forms.CharField(required=False, max_length=2000)
    conda_file = forms.FileField(required=False, label="Conda file")
    pip_file = forms.FileField(required=False, label="Requirements file")

    field_order = ["name", "description"]

    def clean(self) -> dict[str, Any]:
        for upload, text in (("conda_file", "conda_yaml"), ("pip_file", "pip_requirements")):
            file = self.cleaned_data.pop(upload, None)
            if file:
                self._take(file, upload, text)
        return super().clean()

    def _take(self, file: UploadedFile, upload: str, text: str) -> None:
        """Into the text field, so that the page shows it again beside its error."""
        if (file.size or 0) > LONGEST_TEXT:
            self.add_error(text, f"{file.name} is larger than {LONGEST_TEXT // 1024} KiB.")
            return
        try:
            content = file.read().decode("utf-8-sig")
        except UnicodeDecodeError:
            self.add_error(text, f"{file.name} is not a text file (UTF-8).")
            return
        self.cleaned_data[text] = content
        shown = self.data.copy()  # type: ignore[attr-defined]
        shown[text] = content
        self.data = shown


def initial_from(environment: Environment) -> dict[str, Any]:
    """The form's values for a new version of this one."""
    return {
        "name": environment.name,
        "description": environment.description,
        "conda_yaml": environment.conda_yaml,
        "pip_requirements": environment.pip_requirements,
        "variables": "\n".join(f"{key}={value}" for key, value in environment.variables.items()),
        "base_image": environment.base_image,
        "docker_steps": environment.docker_steps,
    }
