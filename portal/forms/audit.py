"""The audit page's filter."""

from datetime import datetime, time

from django import forms
from django.db.models import Q
from django.utils import timezone


class AuditFilter(forms.Form):
    """Who, what, when; all optional."""

    who = forms.CharField(required=False, max_length=150)
    what = forms.CharField(
        required=False,
        max_length=300,
        widget=forms.TextInput(attrs={"placeholder": "action or name"}),
    )
    since = forms.DateField(
        required=False, label="From", widget=forms.DateInput(attrs={"type": "date"})
    )
    until = forms.DateField(
        required=False, label="To", widget=forms.DateInput(attrs={"type": "date"})
    )

    def query(self) -> Q:
        """Conditions on audit entries. Days are whole days of the pages' time zone."""
        values = self.cleaned_data if self.is_valid() else {}
        query = Q()
        if values.get("who"):
            query &= Q(actor_name__icontains=values["who"])
        if values.get("what"):
            what = values["what"]
            query &= (
                Q(action__icontains=what)
                | Q(object_name__icontains=what)
                | Q(object_type__iexact=what)
            )
        if values.get("since"):
            query &= Q(at__gte=timezone.make_aware(datetime.combine(values["since"], time.min)))
        if values.get("until"):
            query &= Q(at__lte=timezone.make_aware(datetime.combine(values["until"], time.max)))
        return query
