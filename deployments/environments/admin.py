"""Admin of environments: definitions are immutable, builds are made by jobs, so both are read-only."""

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from deployments.environments.changes import delete_environment, remove_build, request_build
from deployments.environments.models import Environment, EnvironmentBuild
from deployments.errors import SlipwayError


class _ReadOnly(admin.ModelAdmin):
    """What is here was made elsewhere; editing it would make it a lie."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object | None = None) -> bool:
        return False


@admin.register(Environment)
class EnvironmentAdmin(_ReadOnly):
    list_display = ["name", "version", "short_hash", "base_image", "created_at", "created_by"]
    list_filter = ["created_at"]
    list_select_related = ["created_by"]
    search_fields = ["name", "hash", "description", "conda_yaml", "pip_requirements"]
    date_hierarchy = "created_at"
    actions = ["build", "remove_builds", "delete_unused"]

    @admin.display(description="hash", ordering="hash")
    def short_hash(self, environment: Environment) -> str:
        return environment.hash[:12]

    @admin.action(description="Build on this machine")
    def build(self, request: HttpRequest, chosen: QuerySet[Environment]) -> None:
        self._each(request, chosen, request_build, "queued")

    @admin.action(description="Remove the built environments")
    def remove_builds(self, request: HttpRequest, chosen: QuerySet[Environment]) -> None:
        self._each(request, chosen, remove_build, "removed")

    @admin.action(description="Delete the versions no revision was made with")
    def delete_unused(self, request: HttpRequest, chosen: QuerySet[Environment]) -> None:
        self._each(request, chosen, delete_environment, "deleted")

    def _each(self, request, chosen, change, done) -> None:  # type: ignore[no-untyped-def]
        for environment in chosen:
            name = str(environment)
            try:
                change(request.user, environment)
            except SlipwayError as error:
                self.message_user(request, f"{name}: {error.message}", messages.WARNING)
            else:
                self.message_user(request, f"{name} {done}.")


@admin.register(EnvironmentBuild)
class EnvironmentBuildAdmin(_ReadOnly):
    list_display = ["hash", "state", "size", "last_used_at", "started_at", "finished_at", "error"]
    list_filter = ["state", "last_used_at"]
    search_fields = ["hash", "error"]
