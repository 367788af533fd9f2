"""Forms of a local run's page."""

from django import forms

from deployments.localruns.changes import MOST_TEXT


class FileForm(forms.Form):
    """Which file of the project folder is asked for."""

    path = forms.CharField(max_length=1024)


class SaveForm(forms.Form):
    """An edited file. Empty text is a file that is empty."""

    path = forms.CharField(max_length=1024)
    text = forms.CharField(required=False, strip=False, max_length=MOST_TEXT)
