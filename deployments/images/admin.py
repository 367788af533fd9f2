"""Admin of images: registries are changed on their own pages, which seal passwords; images by jobs."""

from django.contrib import admin
from django.http import HttpRequest

from deployments.images.models import ImageBuild, Registry


class _ReadOnly(admin.ModelAdmin):
    """What is here is changed elsewhere; editing it would pass by what that does."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object | None = None) -> bool:
        return False


@admin.register(Registry)
class RegistryAdmin(_ReadOnly):
    list_display = ["name", "role", "address", "repository", "username", "test_passed", "tested_at"]
    list_filter = ["role", "test_passed"]
    search_fields = ["name", "address"]
    exclude = ["password"]


@admin.register(ImageBuild)
class ImageBuildAdmin(_ReadOnly):
    list_display = ["hash", "state", "registry", "found", "size", "last_used_at", "error"]
    list_filter = ["state", "registry", "found"]
    list_select_related = ["registry"]
    search_fields = ["hash", "reference", "error"]
