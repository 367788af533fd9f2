"""The registry in the admin panel: everything to be seen and found, and nothing that breaks its rules.

Versions, files and contents never change, so they are read-only; deleting goes through the same
functions as the pages, which refuse what is in use.
"""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.db.models import Count, QuerySet, Sum
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.utils import timezone

from deployments.errors import SlipwayError
from deployments.registry import blobs
from deployments.registry.models import Blob, Model, ModelFile, ModelVersion
from deployments.registry.versions import delete_version, used_by


class ReadOnly:
    """Rows that code makes and removes; a person may look."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class VersionsInline(ReadOnly, admin.TabularInline):
    model = ModelVersion
    fields = readonly_fields = (
        "version", "framework", "framework_version", "size", "file_count", "created_at",
    )  # fmt: skip
    show_change_link = True
    ordering = ["-version"]


class FilesInline(ReadOnly, admin.TabularInline):
    model = ModelFile
    fields = readonly_fields = ("path", "blob", "size")
    max_num = 200

    def get_queryset(self, request: HttpRequest) -> QuerySet[ModelFile]:
        return super().get_queryset(request).select_related("blob")

    @admin.display(description="Size")
    def size(self, file: ModelFile) -> str:
        return filesizeformat(file.blob.size)


@admin.register(Model)
class ModelAdmin(admin.ModelAdmin):
    """A model's description may change; its name is in revisions and paths, so it may not."""

    list_display = ["name", "version_count", "total_size", "created_by", "created_at"]
    list_select_related = ["created_by"]
    list_filter = ["created_at", "versions__framework"]
    search_fields = ["name", "description", "versions__tags"]
    date_hierarchy = "created_at"
    readonly_fields = ["name", "next_version", "created_at", "created_by"]
    inlines = [VersionsInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Model]:
        rows = super().get_queryset(request)
        return rows.annotate(
            count=Count("versions", distinct=True), bytes=Sum("versions__size", default=0)
        )

    @admin.display(description="Versions", ordering="count")
    def version_count(self, model: Model) -> int:
        return model.count  # type: ignore[attr-defined]

    @admin.display(description="Size", ordering="bytes")
    def total_size(self, model: Model) -> str:
        return filesizeformat(model.bytes)  # type: ignore[attr-defined]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # a model is made by registering its first version

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False  # version by version, through the action


class ChangeListWithServices(ChangeList):
    """The page's versions with the services they are deployed in, in one query."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        services = used_by([version.pk for version in self.result_list])
        for version in self.result_list:
            version.services = services.get(version.pk, [])


@admin.register(ModelVersion)
class ModelVersionAdmin(ReadOnly, admin.ModelAdmin):
    """Versions with their files. The one action deletes by the registry's own rule."""

    list_display = ["__str__", "framework", "framework_version", "total_size", "file_count",
                    "deployed_in", "created_by", "created_at"]  # fmt: skip
    list_select_related = ["model", "created_by"]
    list_filter = ["framework", "created_at"]
    search_fields = ["model__name", "description", "tags", "content_hash", "files__path"]
    date_hierarchy = "created_at"
    inlines = [FilesInline]
    actions = ["delete_unused"]
    list_per_page = 50

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ChangeListWithServices

    @admin.display(description="Deployed in")
    def deployed_in(self, version: ModelVersion) -> str:
        return ", ".join(version.services) or "–"  # type: ignore[attr-defined]

    @admin.display(description="Size", ordering="size")
    def total_size(self, version: ModelVersion) -> str:
        return filesizeformat(version.size)

    @admin.action(description="Delete the selected versions that are not in use")
    def delete_unused(self, request: HttpRequest, queryset: QuerySet[ModelVersion]) -> None:
        for version in queryset.select_related("model"):
            label = str(version)
            try:
                delete_version(request.user, version)  # type: ignore[arg-type]
            except SlipwayError as error:
                self.message_user(request, error.message, messages.ERROR)
            else:
                self.message_user(request, f"{label} was deleted.", messages.SUCCESS)


class ReferencedFilter(admin.SimpleListFilter):
    """Whether a model's file refers to a content."""

    title = "referred to by a model"
    parameter_name = "referenced"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Yes"), ("no", "No")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Blob]) -> QuerySet[Blob]:
        if self.value() in ("yes", "no"):
            return queryset.filter(model_files__isnull=self.value() == "no").distinct()
        return queryset


@admin.register(Blob)
class BlobAdmin(ReadOnly, admin.ModelAdmin):
    """Stored contents, each once."""

    list_display = ["sha256", "human_size", "used_by_files", "held_until", "created_at"]
    list_filter = [ReferencedFilter, "created_at"]
    search_fields = ["sha256", "model_files__path", "model_files__version__model__name"]
    actions = ["remove_unreferenced"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Blob]:
        return super().get_queryset(request).annotate(uses=Count("model_files"))

    @admin.display(description="Size", ordering="size")
    def human_size(self, blob: Blob) -> str:
        return filesizeformat(blob.size)

    @admin.display(description="Files of models", ordering="uses")
    def used_by_files(self, blob: Blob) -> int:
        return blob.uses  # type: ignore[attr-defined]

    @admin.action(description="Remove those that nothing refers to")
    def remove_unreferenced(self, request: HttpRequest, queryset: QuerySet[Blob]) -> None:
        chosen = list(queryset.values_list("pk", flat=True))
        removed = blobs.remove_unreferenced(timezone.now(), among=chosen)
        self.message_user(request, f"{removed} contents were removed.", messages.SUCCESS)
