"""Services, revisions and deployments in the admin panel: to look, filter and search.

Revisions never change and states are written by the job and the controller, so nearly all of it is
read-only; deleting a service goes the way of its page, so that its replicas drain first.
"""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from deployments.errors import SlipwayError
from deployments.queue import enqueue_deployment
from deployments.registry.admin import ReadOnly
from deployments.services.changes import delete_service
from deployments.services.models import (
    Deployment,
    DeploymentStep,
    IssuedToken,
    Revision,
    RevisionModel,
    Service,
    ServiceVersion,
)
from deployments.services.tokens import revoke
from deployments.upkeep import is_lost

_SERVICE_FIELDS = (
    "name",
    "cluster",
    "description",
    "tags",
    "properties",
    "state",
    "state_cause",
    "current",
    "auth_enabled",
    "token_auth_enabled",
    "cors_origins",
    "generation",
    "deleting",
    "desired_replicas",
    "replicas",
    "observed_at",
    "created_by",
    "created_at",
    "updated_at",
)


class DeploymentsInline(ReadOnly, admin.TabularInline):
    model = Deployment
    fields = ["kind", "revision", "state", "step", "cause_code", "created_at", "finished_at"]
    readonly_fields = (
        "kind",
        "revision",
        "state",
        "step",
        "cause_code",
        "created_at",
        "finished_at",
    )
    show_change_link = True
    ordering = ["-created_at"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Deployment]:
        return super().get_queryset(request).select_related("revision__service")


@admin.register(Service)
class ServiceAdmin(admin.ModelAdmin):
    """The description and the tags may change; the rest belongs to deployments and the cluster."""

    list_display = ["name", "cluster", "state", "current", "desired_replicas", "updated_at"]
    list_filter = ["state", "cluster", "auth_enabled", "deleting"]
    list_select_related = ["cluster", "current__service"]
    search_fields = ["name", "description", "state_cause"]
    date_hierarchy = "created_at"
    fields = _SERVICE_FIELDS
    inlines = [DeploymentsInline]
    actions = ["remove"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return [name for name in _SERVICE_FIELDS if name not in ("description", "tags")]

    @admin.action(description="Delete the selected services (their replicas drain first)")
    def remove(self, request: HttpRequest, queryset: QuerySet[Service]) -> None:
        for service in queryset:
            try:
                delete_service(request.user, service)  # type: ignore[arg-type]
            except SlipwayError as error:
                self.message_user(request, f"{service}: {error.message}", messages.ERROR)
            else:
                self.message_user(request, f"{service} is being deleted.", messages.SUCCESS)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Service | None = None) -> bool:
        return False  # through the action, which drains


class ModelsInline(ReadOnly, admin.TabularInline):
    model = RevisionModel
    fields = ["position", "model_version"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[RevisionModel]:
        rows = super().get_queryset(request)
        return rows.select_related("model_version__model", "revision__service")


@admin.register(ServiceVersion)
class ServiceVersionAdmin(ReadOnly, admin.ModelAdmin):
    """Made by deploying; shares and promotion are the Versions tab's, which applies them."""

    list_display = [
        "name",
        "service",
        "current",
        "is_default",
        "is_control",
        "traffic_percent",
        "state",
        "desired_replicas",
    ]
    list_filter = ["state", "is_default", "service__cluster"]
    list_select_related = ["service", "current__service"]
    search_fields = ["name", "service__name", "state_cause"]


@admin.register(Revision)
class RevisionAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ["service", "number", "entry_script", "environment", "note", "created_at"]
    list_filter = ["service__cluster", "created_at"]
    list_select_related = ["service", "environment"]
    search_fields = ["service__name", "note", "environment__name"]
    inlines = [ModelsInline]


class StepsInline(ReadOnly, admin.TabularInline):
    model = DeploymentStep
    fields = ["name", "state", "detail", "started_at", "ended_at"]


@admin.register(Deployment)
class DeploymentAdmin(ReadOnly, admin.ModelAdmin):
    list_display = [
        "id",
        "service",
        "version_name",
        "revision",
        "kind",
        "state",
        "step",
        "cause_code",
        "created_at",
        "finished_at",
    ]
    list_filter = ["state", "kind", "cause_code", "service__cluster", "created_at"]
    list_select_related = ["service", "revision__service"]
    search_fields = ["service__name", "cause", "evidence"]
    date_hierarchy = "created_at"
    inlines = [StepsInline]
    actions = ["queue_again"]

    @admin.action(description="Queue again where nobody works on it")
    def queue_again(self, request: HttpRequest, queryset: QuerySet[Deployment]) -> None:
        lost = [
            row
            for row in queryset
            if row.state in ("queued", "running") and is_lost(row, timezone.now())
        ]
        for row in lost:
            enqueue_deployment(row.pk)
        self.message_user(request, f"{len(lost)} of {len(queryset)} were queued again.")


@admin.register(IssuedToken)
class IssuedTokenAdmin(ReadOnly, admin.ModelAdmin):
    """Who was given a token and until when. The token itself is kept nowhere."""

    list_display = ["subject", "service", "issued_at", "expires_at", "revoked_at", "created_by"]
    list_filter = ["cluster", "service", "revoked_at", "expires_at"]
    list_select_related = ["service", "created_by"]
    search_fields = ["subject", "jti", "service__name"]
    date_hierarchy = "issued_at"
    actions = ["revoke_them"]

    @admin.action(description="Revoke the selected tokens")
    def revoke_them(self, request: HttpRequest, queryset: QuerySet[IssuedToken]) -> None:
        count = 0
        for token in queryset.filter(revoked_at=None).select_related("service"):
            if token.service is not None:
                revoke(request.user, token.service, token.jti)  # type: ignore[arg-type]
                count += 1
        self.message_user(request, f"{count} revoked; they stop working within 2 seconds.")
