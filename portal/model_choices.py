"""The model versions a form offers: the chosen ones, then the most recent that match. Reads rows only."""

from typing import Any

from deployments.registry.models import ModelVersion
from portal.forms.fields import split_version, versions_named

_CHOICES = 30  # model versions shown at once; the search finds the others


def choices(query: str, chosen: list[str]) -> dict[str, Any]:
    """The chosen versions first, in their order, then the most recent that match."""
    pairs = [pair for pair in map(split_version, chosen) if pair is not None]
    found = versions_named(pairs)
    selected = [found[pair] for pair in pairs if pair in found]
    others = ModelVersion.objects.select_related("model").exclude(
        pk__in=[row.pk for row in selected]
    )
    name, _, version = query.partition(":")
    others = others.filter(model__name__icontains=name.strip())
    if version.isascii() and version.isdigit():
        others = others.filter(version=int(version[:9]))
    rows = list(others.order_by("-created_at", "-pk")[: _CHOICES + 1])
    return {
        "selected_models": selected,
        "other_models": rows[:_CHOICES],
        "more_models": len(rows) > _CHOICES,
        "model_query": query,
    }
