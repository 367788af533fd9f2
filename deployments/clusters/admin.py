"""Clusters and machine sizes in the admin panel.

A cluster is attached and detached by its pages, which look at it first; here its words may change and
its checks may be run. Sizes may be added.
"""

from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, QuerySet
from django.http import HttpRequest

from deployments.clusters.changes import refresh
from deployments.clusters.models import Cluster, SigningKey, Sku
from deployments.errors import SlipwayError
from deployments.registry.admin import ReadOnly
from deployments.types import CheckStatus


@admin.register(Cluster)
class ClusterAdmin(admin.ModelAdmin):
    list_display = ["name", "kind", "purpose", "sku", "service_count", "observed_at", "checked_at"]
    list_filter = ["kind", "purpose", "sku__family"]
    list_select_related = ["sku"]
    search_fields = ["name", "description"]
    readonly_fields = [
        "name",
        "kind",
        "purpose",
        "sku",
        "router_url",
        "kube_server",
        "kube_namespace",
        "kube_service_type",
        "kube_node_port",
        "kube_pull_secret",
        "kube_router_image",
        "kube_blob_url",
        "checks",
        "checked_at",
        "capacity",
        "router_seen_at",
        "observed_at",
        "telemetry_epoch",
        "telemetry_seq",
        "created_at",
        "created_by",
    ]
    actions = ["run_checks"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Cluster]:
        return super().get_queryset(request).annotate(count=Count("services"))

    @admin.display(description="Services", ordering="count")
    def service_count(self, cluster: Cluster) -> int:
        return cluster.count  # type: ignore[attr-defined]

    @admin.action(description="Run the checks and read the capacity")
    def run_checks(self, request: HttpRequest, queryset: QuerySet[Cluster]) -> None:
        for cluster in queryset:
            try:
                checks = refresh(cluster)
            except SlipwayError as error:
                self.message_user(request, f"{cluster}: {error.message}", messages.ERROR)
                continue
            failed = [check for check in checks if check.status is CheckStatus.FAIL]
            level = messages.WARNING if failed else messages.SUCCESS
            said = "; ".join(f"{check.name}: {check.evidence}" for check in failed)
            self.message_user(
                request, f"{cluster}: {said or f'all {len(checks)} checks pass'}.", level
            )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # attaching looks at the cluster first

    def has_delete_permission(self, request: HttpRequest, obj: Cluster | None = None) -> bool:
        return False  # detaching refuses while services run


@admin.register(SigningKey)
class SigningKeyAdmin(ReadOnly, admin.ModelAdmin):
    """The public halves; the private one is nobody's to see."""

    list_display = ["kid", "cluster", "created_at"]
    list_filter = ["cluster"]
    list_select_related = ["cluster"]
    search_fields = ["kid"]
    fields = ["cluster", "kid", "public_pem", "created_at"]
    readonly_fields = ("cluster", "kid", "public_pem", "created_at")


@admin.register(Sku)
class SkuAdmin(admin.ModelAdmin):
    list_display = [
        "name",
        "provider",
        "family",
        "vcpu",
        "memory_gb",
        "accelerator",
        "accelerators",
        "resource_name",
    ]
    list_filter = ["family", "provider"]
    search_fields = ["name", "accelerator"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["name"] if obj else []  # clusters show it
