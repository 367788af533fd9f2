"""Questions about the registry's rows, for pages and the API. A page costs the same few queries
however many rows it shows. Nothing is changed here."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Count, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.fields.json import KeyTransform

from deployments.errors import NotFound
from deployments.registry.models import Model, ModelVersion
from deployments.registry.versions import used_by


@dataclass(frozen=True, slots=True)
class Deployed:
    """A version of a model in a service."""

    service: str
    version: int


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model as lists show it; `newest` has its model and author loaded. Size is all versions', in bytes."""

    newest: ModelVersion
    versions: int
    size: int
    deployed: tuple[Deployed, ...]


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version as lists show it."""

    version: ModelVersion
    services: tuple[str, ...]


def newest_versions(
    *, search: str = "", framework: str = "", tag: str = ""
) -> QuerySet[ModelVersion]:
    """The newest version of each model that has one, by name, counted (`versions`, `all_sizes`).

    `search` looks in names and descriptions; `tag` is "name" or "name=value" on the newest version.
    """
    newest = ModelVersion.objects.filter(model=OuterRef("model")).order_by("-version")
    rows = (
        ModelVersion.objects.filter(pk=Subquery(newest.values("pk")[:1]))
        .select_related("model", "created_by")
        .annotate(
            versions=Count("model__versions"),
            all_sizes=Sum("model__versions__size"),
        )
        .order_by("model__name")
    )
    if search:
        rows = rows.filter(
            Q(model__name__icontains=search)
            | Q(model__description__icontains=search)
            | Q(description__icontains=search)
        )
    if framework:
        rows = rows.filter(framework=framework)
    return with_tag(rows, tag) if tag else rows


def with_tag(rows: QuerySet[ModelVersion], tag: str) -> QuerySet[ModelVersion]:
    """Versions with a tag ("name") of a value ("name=value")."""
    name, equals, value = tag.partition("=")
    name = name.strip()
    if not equals:
        return rows.filter(tags__has_key=name)
    return rows.annotate(tag_value=KeyTransform(name, "tags")).filter(tag_value=value.strip())


def model_rows(newest: Sequence[ModelVersion]) -> list[ModelRow]:
    """Rows for a page of `newest_versions`; two queries."""
    numbers = {
        pk: (model, number)
        for pk, model, number in ModelVersion.objects.filter(
            model__in=[version.model_id for version in newest]
        ).values_list("pk", "model_id", "version")
    }
    deployed: dict[int, list[Deployed]] = {}
    for pk, services in used_by(numbers).items():
        model, number = numbers[pk]
        deployed.setdefault(model, []).extend(Deployed(name, number) for name in services)
    return [
        ModelRow(
            newest=version,
            versions=version.versions,  # type: ignore[attr-defined]
            size=version.all_sizes,  # type: ignore[attr-defined]
            deployed=tuple(
                sorted(deployed.get(version.model_id, ()), key=lambda d: (d.service, -d.version))
            ),
        )
        for version in newest
    ]


def version_rows(model: Model) -> list[VersionRow]:
    """All versions of a model, newest first; two queries."""
    versions = list(model.versions.select_related("model", "created_by").order_by("-version"))
    services = used_by([version.pk for version in versions])
    return [VersionRow(version, tuple(services.get(version.pk, ()))) for version in versions]


def model_named(name: str) -> Model:
    """The model with at least one version, or NotFound."""
    model = Model.objects.filter(name=name, versions__isnull=False).distinct().first()
    if model is None:
        raise NotFound(f"No model is called {name}. See the list of models.", code="ModelNotFound")
    return model


def version_of(name: str, number: int) -> ModelVersion:
    """A model's version with its model and author, or NotFound."""
    version = (
        ModelVersion.objects.filter(model__name=name, version=number)
        .select_related("model", "created_by")
        .first()
    )
    if version is None:
        raise NotFound(
            f"The model {name} has no version {number}; it may have been deleted.",
            code="ModelNotFound",
        )
    return version


def next_number(name: str) -> int:
    """The number a version registered now would get."""
    found = Model.objects.filter(name=name).values_list("next_version", flat=True).first()
    return found or 1
