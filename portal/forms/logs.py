"""What may be asked of a log's data."""

from django import forms

from portal.log_sources import PAGE


class LogQuery(forms.Form):
    """`cursor` as the last page gave it, empty for the beginning; `limit` in lines."""

    cursor = forms.CharField(required=False)
    limit = forms.IntegerField(required=False, min_value=1, max_value=PAGE)
